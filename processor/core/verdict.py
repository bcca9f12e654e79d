"""What becomes of a job: before it starts, after its attempt failed, was stopped or died, while it is parked. Pure."""

from __future__ import annotations

import hashlib
from enum import Enum, auto

from processor.core.control import PAUSED_TYPE, ControlTable, why
from processor.core.deadlines import expired, is_killed
from processor.core.failures import error_info
from processor.core.outcome import Discarded, Ended, Failed, Lost, Outcome, Parked, Retried, Stop, Succeeded
from processor.core.process_deaths import GIVEN_UP, HOPELESS
from processor.core.retry import GiveUp, TryAgain, judge
from processor.dead_reasons import DeadReason
from processor.errors import AttemptTimedOut
from processor.job import ErrorInfo, Job
from processor.policies import Discard, JobOptions, Retry
from processor.states import State
from processor.wire.records import LiveJobRecord

DEATH_DELAY = 1.0
"""Seconds before a job is tried again whose process died."""


def unwanted(job: Job, control: ControlTable, now_ms: int) -> Ended | None:
    """How a job that is not wanted any more ends, wherever it waits; None: it is wanted."""
    cancel = control.cancelled(job.id, job.life, job.enqueued_at)
    if cancel is not None:
        return Ended(State.CANCELLED, why(cancel))
    return Ended(State.KILLED, "its kill date came before it started") if is_killed(job, now_ms) else None


def before_start(
    job: Job, options: JobOptions | None, control: ControlTable, now_ms: int, *, deaths: int, begun: bool
) -> Outcome | None:
    """How a job that may not start ends, or where it waits; None: it may start.

    Args:
        job: whose turn it is.
        options: of its type; None: this worker does not know it.
        control: what operators want.
        now_ms: milliseconds since the epoch.
        deaths: of processes that ran it, in a row and without progress.
        begun: it has come somewhere in an earlier attempt.
    """
    ended = unwanted(job, control, now_ms)
    if ended is not None or options is None:
        return ended
    if deaths >= HOPELESS:
        info = ErrorInfo("process_died", f"{deaths} processes died while it ran, without progress")
        return Failed(info, DeadReason.CRASH_LOOP)
    late = None if begun else expired(options, job, now_ms)
    if late is not None:
        return Ended(State.EXPIRED, late)
    pause = control.type_pause(job.type)
    return None if pause is None else Parked(State.WAITING, f"{PAUSED_TYPE}: {why(pause)}")


def stopped(outcome: Outcome | None, stop: Stop, policy: Retry | None, job: Job, now: int, stack: str) -> Outcome:
    """What an attempt that was told to stop means for its job. One that succeeded all the same has succeeded.

    Args:
        outcome: how it ended; None: it is ended by force.
        stop: why it was told to.
        policy: of its job type.
        job: whose attempt it was.
        now: milliseconds since the epoch.
        stack: where its handler was, if it was ended by force.
    """
    if isinstance(outcome, Succeeded | Lost):
        return outcome
    if isinstance(outcome, Parked) and outcome.state is State.IN_DOUBT:
        return outcome
    if stop.kind == "killed":
        return Ended(State.KILLED, stop.reason, began=True)
    if stop.kind == "cancelled":
        return Ended(State.CANCELLED, stop.reason, began=True)
    error = AttemptTimedOut(stop.reason)
    return judged(policy, job, error, now, error_info(error)._replace(kind=stop.kind, traceback=stack))


def died(detail: str, deaths: int) -> Failed | Retried:
    """What the death of its process means for a job. It burns no attempt; too often without progress it is given up.

    Args:
        detail: how the process ended.
        deaths: in a row and without progress, this one counted.
    """
    error = ErrorInfo("child_died", detail)
    if deaths < GIVEN_UP:
        return Retried(error, DEATH_DELAY)
    message = f"its process died {deaths} times without progress, at last: {detail}"
    return Failed(error._replace(message=message), DeadReason.CRASH_LOOP)


def judged(policy: Retry | None, job: Job, error: BaseException, now: int, info: ErrorInfo | None = None) -> Outcome:
    """What a failed attempt means for its job, by the policy of its type."""
    info = info or error_info(error)
    age = max(now - job.enqueued_at, 0) / 1000
    verdict = judge(policy, error, attempt=job.attempt + 1, age=age, draw=lambda: _draw(job))
    if isinstance(verdict, TryAgain):
        return Retried(info, verdict.delay)
    if isinstance(verdict, GiveUp):
        return Failed(_noted(info, verdict.note), verdict.reason)
    if isinstance(verdict, Discard):
        return Discarded(_noted(info, verdict.reason))
    return Parked(State.WAITING, verdict.reason or f"{info.kind}: {info.message}"[:500], None, info)


def _noted(info: ErrorInfo, note: str) -> ErrorInfo:
    return info._replace(message=f"{info.message} [{note}]" if info.message else note) if note else info


def _draw(job: Job) -> float:
    """A random number from 0 up to 1 that is the same whoever decides, so that two copies of a retry are equal."""
    digest = hashlib.blake2b(f"{job.id}\n{job.life}\n{job.attempt}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


class Fate(Enum):
    """What becomes of a parked job now."""

    STAYS = auto()
    GOES_ON = auto()
    GIVEN_UP = auto()


def fate(
    job: Job, record: LiveJobRecord, control: ControlTable, now_ms: int, *, known: bool, anew: bool = False
) -> Fate:
    """What becomes of a parked job.

    Args:
        job: of the record.
        record: as it waits in the checkpoint topic.
        control: what operators want.
        now_ms: milliseconds since the epoch.
        known: this worker has its job type.
        anew: its number has just been taken over.
    """
    if control.retried(job.id, job.life, record.since) is not None:
        return Fate.GOES_ON
    if record.state is not State.WAITING:
        return Fate.STAYS if record.state is State.IN_DOUBT else Fate.GOES_ON
    if record.until is None:
        paused = record.reason.startswith(PAUSED_TYPE)
        return Fate.GOES_ON if paused and control.type_pause(job.type) is None else Fate.STAYS
    if known and (anew or now_ms >= record.until):
        return Fate.GOES_ON
    return Fate.GIVEN_UP if now_ms >= record.until else Fate.STAYS
