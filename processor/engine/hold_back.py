"""Holding a queue back that has its share of what may be in flight, so that it starves no other.

A slow queue's backlog would else fill the worker's bound, and a quick job of another queue would wait beside idle slots
until one of the slow ones has ended.
"""

from __future__ import annotations

from processor.engine.ownership import Ownership
from processor.engine.state import EngineState


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
