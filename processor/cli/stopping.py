"""Ctrl-C while a command does long work in batches: the batch that is under way ends, then the work stops.

An interrupt that comes while librdkafka runs a callback of ours is lost on its way through C, and shows as a
`SystemError` instead (confluent-kafka 2.16). So the first one only leaves a wish. A second one stops at once.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from processor.admin.transactions import Order

_SLICE = 0.1
"""Seconds of a pause after which a wish is heard."""


class Stop:
    """Whether somebody wants the work to stop."""

    def __init__(self) -> None:
        self._wanted = False

    def wish(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler of SIGINT."""
        if self._wanted:
            raise KeyboardInterrupt
        self._wanted = True

    def check(self) -> None:
        """Stop here, if it is wanted.

        Raises:
            KeyboardInterrupt: it is.
        """
        if self._wanted:
            raise KeyboardInterrupt

    def pause(self, seconds: float) -> None:
        """Sleep; raises as `check`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _SLICE))
        self.check()

    def heard_by(self, order: Order) -> Order:
        """The same order, which stops after a batch and in its pauses."""

        def done(count: int) -> None:
            order.done(count)
            self.check()

        return replace(order, done=done, pause=self.pause)


@contextmanager
def between_batches() -> Iterator[Stop]:
    """SIGINT is a wish while this lasts."""
    stop = Stop()
    before = signal.signal(signal.SIGINT, stop.wish)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
