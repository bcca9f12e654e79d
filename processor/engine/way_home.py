"""Where a record of the retry chain goes when its time in a rung is over: home, another rung, or the dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from processor import events
from processor.broker.base import Broker, OutRecord, Record
from processor.core.completer import Completer
from processor.core.forwarding import Home, home_of, onward
from processor.core.write_set import Origin
from processor.dead_reasons import DeadReason
from processor.errors import BrokerError, RecordError
from processor.job import ErrorInfo, Lane
from processor.states import State
from processor.texts import message_of
from processor.wire.codec import decode_job
from processor.wire.topics import dlq_topic, jobs_topic, status_topic

if TYPE_CHECKING:
    from processor.clock import Clock
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters

log = events.logger(__name__)

LANES_KNOWN = 60.0
"""Seconds that the answer whether a lane exists is believed."""


class End(NamedTuple):
    """Why a record goes no further."""

    reason: str
    """Of its dead letter."""
    text: str


class WayHome:
    """The records that a forwarder sends on. Used by its thread alone."""

    def __init__(self, broker: Broker, config: WorkerConfig, clock: Clock, counters: Counters) -> None:
        self._broker = broker
        self._config = config
        self._clock = clock
        self._counters = counters
        self._completer = Completer(config.slot)
        self._lanes: dict[str, tuple[float, int]] = {}
        """Partitions of a lane (0: there is none), and when that was asked."""
        self._refused: dict[tuple[str, int, int], str] = {}
        """Records (topic, partition, offset) that the broker will not take where they go, and what it said."""

    def refused(self, record: Record, why: str) -> None:
        """The broker will not take it: the next time it becomes a dead letter."""
        self._refused[record.topic() or "", record.partition() or 0, record.offset() or 0] = why

    def onward(self, record: Record, now_ms: int, announces: list[OutRecord]) -> OutRecord:
        """The record as it goes on. What is to be announced of it, if it goes no further, is added to `announces`.

        Raises:
            BrokerError: the cluster did not say whether its lane exists.
        """
        try:
            out = self._chosen(record, now_ms)
            if isinstance(out, OutRecord):
                return out
            return self._dead(record, out, now_ms, announces)
        except BrokerError:
            raise
        except Exception as error:
            # One record that nobody thought of must not stop the chain: it is kept as it is.
            log.exception("forwarder.internal_error")
            end = End(DeadReason.INTERNAL_ERROR, f"{type(error).__name__}: {message_of(error)}")
            return self._dead(record, end, now_ms, announces)

    def _chosen(self, record: Record, now_ms: int) -> OutRecord | End:
        headers = record.headers()
        home = home_of(headers)
        if home is None:
            return End(DeadReason.UNDECODABLE, "a record of the retry chain without queue and number")
        refused = self._refused.pop((record.topic() or "", record.partition() or 0, record.offset() or 0), None)
        if refused is not None:
            return End(DeadReason.UNSENDABLE, refused)
        if not self._is_there(home):
            return End(DeadReason.UNKNOWN_QUEUE, f"there is no lane {home.queue} number {home.number}")
        out = onward(self._config.namespace, home, record.key(), record.value(), headers, now_ms)
        self._counters.events["forwarded"] += 1
        return out

    def _is_there(self, home: Home) -> bool:
        """Whether the lane that a record goes home to exists."""
        topic = jobs_topic(self._config.namespace, home.queue, Lane.DUE)
        now = self._clock.monotonic()
        known = self._lanes.get(topic)
        if known is None or now >= known[0]:
            found = self._broker.admin().topics([topic]).get(topic)
            known = self._lanes[topic] = (now + LANES_KNOWN, 0 if found is None else found.partitions)
        return home.number < known[1]

    def _dead(self, record: Record, end: End, now_ms: int, announces: list[OutRecord]) -> OutRecord:
        origin = Origin(record.topic() or "", record.partition() or 0, record.offset() or 0)
        self._counters.events[f"dead_letter.{end.reason}"] += 1
        log.error("forwarder.dead_letter", extra={"reason": end.reason, "text": end.text, "topic": origin.topic})
        dlq, value = dlq_topic(self._config.namespace), record.value()
        try:
            job = decode_job(value or b"")
        except RecordError:
            return self._completer.undecodable(dlq, origin, record.key(), value, end.reason, end.text, now_ms)
        error = ErrorInfo(end.reason, end.text)
        status = self._completer.status(job, State.DEAD, now_ms, error=error, attempt=job.attempt)
        announces.append(OutRecord(status_topic(self._config.namespace), job.id.encode(), status))
        return self._completer.stranded(dlq, job, origin, error, now_ms)
