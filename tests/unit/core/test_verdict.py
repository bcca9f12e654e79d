"""What becomes of a failed attempt's job, and of a parked one when it is looked at."""

from __future__ import annotations

import pytest

from processor.core.control import PAUSED_TYPE, RETRY, Change, ControlTable
from processor.core.outcome import Failed, Retried
from processor.core.verdict import Fate, fate, judged
from processor.errors import RetryableError, TerminalError
from processor.job import Job
from processor.policies import Backoff, Retry
from processor.states import State
from processor.wire.records import ControlRecord, LiveJobRecord

JOB = Job("j", "t", 1, "q", b"", 0)
NOW = 1_000_000


def parked(
    state: State = State.WAITING, reason: str = "unknown job type 't'", until: int | None = None
) -> LiveJobRecord:
    return LiveJobRecord("j", 1, 0, 1, 1, b"", "ns.jobs.q", 0, NOW - 1000, state, reason, until)


def orders(*records: ControlRecord) -> ControlTable:
    table = ControlTable()
    for record in records:
        table.apply(Change(record.target, record))
    return table


@pytest.mark.parametrize(
    ("record", "known", "anew", "expected"),
    [
        (parked(until=NOW + 1), True, False, Fate.STAYS),
        (parked(until=NOW), True, False, Fate.GOES_ON),
        (parked(until=NOW + 1), True, True, Fate.GOES_ON),
        (parked(until=NOW + 1), False, True, Fate.STAYS),
        (parked(until=NOW), False, False, Fate.GIVEN_UP),
        (parked(until=NOW), False, True, Fate.GIVEN_UP),
        (parked(), True, False, Fate.STAYS),
        (parked(reason=f"{PAUSED_TYPE}: by ann"), True, False, Fate.GOES_ON),
        (parked(State.IN_DOUBT, "once 'pay'"), True, True, Fate.STAYS),
        (parked(State.QUEUED, ""), True, False, Fate.GOES_ON),
        (parked(State.RUNNING, ""), False, True, Fate.GOES_ON),
    ],
)
def test_a_parked_job_stays_goes_on_or_is_given_up(
    record: LiveJobRecord, known: bool, anew: bool, expected: Fate
) -> None:
    assert fate(JOB, record, ControlTable(), NOW, known=known, anew=anew) is expected


def test_a_job_of_a_paused_type_waits_until_the_pause_is_taken_back() -> None:
    pause = ControlRecord("type:t", "pause", NOW, "ann@host")
    record = parked(reason=f"{PAUSED_TYPE}: by ann@host")
    table = orders(pause)
    assert fate(JOB, record, table, NOW, known=True) is Fate.STAYS
    table.apply(Change("type:t", None))
    assert fate(JOB, record, table, NOW, known=True) is Fate.GOES_ON


@pytest.mark.parametrize(
    ("seen", "life", "expected"),
    [(NOW - 1000, 1, Fate.GOES_ON), (NOW - 1001, 1, Fate.STAYS), (NOW, 0, Fate.STAYS)],
    ids=["seen waiting", "an earlier wait", "an earlier life"],
)
def test_an_order_to_go_on_is_about_the_wait_that_was_seen(seen: int, life: int, expected: Fate) -> None:
    retry = ControlRecord("job:j", RETRY, NOW, "ann@host", life=life, seen=seen)
    assert fate(JOB, parked(State.IN_DOUBT, "once 'pay'"), orders(retry), NOW, known=True) is expected


def test_a_failure_is_tried_again_as_often_as_its_policy_says() -> None:
    policy = Retry(times=2)
    first = judged(policy, JOB, ValueError("no"), NOW)
    assert isinstance(first, Retried)
    assert first.error.message == "no"
    last = judged(policy, JOB._replace(attempt=1), ValueError("no"), NOW)
    assert isinstance(last, Failed)
    assert last.reason == "exhausted"


def test_two_workers_draw_the_same_delay_for_one_attempt_and_another_for_the_next() -> None:
    policy = Retry(times=5, backoff=Backoff("1m", jitter=0.5))
    delays = [judged(policy, JOB._replace(attempt=attempt), ValueError(), NOW) for attempt in (1, 1, 2)]
    assert all(isinstance(delay, Retried) for delay in delays)
    one, same, next_ = (delay.delay for delay in delays if isinstance(delay, Retried))
    assert one == same != next_


def test_an_error_says_itself_that_it_is_final_or_when_to_come_again() -> None:
    final = judged(Retry(times=9), JOB, TerminalError("never"), NOW)
    assert isinstance(final, Failed)
    later = judged(Retry(times=9), JOB, RetryableError("busy", after=90), NOW)
    assert isinstance(later, Retried)
    assert later.delay == 90
