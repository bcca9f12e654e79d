"""How much of each queue is in flight. A queue that has its share is held back alone, so that it starves no other.

A slow queue's backlog would else fill the worker's bound, and a quick job of another queue would wait beside idle slots
until one of the slow ones has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.core.memory_budget import MemoryBudget

if TYPE_CHECKING:
    from processor.engine.ownership import Ownership
    from processor.engine.state import EngineState


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
    def is_low(self) -> bool:
        """Whether half of its share is free again: holding back throws away what was fetched ahead."""
        return self.records <= self.max_records // 2 and self.size <= self.max_bytes // 2


class HoldBack:
    """Stops and resumes the reading of queues by their load. On the owning thread."""

    def __init__(self, engine: EngineState, ownership: Ownership) -> None:
        self._engine = engine
        self._ownership = ownership

    def turn(self) -> None:
        """Called before records are fetched."""
        loads = self._engine.loads
        if len(loads) == 1:
            return  # the worker's own bound is enough
        for queue, load in loads.items():
            if not load.held_back and load.is_full:
                load.held_back = True
                act = self._ownership.rest
            elif load.held_back and load.is_low:
                load.held_back = False
                act = self._ownership.go_on
            else:
                continue
            for number in self._engine.active():
                if number.queue.name == queue:
                    act(number)
