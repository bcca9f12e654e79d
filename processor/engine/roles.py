"""The roles that every worker plays beside running jobs, each with its own consumer group, producer and thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.engine.forwarder import Forwarder
from processor.engine.scheduler import Scheduler

if TYPE_CHECKING:
    from processor.broker.base import Broker
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters
    from processor.runtime import Runtime


class Roles:
    """Starts the roles; they end when they are told to."""

    def __init__(self, runtime: Runtime, broker: Broker, config: WorkerConfig, counters: Counters) -> None:
        self.forwarder = Forwarder(runtime, broker, config, counters)
        """Moves on what waits in the retry chain."""
        self.scheduler = Scheduler(runtime, broker, config, counters) if config.schedules else None
        """Fires the schedules, in one worker at a time."""

    def stop(self, timeout: float) -> None:
        """End them in good order, each within so many seconds."""
        self.forwarder.stop(timeout)
        if self.scheduler is not None:
            self.scheduler.stop(timeout)
