"""A tracer provider for one test; afterwards this process has none again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.util._once import Once

from tests.unit.tracing.spans import Traced


def forget_provider() -> None:
    """A provider may be set once in the life of a program; a test is one."""
    trace._TRACER_PROVIDER = None
    trace._TRACER_PROVIDER_SET_ONCE = Once()


def install(sampler: Sampler | None = None) -> Traced:
    """Configure tracing, as a program does."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return Traced(provider, exporter)


@pytest.fixture
def program() -> Iterator[None]:
    """A program that has not configured tracing, and may do so."""
    forget_provider()
    yield
    forget_provider()


@pytest.fixture
def traced(program: None) -> Traced:
    """A program that has configured tracing."""
    return install()
