"""Running a handler once: payload in, outcome out. Nothing a handler does gets past here except by its outcome.

Any `BaseException` ends its attempt: a panic out of a Rust extension, a `SystemExit`, a cancel that nobody here asked
for. Only what ends the actor itself goes through (`ProcessEnded`).
"""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from typing import Protocol

from processor import events
from processor.callables import refuse_awaitable
from processor.context import AsyncContext, Context
from processor.context_port import AttemptPort, StepInDoubt
from processor.core.deadlines import is_killed
from processor.core.outcome import Discarded, Ended, Failed, Lost, Outcome, Parked, Retried, Yielded, succeeded
from processor.core.retry import GiveUp, TryAgain, judge
from processor.errors import HandlerMistake, JobInterrupted, NewerRecord, ProcessEnded, ProcessorError
from processor.job import ErrorInfo, Job
from processor.policies import Discard, Retry
from processor.states import State
from processor.texts import message_of, name_of_class, place_of, plain, shown, traceback_of
from processor.worker.registry import RunnableJob

log = events.logger("processor.job")


class Running(AttemptPort, Protocol):
    """An attempt as a handler's run needs it: the worker's own, or its stand-in in a child process."""

    @property
    def lost(self) -> bool:
        """The number moved away."""
        ...

    @property
    def told(self) -> bool:
        """The handler has been told to stop."""
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
    """Run a `def` handler in this thread. Raises nothing but `ProcessEnded`."""
    if (refused := _refused(attempt)) is not None:
        return refused
    try:
        job_type = attempt.runnable
        context = Context(attempt)
        if job_type.takes_payload:
            try:
                payload = job_type.decode_payload(attempt.job.payload, attempt.job.version)
            except BaseException as error:  # noqa: BLE001  (models and upgrades are the user's code)
                return unread(attempt, error)
            result = job_type.handler(context, payload)
        else:
            result = job_type.handler(context)
        if result is not None:
            refuse_awaitable(result, shown(job_type.handler, 200))
        if attempt.told:
            # A bare `except:` has swallowed the stop, and perhaps what came after it: the next owner does that.
            return Yielded()
        context.finish()
        return succeeded(job_type.encode_result(result, attempt.limits.result_max_bytes))
    except BaseException as error:  # noqa: BLE001  (the one place where a handler's exception becomes an outcome)
        return outcome_of(attempt, error)


async def run_async(attempt: Running) -> Outcome:
    """Run an `async def` handler in this event loop, in a task of its own. Raises nothing but `ProcessEnded`."""
    if (refused := _refused(attempt)) is not None:
        return refused
    try:
        job_type = attempt.runnable
        context = AsyncContext(attempt)
        if job_type.takes_payload:
            try:
                payload = job_type.decode_payload(attempt.job.payload, attempt.job.version)
            except BaseException as error:  # noqa: BLE001  (as above)
                return unread(attempt, error)
            result = await job_type.handler(context, payload)
        else:
            result = await job_type.handler(context)
        if attempt.told:
            # A bare `except:` has swallowed the stop, and perhaps what came after it: the next owner does that.
            return Yielded()
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


def unread(attempt: Running, error: BaseException) -> Outcome:
    """What it means that the payload could not be read; the handler has not begun.

    Raises:
        ProcessEnded: the worker's process is being ended.
    """
    if isinstance(error, ProcessEnded):
        raise error
    if isinstance(error, NewerRecord):
        until = attempt.clock.now_ms() + int(attempt.patience * 1000)
        return Parked(State.WAITING, message_of(error), until)
    return Failed(error_info(error), "bad_payload")


def outcome_of(attempt: Running, error: BaseException) -> Outcome:
    """What an exception means for the job: the wall around a handler. Whatever it is, it ends this attempt alone.

    Raises:
        ProcessEnded: the error itself: not the job's, the worker's process is being ended.
    """
    if isinstance(error, ProcessEnded):
        raise error
    try:
        return _outcome_of(attempt, error)
    except ProcessEnded:
        raise
    except BaseException as second:  # noqa: BLE001  (the policy's or the exception's own code: it cannot be asked)
        return Failed(error_info(second), "internal_error")


def _outcome_of(attempt: Running, error: BaseException) -> Outcome:
    # The engine's own signals, but only where the engine wants them: a handler can raise them too.
    if attempt.lost:
        return Lost()
    if attempt.interrupted and isinstance(error, JobInterrupted | asyncio.CancelledError):
        return Yielded()
    if isinstance(error, StepInDoubt):
        return Parked(State.IN_DOUBT, message_of(error))
    info = error_info(error)
    log.warning(
        "job.failed",
        extra={
            "job_id": attempt.job.id,
            "job_type": attempt.job.type,
            "error": f"{info.kind}: {info.message}"[:500],
            "at": place_of(info.traceback),
        },
    )
    if isinstance(error, HandlerMistake):
        return Failed(info, "handler_mistake")
    return judged(attempt.runnable.options.retry, attempt.job, error, attempt.clock.now_ms(), info)


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


def error_info(error: BaseException) -> ErrorInfo:
    """An exception as strings, with a fingerprint that is the same for the same error at the same place.

    Never raises: whatever the exception's own code does, what comes out is plain and bounded.
    """
    kind = name_of_class(type(error))
    frames = traceback.extract_tb(error.__traceback__)
    place = "|".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in frames[-3:])
    digest = hashlib.blake2b(f"{kind}|{place}".encode(errors="replace"), digest_size=6).hexdigest()
    message = message_of(error)
    if isinstance(error, ProcessorError) and error.hint:
        message = plain(f"{message} ({message_of(error.hint)})")
    return ErrorInfo(kind, message, traceback_of(error), digest)
