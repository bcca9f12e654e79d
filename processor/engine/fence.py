"""The membership that the flushes for one group present: a snapshot, and when one that was refused may be tried again.

Refused, nothing is flushed for that group before its next callback has run (or has run meanwhile), at the latest after
a while, since a group that nothing happens to says nothing. Other groups go on.
"""

from __future__ import annotations

from processor.broker.base import Membership

STALE_WAIT = 5.0
"""Seconds without a word of the group after which a refused membership is tried again."""


class Fence:
    """The last snapshot of one group's membership. Pure: callbacks and time are told to it (monotonic seconds)."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.membership: Membership | None = None
        """The group metadata of the last assign or revoke callback; flushes present this and nothing fresher."""
        self.callbacks = 0
        """How often the group has spoken."""
        self._frozen_at = 0
        self._after_callback = 0
        self._tried_again_at = 0.0

    def heard(self, membership: Membership | None) -> None:
        """A callback runs; None: the membership is lost."""
        self.membership = membership
        self.callbacks += 1

    def snapshot(self, now: float) -> Membership | None:
        """What a flush at `now` presents; None: there may be none yet."""
        if self.callbacks < self._after_callback and now < self._tried_again_at:
            return None
        return self.membership

    def froze(self) -> None:
        """A batch with this snapshot goes out."""
        self._frozen_at = self.callbacks

    def refused(self, now: float) -> None:
        """The group has refused that batch."""
        self._after_callback = self._frozen_at + 1
        self._tried_again_at = now + STALE_WAIT
