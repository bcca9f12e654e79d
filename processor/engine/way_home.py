"""Where a record of the retry chain goes when its time in a rung is over: home, another rung, or the dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Broker, OutRecord, Record
from processor.core.completer import Completer
from processor.core.forwarding import Home, home_of, onward
from processor.core.write_set import Origin
from processor.errors import BrokerError
from processor.job import Lane
from processor.texts import message_of
from processor.wire.topics import dlq_topic, jobs_topic

if TYPE_CHECKING:
    from processor.clock import Clock
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters

log = events.logger(__name__)

LANES_KNOWN = 60.0
"""Seconds that the answer whether a lane exists is believed."""


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

    def onward(self, record: Record, now_ms: int) -> OutRecord:
        """The record as it goes on.

        Raises:
            BrokerError: the cluster did not say whether its lane exists.
        """
        try:
            return self._chosen(record, now_ms)
        except BrokerError:
            raise
        except Exception as error:
            # One record that nobody thought of must not stop the chain: it is kept as it is.
            log.exception("forwarder.internal_error")
            return self._dead(record, "internal_error", f"{type(error).__name__}: {message_of(error)}", now_ms)

    def _chosen(self, record: Record, now_ms: int) -> OutRecord:
        headers = record.headers()
        home = home_of(headers)
        if home is None:
            return self._dead(record, "undecodable", "a record of the retry chain without queue and number", now_ms)
        refused = self._refused.pop((record.topic() or "", record.partition() or 0, record.offset() or 0), None)
        if refused is not None:
            return self._dead(record, "unsendable", refused, now_ms)
        if not self._is_there(home):
            return self._dead(record, "unknown_queue", f"there is no lane {home.queue} number {home.number}", now_ms)
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

    def _dead(self, record: Record, reason: str, text: str, now_ms: int) -> OutRecord:
        origin = Origin(record.topic() or "", record.partition() or 0, record.offset() or 0)
        self._counters.events[f"dead_letter.{reason}"] += 1
        log.error("forwarder.dead_letter", extra={"reason": reason, "text": text, "topic": origin.topic})
        dlq = dlq_topic(self._config.namespace)
        return self._completer.undecodable(dlq, origin, record.key(), record.value(), reason, text, now_ms)
