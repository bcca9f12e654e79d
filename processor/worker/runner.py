"""Running a handler once: payload in, outcome out. Nothing a handler does gets past here except by its outcome."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import traceback
from typing import Protocol

from processor.context import AsyncContext, Context
from processor.context_port import AttemptPort, StepInDoubt
from processor.core.deadlines import is_killed
from processor.core.outcome import Discarded, Ended, Failed, Lost, Outcome, Parked, Retried, Yielded, succeeded
from processor.core.retry import GiveUp, TryAgain, judge
from processor.errors import HandlerMistake, JobLost, JobYielded, NewerRecord, PayloadInvalid, ProcessorError
from processor.job import ErrorInfo, Job
from processor.policies import Discard, Retry
from processor.states import State
from processor.worker.registry import RunnableJob

log = logging.getLogger("processor.job")


class Running(AttemptPort, Protocol):
    """An attempt as a handler's run needs it: the worker's own, or its stand-in in a child process."""

    @property
    def lost(self) -> bool:
        """The number moved away."""
        ...

    @property
    def runnable(self) -> RunnableJob:
        """What to run."""
        ...

    @property
    def patience(self) -> float:
        """Seconds a job of an unknown type or newer version waits for a deploy."""
        ...


def run_sync(attempt: Running) -> Outcome:
    """Run a `def` handler in this thread."""
    if (refused := _refused(attempt)) is not None:
        return refused
    job_type = attempt.runnable
    context = Context(attempt)
    try:
        if job_type.takes_payload:
            payload = job_type.decode_payload(attempt.job.payload, attempt.job.version)
            result = job_type.handler(context, payload)
        else:
            result = job_type.handler(context)
        context.finish()
        return succeeded(job_type.encode_result(result, attempt.limits.result_max_bytes))
    except BaseException as error:  # noqa: BLE001  (the one place where a handler's exception becomes an outcome)
        return outcome_of(attempt, error)


async def run_async(attempt: Running) -> Outcome:
    """Run an `async def` handler in this event loop."""
    if (refused := _refused(attempt)) is not None:
        return refused
    job_type = attempt.runnable
    context = AsyncContext(attempt)
    try:
        if job_type.takes_payload:
            payload = job_type.decode_payload(attempt.job.payload, attempt.job.version)
            result = await job_type.handler(context, payload)
        else:
            result = await job_type.handler(context)
        context.finish()
        return succeeded(job_type.encode_result(result, attempt.limits.result_max_bytes))
    except BaseException as error:  # noqa: BLE001  (as above)
        return outcome_of(attempt, error)


def _refused(attempt: Running) -> Outcome | None:
    """How an attempt ends that may not start any more."""
    if attempt.interrupted:
        return Lost() if attempt.lost else Yielded()
    if attempt.job.kill_at is not None and is_killed(attempt.job, attempt.clock.now_ms()):
        return Ended(State.KILLED, "its kill date came before it started")
    return None


def outcome_of(attempt: Running, error: BaseException) -> Outcome:
    """What an exception means for the job.

    Raises:
        BaseException: the error itself, if it is not the job's (the simulation's kill).
    """
    if isinstance(error, JobLost) or attempt.lost:
        return Lost()
    if isinstance(error, JobYielded) or (isinstance(error, asyncio.CancelledError) and attempt.interrupted):
        return Yielded()
    if isinstance(error, StepInDoubt):
        return Parked(State.IN_DOUBT, str(error))
    if isinstance(error, NewerRecord):
        until = attempt.clock.now_ms() + int(attempt.patience * 1000)
        return Parked(State.WAITING, str(error), until)
    if isinstance(error, PayloadInvalid):
        return Failed(error_info(error), "bad_payload")
    if isinstance(error, Exception | SystemExit | KeyboardInterrupt | GeneratorExit):
        log.warning(
            "job.failed",
            extra={"job_id": attempt.job.id, "job_type": attempt.job.type, "error": repr(error)[:500]},
        )
        if isinstance(error, HandlerMistake):
            return Failed(error_info(error), "handler_mistake")
        return judged(attempt.runnable.options.retry, attempt.job, error, attempt.clock.now_ms())
    raise error


def judged(policy: Retry | None, job: Job, error: BaseException, now: int) -> Outcome:
    """What a failed attempt means for its job, by the policy of its type."""
    info = error_info(error)
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


def error_info(error: BaseException) -> ErrorInfo:
    """An exception as strings, with a fingerprint that is the same for the same error at the same place."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    frames = traceback.extract_tb(error.__traceback__)
    place = "|".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in frames[-3:])
    digest = hashlib.blake2b(f"{kind}|{place}".encode(), digest_size=6).hexdigest()
    text = "".join(traceback.format_exception(error))
    message = f"{error} ({error.hint})" if isinstance(error, ProcessorError) and error.hint else str(error)
    return ErrorInfo(kind, message[:2000], text[-16_000:], digest)
