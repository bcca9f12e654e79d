"""Reads the control topic from its beginning and tells the owner what operators want, on a thread of its own.

No job starts before the topic was read to its true end once: a job that somebody cancelled, in a queue that somebody
paused, must not start because a worker was quicker than the news.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Broker, Reader, TopicPartition
from processor.core.control import Change, change_of
from processor.errors import BrokerError, RecordError
from processor.runtime import Runtime
from processor.wire.topics import control_topic

if TYPE_CHECKING:
    from processor.broker.base import Record
    from processor.engine.config import WorkerConfig

log = events.logger(__name__)

FETCH = 1000
WAIT = 0.25
"""Seconds of one fetch without news."""
AGAIN = 0.2
"""Seconds before a cluster that did not answer is asked again."""


@dataclass(frozen=True, slots=True)
class ControlNews:
    """What was read, in its order."""

    changes: Sequence[Change]
    caught_up: bool
    """Everything that was there when the worker started has been told."""


class ControlWatch:
    """Reads the control topic from its beginning on, on a thread of its own."""

    def __init__(
        self, runtime: Runtime, broker: Broker, config: WorkerConfig, reply: Callable[[ControlNews], None]
    ) -> None:
        self._runtime = runtime
        self._broker = broker
        self._source = TopicPartition(control_topic(config.namespace), 0)
        self._reply = reply
        self._stopping = False
        self._caught_up = False
        self._actor = runtime.start("control", self._run)

    def stop(self, timeout: float) -> bool:
        """End the thread; whether it ended in time."""
        self._stopping = True
        return self._actor.join(timeout)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._follow()
            except BrokerError as error:
                log.warning("control.retrying", extra={"error": str(error)})
                self._runtime.signal().wait(AGAIN)
            except Exception:
                log.exception("control.failed")
                self._runtime.signal().wait(AGAIN)

    def _follow(self) -> None:
        """Read from the beginning (what is read twice changes nothing), then whatever comes."""
        admin, source = self._broker.admin(), self._source
        end = admin.end_offsets([source])[source]
        begin = admin.begin_offsets([source])[source]
        reader = self._broker.reader()
        try:
            reader.assign({source: begin})
            while not self._stopping:
                self._tell_if_caught_up(reader, end)
                batch = reader.fetch(FETCH, WAIT)
                for fault in batch.faults:
                    raise fault.error
                changes = [change for record in batch.records if (change := _change(record)) is not None]
                if changes:
                    self._reply(ControlNews(changes, self._caught_up))
        finally:
            reader.close()

    def _tell_if_caught_up(self, reader: Reader, end: int) -> None:
        if not self._caught_up and reader.position(self._source) >= end:
            self._caught_up = True
            self._reply(ControlNews((), True))


def _change(record: Record) -> Change | None:
    key, value = record.key(), record.value()
    if key is None:
        return None
    try:
        return change_of(key, value, record.headers())
    except (RecordError, UnicodeDecodeError) as error:
        # One order that cannot be read must not keep the worker from all others.
        log.error("control.unreadable", extra={"offset": record.offset(), "error": str(error)})
        return None
