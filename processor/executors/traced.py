"""Attempts as spans (docs/tracing.md). Whatever is wrong with tracing harms no job: it runs, and the log says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from processor import events
from processor.core.outcome import Crashed, Discarded, Ended, Failed, Outcome, Parked, Retried, Succeeded, Yielded
from processor.engine.attempt import Attempt
from processor.executors.local_port import LocalPort
from processor.executors.runner import run_async, run_sync
from processor.job import ErrorInfo
from processor.tracing import is_loaded
from processor.wire.topics import jobs_topic

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = events.logger(__name__)


def traced_sync(attempt: Attempt) -> Outcome:
    """As `run_sync`, as a span."""
    span = AttemptSpan(attempt)
    span.enter()
    outcome = run_sync(LocalPort(attempt))
    span.end(outcome)
    return outcome


async def traced_async(attempt: Attempt) -> Outcome:
    """As `run_async`, as a span."""
    span = AttemptSpan(attempt)
    span.enter()
    outcome = await run_async(LocalPort(attempt))
    span.end(outcome)
    return outcome


class AttemptSpan:
    """The span of one attempt; none, if it could not be made or the worker does not trace."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._token: object = None
        self._span: Span | None = None
        if attempt.shared.tracing is not None:
            self._guarded(self._begin)

    @property
    def trace(self) -> str:
        """As it travels to a child process; empty: there is none."""
        if self._span is None:
            return ""
        from processor.tracing.spans import travelling

        return travelling(self._span.get_span_context()) or ""

    def enter(self) -> None:
        """Let it be current, here and until it ends."""
        if self._span is not None:
            self._guarded(self._enter)

    def end(self, outcome: Outcome, told: Mapping[str, Any] | None = None) -> None:
        """The attempt has ended so. `told`: attributes that its handler has set. One that ends with its process has no
        end, and is not written: the next one tells of it by its resumed steps.
        """
        if self._span is not None:
            self._guarded(lambda: self._end(outcome, told or {}))

    def _begin(self) -> None:
        from processor.tracing.spans import messaging

        attempt, tracing = self._attempt, self._attempt.shared.tracing
        assert tracing is not None
        namespace, worker, spans = tracing
        told = messaging("process", "process", jobs_topic(namespace, attempt.job.queue)) | {"job.worker": worker}
        self._span = spans.attempt(attempt.job, told)

    def _enter(self) -> None:
        from processor.tracing.spans import entered

        assert self._span is not None
        self._token = entered(self._span)

    def _end(self, outcome: Outcome, told: Mapping[str, Any]) -> None:
        from processor.tracing.spans import failed, left

        span, attempt = self._span, self._attempt
        assert span is not None
        if self._token is not None:
            left(self._token)
        if span.is_recording():
            span.set_attributes(told)
            span.set_attribute("job.outcome", _name_of(outcome, attempt))
            error = _error_of(outcome, attempt)
            if error is not None:
                failed(span, error)
        span.end()

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  (samplers, processors and exporters are the user's)
            log.warning("trace.failed", extra={"job_id": self._attempt.job.id, "error": repr(error)[:500]})


def _name_of(outcome: Outcome, attempt: Attempt) -> str:
    """How the attempt ended, in a word."""
    if isinstance(outcome, Succeeded):
        return "succeeded"
    if attempt.mailbox.stop is not None:
        return attempt.mailbox.stop.kind
    if isinstance(outcome, Ended | Parked):
        return outcome.state.value
    if isinstance(outcome, Failed):
        return "dead"
    return "retrying" if isinstance(outcome, Retried) else type(outcome).__name__.lower()


def _error_of(outcome: Outcome, attempt: Attempt) -> ErrorInfo | None:
    if isinstance(outcome, Failed | Retried | Discarded):
        return outcome.error
    if isinstance(outcome, Parked) and outcome.error is not None:
        return outcome.error
    if isinstance(outcome, Crashed):
        return ErrorInfo("crashed", outcome.detail)
    if isinstance(outcome, Yielded) and attempt.mailbox.stop is not None:
        return ErrorInfo(attempt.mailbox.stop.kind, attempt.mailbox.stop.reason, attempt.mailbox.stack)
    return None


class CarriedOn:
    """The span of an attempt, in the child process that runs it."""

    def __init__(self, text: str) -> None:
        """`text` as `AttemptSpan.trace`. Without OpenTelemetry in this process nothing is done."""
        self.told: dict[str, Any] = {}
        """Attributes that its handler has set."""
        self._token: object = None
        if text and is_loaded():
            from processor.tracing.spans import Collecting, entered

            span = Collecting(text)
            self.told, self._token = span.collected, entered(span)

    def leave(self) -> None:
        """The attempt has ended."""
        if self._token is not None:
            from processor.tracing.spans import left

            left(self._token)
