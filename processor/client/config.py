"""What a producer's client is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

Pause = Callable[[threading.Event, float], object]
"""Waits for an event for at most so many seconds; a test with a clock of its own moves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Times in seconds, sizes in bytes."""

    namespace: str
    enqueue_timeout: float = 30.0
    """How long an enqueue waits for its acknowledgement."""
    close_timeout: float = 30.0
    """How long `close` waits for what is not acknowledged yet."""
    payload_max_bytes: int = 1_000_000
    dedupe_window: float = 86_400.0
    """How long an idempotency key is remembered."""
    critical_timeout: float = 5.0
    """How long the enqueue of a critical job waits for its acknowledgement."""
    spool_dir: str = ""
    """Folder of the files that keep critical jobs while the log cannot be reached; empty: none are kept."""
    tracing: bool = True
    """Enqueues are spans, in a program that has a tracer provider."""
