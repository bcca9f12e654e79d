"""How much of each queue is in flight, beside its share of what the worker may take: `processor.engine.hold_back`."""

from __future__ import annotations

from processor.core.memory_budget import MemoryBudget


class QueueLoad:
    """Records of one queue that were taken from the log and are not complete, and its share of the worker's bounds."""

    __slots__ = ("budget", "held_back", "max_bytes", "max_records", "records", "size")

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self.records = 0
        self.size = 0
        """Bytes."""
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.held_back = False
        """Its lanes are not read for now."""
        self.budget = MemoryBudget(max_records // 2, max_bytes // 2)
        """For jobs that wait for their keys: half of what may be in flight, so that the other half can always run."""

    @property
    def is_full(self) -> bool:
        """Whether it has its share."""
        return self.records >= self.max_records or self.size >= self.max_bytes

    @property
    def room(self) -> int:
        """How many more records it may have in flight."""
        return self.max_records - self.records

    @property
    def is_low(self) -> bool:
        """Whether half of its share is free again: holding back throws away what was fetched ahead."""
        return self.records <= self.max_records // 2 and self.size <= self.max_bytes // 2
