"""What becomes of a failed attempt's job, and of a parked one when it is looked at."""

from __future__ import annotations

import pytest

from processor.core.control import PAUSED_TYPE, RETRY, Change, ControlTable
from processor.core.outcome import Crashed, Ended, Failed, Lost, Outcome, Parked, Retried, Stop, Succeeded, Yielded
from processor.core.process_deaths import GIVEN_UP, HOPELESS
from processor.core.verdict import DEATH_DELAY, Fate, before_start, died, fate, judged, stopped
from processor.dead_reasons import DeadReason
from processor.errors import RetryableError, TerminalError
from processor.job import Job
from processor.policies import Backoff, JobOptions, Retry
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


PATIENT = JobOptions(queue_timeout=60)
PAUSED = orders(ControlRecord("type:t", "pause", NOW, "ann@host"))
CANCELLED = orders(ControlRecord("job:j", "cancel", NOW, "ann@host", life=1))


@pytest.mark.parametrize(
    ("job", "options", "control", "deaths", "begun", "expected"),
    [
        (JOB, JobOptions(), ControlTable(), 0, False, None),
        (JOB, PATIENT, ControlTable(), 0, False, State.EXPIRED),
        (JOB, PATIENT, ControlTable(), 0, True, None),
        (JOB, JobOptions(), PAUSED, 0, True, State.WAITING),
        (JOB, None, PAUSED, HOPELESS, False, None),
        (JOB, PATIENT, PAUSED, 0, False, State.EXPIRED),
        (JOB, JobOptions(), PAUSED, HOPELESS, False, DeadReason.CRASH_LOOP),
        (JOB, JobOptions(), ControlTable(), HOPELESS - 1, False, None),
        (JOB, JobOptions(), CANCELLED, HOPELESS, False, State.CANCELLED),
        (JOB, None, CANCELLED, 0, False, State.CANCELLED),
        (JOB._replace(kill_at=NOW), PATIENT, PAUSED, 0, False, State.KILLED),
        (JOB._replace(kill_at=NOW + 1), JobOptions(), ControlTable(), 0, False, None),
    ],
)
def test_the_last_look_before_a_start_ends_parks_or_lets_go(
    job: Job, options: JobOptions | None, control: ControlTable, deaths: int, begun: bool, expected: object
) -> None:
    outcome = before_start(job, options, control, NOW, deaths=deaths, begun=begun)
    assert (outcome.reason if isinstance(outcome, Failed) else getattr(outcome, "state", None)) == expected


@pytest.mark.parametrize("outcome", [Succeeded(b"1"), Lost(), Parked(State.IN_DOUBT, "once 'pay'")])
@pytest.mark.parametrize("kind", ["timeout", "stall", "killed", "cancelled"])
def test_what_counts_more_than_the_wish_to_stop_stays(outcome: Outcome, kind: str) -> None:
    assert stopped(outcome, Stop(kind, "", 0.0), None, JOB, NOW, "") == outcome


@pytest.mark.parametrize("outcome", [Yielded(), Crashed("SIGKILL"), Parked(State.WAITING, "a pause"), None])
def test_a_stopped_attempt_ends_as_it_was_told_to(outcome: Outcome | None) -> None:
    for kind, state in (("killed", State.KILLED), ("cancelled", State.CANCELLED)):
        assert stopped(outcome, Stop(kind, "why", 0.0), None, JOB, NOW, "") == Ended(state, "why", began=True)
    for kind in ("timeout", "stall"):
        last = stopped(outcome, Stop(kind, "why", 0.0), None, JOB, NOW, "where it was")
        assert isinstance(last, Failed)
        assert (last.error.kind, last.error.traceback) == (kind, "where it was")
        again = stopped(outcome, Stop(kind, "why", 0.0), Retry(times=2), JOB, NOW, "")
        assert isinstance(again, Retried)


def test_a_job_whose_process_died_is_tried_again_until_it_is_hopeless() -> None:
    for deaths in range(1, GIVEN_UP):
        again = died("SIGKILL", deaths)
        assert isinstance(again, Retried)
        assert (again.delay, again.error.message) == (DEATH_DELAY, "SIGKILL")
    last = died("SIGKILL", GIVEN_UP)
    assert isinstance(last, Failed)
    assert last.reason == DeadReason.CRASH_LOOP
    assert "SIGKILL" in last.error.message
