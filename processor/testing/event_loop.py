"""An event loop for the stepping runtime: while all its tasks wait, it gives the baton away.

`asyncio.sleep` and timeouts take virtual time, so an async handler that sleeps for an hour is tested in no time. What
waits for the world outside does not: sockets, subprocesses and `asyncio.to_thread` are not seen by the manual clock.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

from processor.runtime.stepping import ActorKilled, SteppingRuntime


class _BatonSelector(selectors.DefaultSelector):
    """Waits by giving the baton away. Files are looked at, but nobody waits for them."""

    runtime: SteppingRuntime
    woken = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and not self.woken and (timeout is None or timeout > 0):
            self.runtime.wait_for(self._is_woken, timeout)
            ready = super().select(0)
        self.woken = False
        return ready

    def _is_woken(self) -> bool:
        return self.woken


class SteppingEventLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is that of a stepping runtime."""

    def __init__(self, runtime: SteppingRuntime) -> None:
        self._runtime = runtime
        self._baton = _BatonSelector()
        self._baton.runtime = runtime
        super().__init__(self._baton)
        self.set_exception_handler(_unless_killed)

    def time(self) -> float:
        return self._runtime.clock.monotonic()

    def _write_to_self(self) -> None:
        """Called by `call_soon_threadsafe`: wake the loop without a detour through the operating system."""
        self._baton.woken = True


def _unless_killed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tasks of a killed process end in the middle; that is no news."""
    if not isinstance(context.get("exception"), ActorKilled) and "destroyed" not in str(context.get("message")):
        loop.default_exception_handler(context)
