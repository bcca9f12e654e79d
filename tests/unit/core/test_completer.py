"""What each outcome writes: in which order, to which topic, and what the log says if only a part of it gets there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core import completer as module
from processor.core.checkpoint import parse_key
from processor.core.completer import Completer
from processor.core.outcome import Discarded, Ended, Failed, Lost, Parked, Retried, Succeeded, Yielded
from processor.core.write_set import Move, Origin, Saved, Topics, WriteSet
from processor.dead_reasons import DeadReason
from processor.job import Carried, ErrorInfo, Failure, Job, Progress, Step, StepPhase, Version
from processor.states import State
from processor.wire.codec import (
    decode_checkpoint,
    decode_dead_letter,
    decode_dedupe,
    decode_job,
    decode_live_job,
    decode_status,
    encode,
)

NOW = 1_767_225_600_000
TOPICS = Topics("shop.status", "shop.dlq", "shop.checkpoints.mails", "shop.dedupe.mails", 3, "shop")
ORIGIN = Origin("shop.jobs.mails", 3, 41)
VERSION = Version(1, 0, 7, 12)
ERROR = ErrorInfo("builtins.ValueError", "no such address", "Traceback\n  File 'a.py', line 1, in send\n", "f1")
STEPS = (Step("head", StepPhase.FINISHED, '"h"'), Step("rows[5]/x", StepPhase.STARTED))
PROGRESS = Progress("950000", None, {}, 950_000, 1_000_000)


def job(**fields: Any) -> Job:
    return Job("job-1", "mail.send", 1, "mails", b'{"to":"a"}', NOW - 5_000)._replace(**fields)


def saved(**fields: Any) -> Saved:
    return Saved(PROGRESS, STEPS, False)._replace(**fields)


def ended(outcome: Any, this: Job | None = None, held: Saved | None = None, *, marked: bool = False) -> WriteSet:
    this = this or job()
    return Completer("w-1").end(
        TOPICS, this, encode(this), ORIGIN, outcome, saved=held, version=VERSION, marked=marked, now=NOW
    )


def moved(this: Job | None = None, held: Saved | None = None, **more: Any) -> Move:
    options: dict[str, Any] = {"stays": False, "marked": False, "deaths": 0, "due": NOW + 5_000} | more
    due = options.pop("due")
    return Completer("w-1").move(
        TOPICS,
        this or job(),
        ERROR,
        due,
        origin=ORIGIN,
        saved=held,
        version=VERSION._replace(hop=1),
        now=NOW,
        **options,
    )


def topics_of(records: Any) -> list[str]:
    return [(record.out if hasattr(record, "out") else record).topic for record in records]


ENDS: list[tuple[Any, State, bool]] = [
    (Succeeded(b"1"), State.SUCCEEDED, False),
    (Failed(ERROR, DeadReason.EXHAUSTED), State.DEAD, True),
    (Discarded(ERROR), State.DISCARDED, False),
    (Ended(State.CANCELLED, "not wanted"), State.CANCELLED, False),
    (Ended(State.EXPIRED, "too late"), State.EXPIRED, False),
    (Ended(State.KILLED, "its date came"), State.KILLED, True),
]


@pytest.mark.parametrize(("outcome", "state", "letter"), ENDS)
def test_an_end_announces_its_state_and_some_leave_a_letter(outcome: Any, state: State, letter: bool) -> None:
    writes = ended(outcome)
    assert writes.state is state
    assert topics_of(writes.creates) == ([TOPICS.dlq] if letter else [])
    (status,) = writes.announces
    assert status.topic == TOPICS.status
    record = decode_status(status.value or b"")
    assert (record.id, record.life, record.state, record.at) == ("job-1", 1, state, NOW)
    assert writes.saves == ()
    assert writes.later == ()


@pytest.mark.parametrize(("outcome", "state", "letter"), ENDS)
def test_progress_is_buried_after_an_end_mark_and_last_of_all(outcome: Any, state: State, letter: bool) -> None:
    writes = ended(outcome, held=saved(promoted=True))
    (mark,) = writes.saves
    assert mark.out.partition == TOPICS.number
    assert mark.record.final is not None  # type: ignore[union-attr]
    assert decode_status(mark.record.final).state is state  # type: ignore[union-attr]
    kinds = [parse_key(key) for key in writes.later]
    assert [(key.kind.value, key.rest) for key in kinds] == [
        ("step", "head"),
        ("step", "rows[5]/x"),
        ("job", ""),
        ("progress", ""),
    ]


def test_what_was_never_written_needs_no_grave() -> None:
    writes = ended(Succeeded(), held=saved(written=False))
    assert writes.saves == ()
    assert writes.later == ()


@pytest.mark.parametrize("outcome", [Retried(ERROR, 1.0), Yielded(), Lost(), Parked(State.WAITING, "x")])
def test_what_ends_nothing_writes_nothing(outcome: Any) -> None:
    assert ended(outcome, held=saved()) == WriteSet()


@pytest.mark.parametrize(("outcome", "state", "letter"), ENDS)
def test_a_mark_is_created_before_the_end_is_announced(outcome: Any, state: State, letter: bool) -> None:
    writes = ended(outcome, marked=True)
    (mark,) = [record for record in writes.creates if record.topic == TOPICS.dedupe]
    assert decode_dedupe(mark.value or b"").id == "job-1"
    assert mark.partition == TOPICS.number


def test_a_letter_holds_the_job_its_progress_and_every_failure() -> None:
    before = [Failure("k", "first", "", "f0", 1, "w-0", NOW - 9)]
    this = job(attempt=1, carried=Carried(before, None, None, ["child-1"]))
    writes = ended(Failed(ERROR, DeadReason.EXHAUSTED), this, saved())
    letter = decode_dead_letter(writes.creates[0].value or b"")
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == ("exhausted", *ORIGIN)
    assert decode_job(letter.job or b"") == this._replace(carried=None), "failures stand beside it, once"
    assert [one.message for one in letter.failures or []] == ["first", "no such address"]
    assert decode_checkpoint(letter.progress or b"").cursor == "950000"
    assert len(letter.steps or []) == 2
    assert letter.children == ["child-1"]
    assert ("reason", b"exhausted") in (writes.creates[0].headers or [])


def test_progress_too_large_for_a_letter_leaves_its_position() -> None:
    big = Step("big", StepPhase.FINISHED, '"' + "x" * module.INLINE_PROGRESS_BYTES + '"')
    letter = decode_dead_letter(ended(Failed(ERROR), held=saved(steps=(big,))).creates[0].value or b"")
    assert decode_checkpoint(letter.progress or b"").cursor == "950000"
    assert not letter.steps


def test_a_retry_is_the_same_job_a_hop_and_an_attempt_further() -> None:
    move = moved(held=saved())
    assert move.job.hop == 1
    assert move.job.attempt == 1
    assert move.job.due_at == NOW + 5_000
    assert move.job.number == TOPICS.number
    copy = decode_job(move.writes.creates[0].value or b"")
    assert copy == move.job
    assert copy.carried is not None
    assert decode_checkpoint(copy.carried.progress or b"").cursor == "950000"
    assert len(copy.carried.steps or []) == 2
    status = decode_status(move.writes.announces[0].value or b"")
    assert (status.state, status.due_at, status.done, status.total) == (State.RETRYING, NOW + 5_000, 950_000, 1_000_000)


def test_a_death_is_no_attempt() -> None:
    move = moved(deaths=2)
    assert move.job.attempt == 0
    assert move.job.deaths == 2


def test_progress_that_travels_is_buried_where_it_was() -> None:
    writes = moved(held=saved()).writes
    assert [parse_key(key).kind.value for key in writes.later] == ["step", "step", "progress"]
    assert writes.saves == []


def test_progress_too_large_to_travel_stays_at_home_in_the_chain() -> None:
    big = Step("big", StepPhase.FINISHED, '"' + "x" * module.CARRIED_BYTES + '"')
    move = moved(held=saved(steps=(big,), fresh=(big,)))
    assert move.job.carried is not None
    assert move.job.carried.progress is None
    assert move.writes.later == (), "it is still needed"
    assert [parse_key(one.out.key or b"").kind.value for one in move.writes.saves] == ["progress", "step"]
    home = decode_checkpoint(move.writes.saves[0].out.value or b"")
    assert home.home_topic.startswith("shop.retry.")


def test_a_blocked_key_is_kept_by_a_mark_with_the_small_job() -> None:
    this = job(key="customer-7", payload=b'{"x":"' + b"y" * 10_000 + b'"}')
    move = moved(this, held=saved(), stays=True)
    mark = next(one for one in move.writes.saves if parse_key(one.out.key or b"").kind.value == "job")
    record = decode_live_job(mark.out.value or b"")
    assert record.state is State.RETRYING
    assert len(mark.out.value or b"") < 1_000, "the payload travels in the copy alone"
    assert decode_job(record.job).key == "customer-7"


def test_a_promoted_job_leaves_progress_of_the_new_hop() -> None:
    writes = moved(held=saved(promoted=True)).writes
    (away,) = writes.saves
    assert away.record.hop == 1
    assert decode_checkpoint(away.out.value or b"").home_topic.startswith("shop.retry.")
    assert [parse_key(key).kind.value for key in writes.later] == ["step", "step", "job", "progress"]


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    st.sampled_from([outcome for outcome, _, _ in ENDS]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_no_part_of_an_end_destroys_before_all_that_it_creates(
    outcome: Any, marked: bool, promoted: bool, written: bool
) -> None:
    writes = ended(outcome, held=saved(promoted=promoted, written=written), marked=marked)
    created = [*writes.creates, *(one.out for one in writes.saves)]
    assert all(record.value is not None for record in created)
    assert all(record.value is not None for record in writes.announces), "no tombstone leaves with its end"
    assert bool(writes.later) == written, "graves only for what is there"
    assert bool(writes.saves) == written, "and behind an end mark"


def test_what_is_no_job_is_kept_as_it_is() -> None:
    out = Completer("w-1").undecodable("shop.dlq", ORIGIN, b"\xff", b"\x00junk", "undecodable", "no schema", NOW)
    letter = decode_dead_letter(out.value or b"")
    assert (letter.raw, letter.raw_key, letter.job) == (b"\x00junk", b"\xff", None)
    assert out.key == b"\xff"
    assert [one.message for one in letter.failures or []] == ["no schema"]
