"""The threads that work for the loop: they are asked, read or write on their own, and answer by posts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.engine.control_topic import ControlWatch
from processor.engine.precedents import Precedents
from processor.engine.refetch import Refetcher
from processor.engine.restore import Restorer
from processor.engine.roles import Roles
from processor.engine.upkeep import Upkeep

if TYPE_CHECKING:
    from processor.engine.state import EngineState


class Background:
    """What runs beside the loop of one worker, the flusher and the pools apart."""

    def __init__(self, engine: EngineState) -> None:
        runtime, broker, config, post = engine.runtime, engine.broker, engine.config, engine.inbox.post
        self.restorer = Restorer(runtime, broker, config, post)
        self.refetcher = Refetcher(runtime, broker, post)
        self.precedents = Precedents(runtime, broker, post)
        self.upkeep = Upkeep(runtime, broker, config, post)
        self.control = ControlWatch(runtime, broker, config, post)
        self.roles = Roles(runtime, broker, config, engine.counters)

    def stop(self) -> None:
        """End them, each within a bounded time."""
        self.roles.stop(3.0)
        self.control.stop(1.0)
        self.restorer.stop(1.0)
        self.refetcher.stop(1.0)
        self.precedents.stop(1.0)
        self.upkeep.stop(1.0)
