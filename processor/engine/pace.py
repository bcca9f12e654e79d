"""When the next flush may go, after one that failed. Pure: time and callbacks are told to it.

- Refused for its membership: not before the group's next callback has run (or has run meanwhile), at the latest after a
  while, since a group that nothing happens to says nothing.
- A lost producer: not before the consumer had time to hear that a successor took the slot, which ends this process.
- Anything else: a little later, and later each time.
"""

from __future__ import annotations

from processor.errors import BrokerError, ProducerFatal, StaleMembership

STALE_WAIT = 5.0
"""Seconds without a word of the group after which a refused membership is tried again."""
_FIRST, _MOST = 0.02, 2.0


class Pace:
    """When the next flush may be tried. `callbacks`: how often the group has spoken."""

    def __init__(self, membership_proof: float) -> None:
        self._proof = membership_proof
        self._failures = 0
        self._frozen_at = 0
        self._not_before = 0.0
        self._after_callback = 0

    def allows(self, now: float, callbacks: int) -> bool:
        """Whether a batch may be flushed at `now` (monotonic seconds)."""
        if now < self._not_before:
            return False
        return callbacks >= self._after_callback or now >= self._not_before + STALE_WAIT

    def froze(self, callbacks: int) -> None:
        """A batch was frozen and goes out."""
        self._frozen_at = callbacks

    def ended(self, error: BrokerError | None, now: float) -> None:
        """It is back."""
        if error is None:
            self._failures = 0
            return
        self._failures += 1
        if isinstance(error, StaleMembership):
            # Nothing is flushed until the next callback has run, unless it has run already.
            self._after_callback = self._frozen_at + 1
            self._not_before = now
        elif isinstance(error, ProducerFatal):
            # Perhaps a successor took the slot: then the consumer hears of it first, and this process ends.
            self._not_before = now + self._proof
        else:
            self._not_before = now + min(_FIRST * 2 ** min(self._failures, 7), _MOST)
