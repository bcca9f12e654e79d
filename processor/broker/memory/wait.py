"""How the memory broker waits: never by itself, so that a stepping runtime can put its own waiting in place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from processor.clock import Clock, ManualClock

_SLICE_SECONDS = 0.02
"""Sessions and transactions time out without anybody's call: a waiting thread looks at the clock this often."""


class WaitFor(Protocol):
    """Waits until something is true; says whether it became true in time.

    Called without the broker's lock. The predicate is cheap, takes the lock itself and may be asked any number of
    times, from any thread: apart from timeouts that fall due it changes nothing. `timeout_seconds` may be infinite.
    """

    def __call__(self, predicate: Callable[[], bool], timeout_seconds: float) -> bool: ...


class ThreadWait:
    """Waits on a condition that the broker notifies at each change."""

    def __init__(self, clock: Clock, changed: threading.Condition) -> None:
        self._clock = clock
        self._changed = changed

    def __call__(self, predicate: Callable[[], bool], timeout_seconds: float) -> bool:
        deadline = self._clock.monotonic() + timeout_seconds
        with self._changed:
            while not predicate():
                remaining = deadline - self._clock.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(min(remaining, _SLICE_SECONDS))
        return True


class AdvancingWait:
    """Waits by moving a manual clock forward: for tests with a single thread, where nobody else would move it."""

    def __init__(self, clock: ManualClock, step_seconds: float = 0.05) -> None:
        self._clock = clock
        self._step_seconds = step_seconds

    def __call__(self, predicate: Callable[[], bool], timeout_seconds: float) -> bool:
        deadline = self._clock.monotonic() + timeout_seconds
        while not predicate():
            remaining = deadline - self._clock.monotonic()
            if remaining <= 0:
                return False
            self._clock.advance(min(remaining, self._step_seconds))
        return True
