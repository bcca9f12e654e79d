"""When to flush for those who wait until it is done: the group commit of databases (PostgreSQL's `commit_delay`).

Callers that one flush let go together soon wait together again. Flushing for the first of them would make all the
others wait for a flush more. So after a flush, the next one waits for as many as that one let go, but not for long.
"""

from __future__ import annotations

PATIENCE = 0.005
"""Seconds after a flush for which those it let go are expected back."""


class GroupCommit:
    """Who waits, and how many are expected. Times are monotonic seconds."""

    __slots__ = ("_expected", "_let_go_at", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        """How many wait for the next flush."""
        self._expected = 0
        self._let_go_at = 0.0

    def waits(self, callers: int = 1) -> None:
        """So many more wait for the next flush."""
        self.waiting += callers

    def began(self) -> None:
        """A flush has begun, for all who waited."""
        self.waiting = 0

    def let_go(self, callers: int, now: float) -> None:
        """A flush is done, and so many go on."""
        self._expected, self._let_go_at = callers, now

    def due(self, now: float) -> bool:
        """Whether somebody waits and nobody else is worth waiting for."""
        return self.waiting > 0 and (self.waiting >= self._expected or now - self._let_go_at >= PATIENCE)
