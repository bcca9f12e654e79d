"""Looking at the spans that a program wrote."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, Tracer


class Traced:
    """A provider, and what it has exported."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.provider = provider
        self._exporter = exporter

    @property
    def tracer(self) -> Tracer:
        """For spans of the test's own."""
        return self.provider.get_tracer("test")

    def spans(self, name: str) -> list[ReadableSpan]:
        """The ended spans of this name, oldest first."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one."""
        (span,) = self.spans(name)
        return span

    def names(self) -> list[str]:
        """Of all ended spans, in the order of their ends."""
        return [span.name for span in self._exporter.get_finished_spans()]


def place(span: ReadableSpan) -> tuple[int, int]:
    """(trace, span)."""
    return ids(context_of(span))


def ids(context: SpanContext) -> tuple[int, int]:
    """As `place`."""
    return context.trace_id, context.span_id


def context_of(span: ReadableSpan) -> SpanContext:
    """Its context: every span of ours has one."""
    context = span.get_span_context()
    assert context is not None
    return context


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    """What it is linked to."""
    return [ids(link.context) for link in span.links]


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    """What it lies below."""
    return None if span.parent is None else ids(span.parent)


def told(span: ReadableSpan) -> dict[str, Any]:
    """Its attributes."""
    return dict(span.attributes or {})
