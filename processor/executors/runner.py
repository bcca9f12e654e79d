"""Running a handler once: payload in, outcome out. Nothing a handler does gets past here except by its outcome.

Any `BaseException` ends its attempt: a panic out of a Rust extension, a `SystemExit`, a cancel that nobody here asked
for. Only what ends the actor itself goes through (`ProcessEnded`).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from processor import events
from processor.callables import refuse_awaitable
from processor.context import AsyncContext, Context
from processor.context.mailbox import Mailbox
from processor.context.port import AttemptPort, StepInDoubt
from processor.core.deadlines import is_killed
from processor.core.failures import error_info
from processor.core.outcome import Discarded, Ended, Failed, Lost, Outcome, Parked, Retried, Yielded, succeeded
from processor.core.verdict import judged
from processor.dead_reasons import DeadReason
from processor.engine.registry import RunnableJob
from processor.errors import HandlerMistake, JobInterrupted, NewerRecord, ProcessEnded
from processor.job import ErrorInfo
from processor.signals import runs_here
from processor.states import State
from processor.texts import message_of, place_of, shown
from processor.wire.durations import format_duration

log = events.logger("processor.job")


class Running(AttemptPort, Protocol):
    """An attempt as a handler's run needs it: the worker's own, or its stand-in in a child process."""

    @property
    def mailbox(self) -> Mailbox:
        """Between the handler and the worker."""
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
        runs_here(context._stop_if_asked, attempt.mailbox)
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
        return _returned(attempt, context, result)
    except BaseException as error:  # noqa: BLE001  (the one place where a handler's exception becomes an outcome)
        return outcome_of(attempt, error)


async def run_async(attempt: Running) -> Outcome:
    """Run an `async def` handler in this event loop, in a task of its own. Raises nothing but `ProcessEnded`."""
    if (refused := _refused(attempt)) is not None:
        return refused
    try:
        job_type = attempt.runnable
        context = AsyncContext(attempt)
        runs_here(context._stop_if_asked, attempt.mailbox)
        if job_type.takes_payload:
            try:
                payload = job_type.decode_payload(attempt.job.payload, attempt.job.version)
            except BaseException as error:  # noqa: BLE001  (as above)
                return unread(attempt, error)
            result = job_type.handler(context, payload)
        else:
            result = job_type.handler(context)
        # A decorator with functools.wraps looks like the `async def` it wraps, and may have run it to its end itself.
        if hasattr(type(result), "__await__"):
            result = await result
        return _returned(attempt, context, result)
    except BaseException as error:  # noqa: BLE001  (as above)
        return outcome_of(attempt, error)


def _returned(attempt: Running, context: Context | AsyncContext, result: object) -> Outcome:
    """What it means that a handler has come to its end."""
    if attempt.mailbox.told:
        # A bare `except:` has swallowed the stop, and perhaps what came after it: the next owner does that.
        return Yielded()
    context.finish()
    return succeeded(attempt.runnable.encode_result(result, attempt.limits.result_max_bytes))


def _refused(attempt: Running) -> Outcome | None:
    """How an attempt ends that may not start any more."""
    if attempt.mailbox.interrupted:
        return Lost() if attempt.mailbox.lost else Yielded()
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
    info = error_info(error)
    _tell(attempt, info)
    return Failed(info, DeadReason.BAD_PAYLOAD)


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
        return Failed(error_info(second), DeadReason.INTERNAL_ERROR)


def _outcome_of(attempt: Running, error: BaseException) -> Outcome:
    # The engine's own signals, but only where the engine wants them: a handler can raise them too.
    if attempt.mailbox.lost:
        return Lost()
    if attempt.interrupted and isinstance(error, JobInterrupted | asyncio.CancelledError):
        return Yielded()
    if isinstance(error, StepInDoubt):
        return Parked(State.IN_DOUBT, message_of(error))
    info = error_info(error)
    if isinstance(error, HandlerMistake):
        _tell(attempt, info)
        return Failed(info, DeadReason.HANDLER_MISTAKE)
    outcome = judged(attempt.runnable.options.retry, attempt.job, error, attempt.clock.now_ms(), info)
    _tell(attempt, info, outcome)
    return outcome


def _tell(attempt: Running, info: ErrorInfo, outcome: Outcome | None = None) -> None:
    """One line: what, where, and what comes of it."""
    then = "dead letter"
    if isinstance(outcome, Retried):
        then = f"retry in {format_duration(max(1, round(outcome.delay)))}"
    elif isinstance(outcome, Discarded | Parked):
        then = type(outcome).__name__.lower()
    log.warning(
        "job.failed",
        extra={
            "job_id": attempt.job.id,
            "job_type": attempt.job.type,
            "error": f"{info.kind}: {info.message}"[:500],
            "at": place_of(info.traceback),
            "then": then,
        },
    )
