"""Traces of jobs, by OpenTelemetry, for programs that have configured it; for all others they do not exist.

Nothing here imports OpenTelemetry: who has configured a provider has imported it already. `found` asks for that, and
without one everybody who might trace has None in hand.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from processor.tracing.spans import Spans

_known: Spans | None = None


class WorkerTracing(NamedTuple):
    """How a worker traces its attempts."""

    namespace: str
    worker: str
    spans: Spans


def is_loaded() -> bool:
    """Whether this program uses OpenTelemetry at all; it may have no provider."""
    return "opentelemetry.trace" in sys.modules


def found() -> Spans | None:
    """What makes spans; None: this program has no tracer provider."""
    api: Any = sys.modules.get("opentelemetry.trace")
    # While another thread imports it, it is there and knows nothing yet.
    ask = None if api is None else getattr(api, "get_tracer_provider", None)
    if ask is None:
        return None
    global _known
    provider = ask()
    known = _known
    if known is None or known.provider is not provider:
        if isinstance(provider, api.ProxyTracerProvider | api.NoOpTracerProvider):
            return None
        from processor.tracing.spans import Spans

        known = _known = Spans(provider)
    return known


def inside() -> Spans | None:
    """What makes spans, for the code of an attempt that is traced; None: it is not."""
    spans = found()
    return spans if spans is not None and spans.in_attempt() else None
