"""The spans: their names, attributes, parents and links. Only imported where OpenTelemetry is.

*A trace per job.* Its id is derived from the job's, so all attempts lie in one trace: after a crash, a retry, a
redrive, on whatever worker. Its root is a span that nobody writes; the attempts are its children, side by side.

*Links, not parents.* Whoever enqueued a job is linked from each attempt: a request ends long before the last retry of
what it started, and one request may start thousands of jobs.

*Sampling.* A job that was enqueued from a trace is sampled as that was. Of any other one the provider's sampler decides
by the job's trace id, as for a root: for all attempts alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceState

from processor.job import ErrorInfo, Job
from processor.texts import message_of, name_of_class, traceback_of
from processor.wire.topics import jobs_topic
from processor.wire.trace_context import TraceContext, as_text, own_trace, parsed

_ATTEMPT = context.create_key("processor-attempt")
_SAMPLED = int(trace.TraceFlags.SAMPLED)
_DESCRIBED = 500
"""Characters of an error in a span's status."""
Value = str | bool | int | float


class Spans:
    """Makes spans with one tracer provider."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("processor")

    def in_attempt(self) -> bool:
        """Whether what runs here is the code of a traced attempt."""
        return context.get_value(_ATTEMPT) is not None

    def current(self) -> str | None:
        """The span that is current here, as it travels in a job; None: there is none."""
        return travelling(trace.get_current_span().get_span_context())

    @contextmanager
    def publishing(self, job_type: str, queue: str, namespace: str) -> Iterator[str | None]:
        """While one or many jobs of a type are enqueued: gives what they are to take along. An exception is the span's
        error.
        """
        topic = jobs_topic(namespace, queue)
        told = messaging("publish", "send", topic) | {"job.type": job_type, "job.queue": queue}
        span = self._tracer.start_span(f"publish {job_type}", kind=SpanKind.PRODUCER, attributes=told)
        with _current(span):
            yield travelling(span.get_span_context())

    @staticmethod
    def tell_id(job_id: str) -> None:
        """While one job is enqueued: what its id is, known only now if it is made of an idempotency key."""
        trace.get_current_span().set_attributes({"job.id": job_id, "messaging.message.id": job_id})

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """While the function of a step runs."""
        with _current(self._tracer.start_span(_without_items(name), attributes={"job.step": name})):
            yield

    def attempt(self, job: Job, told: Mapping[str, Value]) -> Span:
        """The span of an attempt that begins now; `told` are further attributes."""
        own, enqueuer = own_trace(job.id), parsed(job.trace)
        attributes: dict[str, Value] = {
            "job.id": job.id,
            "job.type": job.type,
            "job.queue": job.queue,
            "job.attempt": job.attempt + 1,
            "job.life": job.life,
            "messaging.message.id": job.id,
            **told,
        }
        if job.parent is not None:
            attributes["job.parent"] = job.parent
        name = f"process {job.type}"
        sampled = self._sampled(own.trace_id, name) if enqueuer is None else enqueuer.flags & _SAMPLED
        root = SpanContext(own.trace_id, own.span_id, is_remote=True, trace_flags=trace.TraceFlags(sampled))
        return self._tracer.start_span(
            name,
            context=trace.set_span_in_context(NonRecordingSpan(root), context.Context()),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=() if enqueuer is None else (Link(_context(enqueuer)),),
        )

    def _sampled(self, trace_id: int, name: str) -> int:
        """Whether the provider's sampler would take this as a root. Samplers are the SDK's: others may have none."""
        ask = getattr(getattr(self.provider, "sampler", None), "should_sample", None)
        if ask is None:
            return _SAMPLED
        return _SAMPLED if ask(context.Context(), trace_id, name, SpanKind.CONSUMER).decision.is_sampled() else 0


def messaging(name: str, kind: str, topic: str) -> dict[str, Value]:
    """The attributes that the semantic conventions ask of messaging."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": topic,
    }


def entered(span: Span) -> object:
    """Let the span of an attempt be current here; for `left`, in the same thread and context."""
    return context.attach(context.set_value(_ATTEMPT, True, trace.set_span_in_context(span)))


def left(token: Any) -> None:
    """Undo `entered`."""
    context.detach(token)


def failed(span: Span, error: ErrorInfo) -> None:
    """A span whose work ended with this error."""
    told = {"exception.type": error.kind, "exception.message": error.message, "exception.stacktrace": error.traceback}
    span.add_event("exception", told)
    span.set_status(Status(StatusCode.ERROR, f"{error.kind}: {error.message}"[:_DESCRIBED]))


def travelling(span: SpanContext) -> str | None:
    """A span as it travels in a job."""
    if not span.is_valid:
        return None
    return as_text(TraceContext(span.trace_id, span.span_id, int(span.trace_flags), span.trace_state.to_header()))


class Collecting(NonRecordingSpan):
    """The span of an attempt in a child process: its worker writes it, with the attributes that are set here."""

    def __init__(self, text: str) -> None:
        found = parsed(text)
        super().__init__(trace.INVALID_SPAN_CONTEXT if found is None else _context(found))
        self.collected: dict[str, Any] = {}
        """What was set, as plain values."""

    def is_recording(self) -> bool:
        """So that libraries set their attributes."""
        return bool(self.get_span_context().trace_flags & _SAMPLED)

    def set_attribute(self, key: str, value: Any) -> None:
        """Keep it for the worker; what is no attribute is left out."""
        plain = _plain(value)
        if plain is not None:
            self.collected[str(key)] = plain

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """As `set_attribute`."""
        for key, value in attributes.items():
            self.set_attribute(key, value)


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return bool(value)
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain for each in value if (plain := _plain(each)) is not None]
    return None


def _context(found: TraceContext) -> SpanContext:
    state = TraceState.from_header([found.state]) if found.state else None
    return SpanContext(found.trace_id, found.span_id, True, trace.TraceFlags(found.flags), state)


@contextmanager
def _current(span: Span) -> Iterator[None]:
    """While it is current; then it ends. Not the API's own: that asks the exception for its text, which may do
    anything.
    """
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    except Exception as error:
        if span.is_recording():
            failed(span, ErrorInfo(name_of_class(type(error)), message_of(error), traceback_of(error)))
        raise
    finally:
        context.detach(token)
        span.end()


def _without_items(name: str) -> str:
    """The name of a step without the cursors of its items: names of spans are grouped by, so there are to be few."""
    return name.rpartition("/")[2]
