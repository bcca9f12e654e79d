"""What becomes of a job: one whose attempt has failed, by its policy; one that waits parked. Pure."""

from __future__ import annotations

import hashlib
from enum import Enum, auto

from processor.core.control import PAUSED_TYPE, ControlTable
from processor.core.failures import error_info
from processor.core.outcome import Discarded, Failed, Outcome, Parked, Retried
from processor.core.retry import GiveUp, TryAgain, judge
from processor.job import ErrorInfo, Job
from processor.policies import Discard, Retry
from processor.states import State
from processor.wire.records import LiveJobRecord


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
