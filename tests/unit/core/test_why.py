"""Why a job is not running: every cause, with its sentence and what to do; and which of several comes first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from processor.core.control import PAUSED_TYPE
from processor.core.why import WORDS, Cause, JobFacts, reasons
from processor.states import TERMINAL, State

NOW = 1_767_225_600_000
FACTS = JobFacts(
    id="j1",
    now=NOW,
    state=State.QUEUED,
    type="import.file",
    queue="bulk",
    since=NOW - 120_000,
    number=2,
    workers=("host-0", "host-1"),
    owner="host-1",
)
IN_10_MINUTES = "2026-01-01 00:10:00Z (in 10m)"
TABLE: list[tuple[Cause, dict[str, Any], str, str]] = [
    (Cause.UNKNOWN, {"state": None}, "nothing is known of job j1", "is the namespace right?"),
    (
        Cause.ENDED,
        {"state": State.DEAD, "error": "builtins.ValueError: no amount"},
        "it has ended: dead, 2025-12-31 23:58:00Z (2m ago): builtins.ValueError: no amount",
        "processor dlq redrive j1",
    ),
    (Cause.CANCELLING, {"cancelled": "wrong customer (by ada@desk)"}, "wrong customer (by ada@desk)", "wait"),
    (Cause.KILL_DATE, {"kill_at": NOW - 5_000}, "came 2025-12-31 23:59:55Z (5s ago)", "processor dlq redrive j1"),
    (
        Cause.RUNNING,
        {"state": State.RUNNING, "worker": "host-1", "attempt": 2, "attempts": 5},
        "it is running, attempt 2 of 5, on host-1; it said so last 2025-12-31 23:58:00Z (2m ago)",
        "processor job show j1",
    ),
    (
        Cause.WORKER_GONE,
        {"state": State.RUNNING, "worker": "host-1", "workers": ()},
        "it was running on host-1, last heard of 2025-12-31 23:58:00Z (2m ago), and no worker serves queue bulk now",
        "goes on from what it saved",
    ),
    (Cause.IN_DOUBT, {"state": State.IN_DOUBT, "note": "step 'pay'"}, "it is in doubt: step 'pay'", "job retry j1"),
    (Cause.PARKED, {"state": State.WAITING, "note": "ask Ada"}, "it was parked: ask Ada", "processor job retry j1"),
    (
        Cause.DEPLOY,
        {"state": State.WAITING, "note": "unknown job type 'x'", "until": NOW + 600_000},
        f"it waits until {IN_10_MINUTES} for workers with newer code: unknown job type 'x'",
        "deploy",
    ),
    (
        Cause.NOT_DUE,
        {"state": State.SCHEDULED, "due_at": NOW + 600_000},
        f"it is not due before {IN_10_MINUTES}",
        "processor job retry j1",
    ),
    (
        Cause.RETRY,
        {"state": State.RETRYING, "due_at": NOW + 600_000, "attempt": 2, "attempts": 5, "error": "timeout: too slow"},
        f"attempt 2 of 5 failed (timeout: too slow); the next one is due {IN_10_MINUTES}",
        "processor job retry j1",
    ),
    (Cause.COMES_HOME, {"state": State.RETRYING, "due_at": NOW - 1_000}, "it was due", "processor queue lag bulk"),
    (Cause.COMES_HOME, {"state": State.SCHEDULED, "due_at": NOW}, "it was due", "processor queue lag bulk"),
    (
        Cause.QUEUE_PAUSED,
        {"queue_pause": "the bank is closed (by ada@desk)"},
        "queue bulk is paused: the bank is closed (by ada@desk)",
        "processor queue resume bulk",
    ),
    (
        Cause.TYPE_PAUSED,
        {"type_pause": "by ada@desk"},
        "job type import.file is paused: by ada@desk",
        "processor queue resume --type import.file",
    ),
    (
        Cause.TYPE_PAUSED,
        {"state": State.WAITING, "note": f"{PAUSED_TYPE}: by ada@desk", "type_pause": "by ada@desk"},
        "job type import.file is paused: by ada@desk",
        "processor queue resume --type import.file",
    ),
    (
        Cause.NO_WORKER,
        {"workers": (), "owner": ""},
        "no worker serves queue bulk",
        "processor worker MODULE:APP -q bulk",
    ),
    (
        Cause.GOES_ON,
        {"state": State.WAITING, "note": f"{PAUSED_TYPE}: by ada@desk"},
        "job type import.file is no longer paused",
        "processor queue list",
    ),
    (Cause.NO_OWNER, {"owner": ""}, "no worker owns its partition 2 of queue bulk now", "processor doctor"),
    (Cause.HELD, {"held": True}, "its partition 2 of queue bulk is held by host-1", "number.held"),
    (
        Cause.KEY,
        {"key": "c{7}", "key_holder": "j0", "key_holder_state": "running", "ahead": 9},
        "it waits for its ordering key c{7}: job j0 is before it (running)",
        "processor job why j0",
    ),
    (Cause.BEHIND, {"ahead": 812}, "it is behind up to 812 others in its lane, partition 2", "--concurrency"),
    (Cause.BEHIND, {"ahead": 1}, "it is behind 1 other in its lane", "--concurrency"),
    (Cause.NEXT, {}, "it is next in its lane: it starts when a slot of host-1 is free", "processor job show j1"),
]


@pytest.mark.parametrize(("cause", "facts", "text", "advice"), TABLE, ids=lambda value: str(value)[:20])
def test_every_cause_says_what_it_is_and_what_to_do(
    cause: Cause, facts: dict[str, Any], text: str, advice: str
) -> None:
    found = reasons(replace(FACTS, **facts))
    assert found[0].cause is cause
    assert text in found[0].text
    assert advice in found[0].advice
    assert len(found) == len({each.cause for each in found})


def test_the_table_has_every_cause_and_every_cause_has_its_words() -> None:
    assert {row[0] for row in TABLE} == set(Cause) == set(WORDS)


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_an_answer(state: State) -> None:
    found = reasons(JobFacts(id="j1", now=NOW, state=state))
    assert found[0].text
    assert "{" not in found[0].text + found[0].advice
    assert (found[0].cause is Cause.ENDED) is (state in TERMINAL)
    assert found[0].advice, "somebody asks because something is to be done"


def test_what_ends_a_job_comes_before_what_it_waits_for_and_that_before_who_serves_it() -> None:
    facts = replace(
        FACTS, state=State.RETRYING, due_at=NOW + 60_000, cancelled="by ada", queue_pause="closed", workers=(), owner=""
    )
    causes = [each.cause for each in reasons(facts)]
    assert causes == [Cause.CANCELLING, Cause.RETRY, Cause.QUEUE_PAUSED, Cause.NO_WORKER]
    overdue = replace(FACTS, state=State.RETRYING, due_at=NOW - 60_000, workers=(), owner="")
    assert [each.cause for each in reasons(overdue)] == [Cause.NO_WORKER], "nobody brings it home"
    waits = replace(FACTS, queue_pause="closed", key_holder="j0", ahead=3)
    assert [each.cause for each in reasons(waits)] == [Cause.QUEUE_PAUSED, Cause.KEY]
