"""Running a handler once: payload in, outcome out. Nothing a handler does gets past here except by its outcome."""

from __future__ import annotations

import hashlib
import logging
import traceback
from typing import Protocol

from processor.context import AsyncContext, Context
from processor.context_port import AttemptPort, StepInDoubt
from processor.core.outcome import Failed, Lost, Outcome, Parked, Yielded, succeeded
from processor.errors import HandlerMistake, JobLost, JobYielded, NewerRecord, PayloadInvalid, ProcessorError
from processor.job import ErrorInfo
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
    if attempt.interrupted:
        return Lost() if attempt.lost else Yielded()
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
    if attempt.interrupted:
        return Lost() if attempt.lost else Yielded()
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


def outcome_of(attempt: Running, error: BaseException) -> Outcome:
    """What an exception means for the job.

    Raises:
        BaseException: the error itself, if it is not the job's (the simulation's kill).
    """
    if isinstance(error, JobLost) or attempt.lost:
        return Lost()
    if isinstance(error, JobYielded):
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
        return Failed(error_info(error), "handler_mistake" if isinstance(error, HandlerMistake) else "dead")
    raise error


def error_info(error: BaseException) -> ErrorInfo:
    """An exception as strings, with a fingerprint that is the same for the same error at the same place."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    frames = traceback.extract_tb(error.__traceback__)
    place = "|".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in frames[-3:])
    digest = hashlib.blake2b(f"{kind}|{place}".encode(), digest_size=6).hexdigest()
    text = "".join(traceback.format_exception(error))
    message = f"{error} ({error.hint})" if isinstance(error, ProcessorError) and error.hint else str(error)
    return ErrorInfo(kind, message[:2000], text[-16_000:], digest)
