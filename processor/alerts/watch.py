"""Looks at the queues from outside, and alerts when one holds too much or has waited too long.

Nobody else would: workers that are not there say nothing. The look is made by the process that delivers, so there is
one at a time. A limit that is passed is told once; when the queue is below it again, the next time is told again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from processor import events
from processor.admin.lag import LaneLag, queue_lag
from processor.alert_kinds import AlertKind
from processor.broker.base import Broker, OutRecord, Producer, TopicPartition
from processor.clock import Clock, SystemClock
from processor.errors import ProcessorError
from processor.wire.codec import encode
from processor.wire.durations import format_duration
from processor.wire.records import AlertRecord
from processor.wire.settings import AlertsSettings
from processor.wire.topics import alerts_topic, jobs_topic

log = events.logger(__name__)

EVERY = 15.0
"""Seconds between two looks."""


class Seen(NamedTuple):
    """A queue as one look saw it."""

    waiting: int
    """Jobs that wait in its lanes or run."""
    oldest_at: int | None
    """When the oldest of those was enqueued, or came due, milliseconds since the epoch."""


class Limits:
    """What has passed its limit, and what was told of it. Pure."""

    def __init__(self, settings: AlertsSettings) -> None:
        self._backlog = settings.backlog
        self._oldest = settings.oldest
        self._told: set[tuple[str, str]] = set()

    def passed(self, seen: Mapping[str, Seen], now_ms: int) -> list[AlertRecord]:
        """Alerts about the queues that have passed a limit since the last call."""
        found = []
        for queue, now in seen.items():
            age = 0.0 if now.oldest_at is None else (now_ms - now.oldest_at) / 1000
            for kind, over, text in (
                (
                    AlertKind.BACKLOG,
                    self._backlog is not None and now.waiting > self._backlog,
                    f"queue {queue} holds {now.waiting:,} jobs, more than {self._backlog or 0:,}",
                ),
                (
                    AlertKind.WAITS_LONG,
                    self._oldest is not None and age > self._oldest,
                    f"the oldest job of queue {queue} waits for {format_duration(round(age))}",
                ),
            ):
                if over and (kind, queue) not in self._told:
                    found.append(AlertRecord(kind, f"queue:{queue}", now_ms, "", text, queue=queue))
                    self._told.add((kind, queue))
                elif not over:
                    self._told.discard((kind, queue))
        return found


def look(broker: Broker, namespace: str) -> dict[str, Seen]:
    """Every queue as it is now. Reads one record of each lane partition in which something waits.

    Raises:
        BrokerError: the cluster did not answer.
    """
    lags = list(queue_lag(broker, namespace))
    oldest = _oldest(broker, namespace, [lag for lag in lags if lag.waiting])
    waiting: dict[str, int] = defaultdict(int)
    for lag in lags:
        waiting[lag.queue] += lag.waiting
    return {queue: Seen(count, oldest.get(queue)) for queue, count in waiting.items()}


def _oldest(broker: Broker, namespace: str, lags: Iterable[LaneLag]) -> dict[str, int]:
    queues = {TopicPartition(jobs_topic(namespace, lag.queue, lag.lane), lag.number): lag for lag in lags}
    found: dict[str, int] = {}
    if not queues:
        return found
    reader = broker.reader(ahead_kbytes=1_024)
    try:
        reader.assign({place: lag.start for place, lag in queues.items()})
        left, tries = set(queues), 0
        while left and tries < 100:
            tries += 1
            batch = reader.fetch(200, 0.1)
            for record in batch.records:
                place = TopicPartition(record.topic() or "", record.partition() or 0)
                lag = queues.get(place)
                if place not in left or lag is None or lag.is_done(record.offset() or 0):
                    continue
                left.discard(place)
                at = record.timestamp()[1]
                found[lag.queue] = min(found.get(lag.queue, at), at)
            done = [end.partition for end in batch.ends] + [fault.partition for fault in batch.faults]
            left.difference_update(done)
    finally:
        reader.close()
    return found


class Watch:
    """Looks every now and then, while `delivers()`."""

    def __init__(
        self,
        broker: Broker,
        namespace: str,
        settings: AlertsSettings,
        delivers: Callable[[], bool],
        clock: Clock | None = None,
    ) -> None:
        self._broker = broker
        self._namespace = namespace
        self._limits = Limits(settings)
        self._wanted = settings.backlog is not None or settings.oldest is not None
        self._delivers = delivers
        self._clock = clock or SystemClock()
        self._next = 0.0
        self._producer: Producer | None = None

    def turn(self) -> None:
        """Look, if it is time."""
        now = self._clock.monotonic()
        if not self._wanted or now < self._next or not self._delivers():
            return
        self._next = now + EVERY
        try:
            alerts = self._limits.passed(look(self._broker, self._namespace), self._clock.now_ms())
            if alerts:
                self._tell(alerts)
        except ProcessorError as error:
            log.warning("alerts.watch.retrying", extra={"error": str(error)})

    def _tell(self, alerts: list[AlertRecord]) -> None:
        producer = self._producer = self._producer or self._broker.producer()
        for alert in alerts:
            log.error("alerts.watch", extra={"kind": alert.kind, "text": alert.text})
            producer.append(OutRecord(alerts_topic(self._namespace), alert.subject.encode(), encode(alert)))
        producer.flush(10.0)

    def close(self) -> None:
        """Let go of its producer."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None
