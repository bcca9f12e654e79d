"""Orders about jobs are noted as settled once carried out, and buried some days later (`processor.core.control`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import OutRecord
from processor.core.control import burial
from processor.wire.codec import encode
from processor.wire.topics import control_topic

if TYPE_CHECKING:
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.state import EngineState
    from processor.wire.records import ControlRecord

log = events.logger(__name__)

EVERY = 600.0
"""Seconds between two looks for orders that need not be kept."""
MOST = 1_000
"""Orders that are buried at a time."""


def settle(engine: EngineState, number: QueuePartition, job_id: str, life: int) -> None:
    """An order about this life was carried out, or has come too late: it goes out, as settled, with what it caused."""
    order = engine.gate.control.job_order(job_id)
    if order is not None and not order.settled and life == order.life:
        give_again(engine, number, order._replace(settled=engine.clock.now_ms()))


def give_again(engine: EngineState, number: QueuePartition, order: ControlRecord) -> None:
    """Write an order as it is now."""
    topic = control_topic(engine.config.namespace)
    number.outbox.announce(OutRecord(topic, order.target.encode(), encode(order)))


class Burials:
    """Takes back what need not be kept. On the owning thread of every worker that owns a first partition: to bury an
    order twice does no harm.
    """

    def __init__(self, engine: EngineState) -> None:
        self._engine = engine
        self._next = 0.0

    def turn(self, now: float) -> None:
        """`now`: monotonic seconds."""
        if now < self._next:
            return
        number = self.number()
        if number is None:
            return
        self._next = now + EVERY
        engine = self._engine
        over = list(engine.gate.control.over(engine.clock.now_ms()))[:MOST]
        topic = control_topic(engine.config.namespace)
        for order in over:
            number.outbox.announce(burial(topic, order))
        if over:
            log.info("control.buried", extra={"orders": len(over)})

    def number(self) -> QueuePartition | None:
        """With whose flush it goes out; None: it is not for this worker to do."""
        return next((number for number in self._engine.active() if number.partition == 0), None)
