"""Reading spilled records again: jobs that waited for a busy key and were kept as their place only. On its own thread.

Spilled jobs of one lane lie near each other, so a read brings its neighbours along and keeps them for the next asks.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from processor.broker.base import Broker, Reader, Record, TopicPartition
from processor.core.ordering import Spilled
from processor.errors import BrokerError
from processor.worker.runtime import Inbox, Runtime, serve

if TYPE_CHECKING:
    from processor.worker.number import Number

log = logging.getLogger(__name__)

AHEAD = 500
"""Records read at once."""
KEPT = 2000
"""Records kept for later asks."""


class Reread(NamedTuple):
    """An ask, and its answer: `record` None if the log holds it no longer."""

    number: Number
    assignment: int
    key: str
    place: Spilled
    record: Record | None = None


class Rereader:
    """See the module."""

    def __init__(self, runtime: Runtime, broker: Broker, reply: Callable[[Reread], None]) -> None:
        self._runtime = runtime
        self._broker = broker
        self._reply = reply
        self._asks: Inbox[Reread | None] = Inbox(runtime)
        self._kept: OrderedDict[tuple[str, int, int], Record] = OrderedDict()
        self._reader: Reader | None = None
        self._stopping = False
        self._actor = runtime.start("rereader", self._run)

    def ask(self, ask: Reread) -> None:
        """Read a record again; the answer goes to `reply`."""
        self._asks.post(ask)

    def stop(self, timeout: float) -> bool:
        """End the thread; whether it ended in time."""
        self._stopping = True
        self._asks.post(None)
        return self._actor.join(timeout)

    def _run(self) -> None:
        try:
            serve(self._asks, self._answer)
        finally:
            if self._reader is not None:
                self._reader.close()

    def _answer(self, ask: Reread) -> None:
        if ask.assignment != ask.number.assignment:
            return
        where = (ask.place.lane, ask.number.partition, ask.place.offset)
        while where not in self._kept and not self._stopping:
            try:
                if not self._read(TopicPartition(where[0], where[1]), where[2]):
                    break
            except BrokerError as error:
                log.warning("reread.retrying", extra={"error": str(error)})
                self._runtime.signal().wait(0.2)
        self._reply(ask._replace(record=self._kept.pop(where, None)))

    def _read(self, partition: TopicPartition, offset: int) -> bool:
        """Read from `offset` on; whether the record there was among them."""
        reader = self._reader = self._reader or self._broker.reader()
        reader.assign({partition: offset})
        try:
            while not self._stopping:
                batch = reader.fetch(AHEAD, 0.5)
                for record in batch.records:
                    self._kept[partition.topic, partition.partition, record.offset() or 0] = record
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                if batch.records or batch.ends or batch.faults:
                    return (partition.topic, partition.partition, offset) in self._kept
            return False
        finally:
            reader.unassign([partition])
