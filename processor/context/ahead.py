"""How far a handler is ahead of the log: what it reports is kept in memory until it is there."""

from __future__ import annotations

from processor.context.port import ContextLimits


class Ahead:
    """Steps and children of one attempt on their way to the log, as far as the handler's side knows."""

    __slots__ = ("_limits", "_records", "_size")

    def __init__(self, limits: ContextLimits) -> None:
        self._limits = limits
        self._records = 0
        self._size = 0

    def wrote(self, size: int) -> None:
        """One more is on its way, of about so many bytes."""
        self._records += 1
        self._size += size

    @property
    def too_far(self) -> bool:
        """Whether the handler should wait for the log."""
        return self._records >= self._limits.ahead_max_records or self._size >= self._limits.ahead_max_bytes

    def caught_up(self) -> None:
        """The log has it all."""
        self._records = self._size = 0
