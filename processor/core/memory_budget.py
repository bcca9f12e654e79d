"""How many waiting jobs a worker keeps whole, shared by the lines of all its keys.

The rule is that of dynamic thresholds, by which switches share the memory of their ports (Choudhury and Hahne, 1998):
a line may hold a share of what is *free*. Alone it gets a lot, among many each gets less, and there is always something
left for one more. A fixed share for each line would be too small for the hot and lie idle with the others.
"""

from __future__ import annotations

PART = 8
"""A line may hold one part in this many of what is free."""


class MemoryBudget:
    """A budget in records and bytes. Whoever keeps something says so with `take`, and `give` when it is gone."""

    __slots__ = ("_max_bytes", "_max_records", "bytes", "records")

    def __init__(self, records: int = 10_000, size: int = 64 * 1024 * 1024) -> None:
        self._max_records = records
        self._max_bytes = size
        self.records = 0
        self.bytes = 0

    def share(self) -> int:
        """Records that one line may hold now."""
        free = self._max_records - self.records
        if free <= 0 or self.bytes >= self._max_bytes:
            return 0
        return max(free // PART, 1)

    def fits(self, kept: int, kept_bytes: int, size: int) -> bool:
        """Whether a line that holds `kept` records may hold one more of `size` bytes."""
        free = self._max_bytes - self.bytes
        # The first of a line may take what is left: it starts next.
        within = size <= free if kept == 0 else (kept_bytes + size) * PART <= free
        return within and kept < self.share()

    def take(self, size: int) -> None:
        """One record of `size` bytes more."""
        self.records += 1
        self.bytes += size

    def give(self, size: int, records: int = 1) -> None:
        """So much less."""
        self.records -= records
        self.bytes -= size
