"""When the next flush may go, after one that failed. Pure: time is told to it.

- A lost producer: not before the consumer had time to hear that a successor took the slot, which ends this process.
- A refused membership: at once, without the group that refused it (see `processor.engine.fence`).
- Anything else: a little later, and later each time.
"""

from __future__ import annotations

from processor.errors import BrokerError, ProducerFatal, StaleMembership

_FIRST, _MOST = 0.02, 2.0


class Pace:
    """When the next flush may be tried."""

    def __init__(self, membership_proof: float) -> None:
        self._proof = membership_proof
        self._failures = 0
        self._not_before = 0.0

    def allows(self, now: float) -> bool:
        """Whether a batch may be flushed at `now` (monotonic seconds)."""
        return now >= self._not_before

    def ended(self, error: BrokerError | None, now: float) -> None:
        """A flush is back."""
        if error is None:
            self._failures = 0
        elif isinstance(error, ProducerFatal):
            # Perhaps a successor took the slot: then the consumer hears of it first, and this process ends.
            self._failures += 1
            self._not_before = now + self._proof
        elif not isinstance(error, StaleMembership):
            self._failures += 1
            self._not_before = now + min(_FIRST * 2 ** min(self._failures, 7), _MOST)
