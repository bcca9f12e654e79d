"""Reads partitions that its user chooses, without a group."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from processor.broker.base import Batch, End, PartitionFault, Record, TopicPartition
from processor.broker.kafka import faults
from processor.broker.kafka.config import Properties
from processor.broker.kafka.health import ClientWatch
from processor.errors import BrokerError

NOTHING = Batch((), (), ())
FIND_LEADERS = 0.1
"""Seconds to wait for the leaders of a topic."""


class KafkaReader:
    """Implements `base.Reader`."""

    def __init__(self, properties: Properties, watch: ClientWatch, bootstrap: str) -> None:
        self._watch = watch
        self._bootstrap = bootstrap
        self._consumer = Consumer({**properties, "error_cb": watch.on_error, "stats_cb": watch.on_stats}, logger=watch)
        self._reached: dict[TopicPartition, int] = {}
        """Per assigned partition the start, then the highest end: librdkafka's position does not grow past markers."""
        self._closed = False

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """Add partitions."""
        unknown = {topic for topic, _ in starts} - {topic for topic, _ in self._reached}
        self._reached.update(starts)
        self._consumer.incremental_assign(
            [KafkaTopicPartition(topic, partition, offset) for (topic, partition), offset in starts.items()]
        )
        for topic in unknown:
            self._find_leaders(topic)

    def _find_leaders(self, topic: str) -> None:
        """Ask now who leads the partitions: librdkafka looks for a new topic's leaders once a second only.

        Without it the jobs of a restarted worker went on after 1.04 s, every second time; with it after 0.15 s. When
        no broker answers in time, its own search goes on.
        """
        with contextlib.suppress(KafkaException):
            self._consumer.list_topics(topic, timeout=FIND_LEADERS)

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop partitions."""
        dropped = [partition for partition in partitions if self._reached.pop(partition, None) is not None]
        self._consumer.incremental_unassign(_theirs(dropped))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop delivering them. Throws their prefetched records away (1.9 M/s -> 18 k/s if done per batch)."""
        self._consumer.pause(_theirs(partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Deliver them again, from where they were paused."""
        self._consumer.resume(_theirs(partitions))

    def fetch(self, limit: int, timeout: float) -> Batch:
        """Up to `limit` events."""
        # consume() with a timeout waits until `limit` records are there; poll() returns with the first.
        if timeout > 0:
            first = self._consumer.poll(timeout)
            if first is None:
                return NOTHING
            messages = [first]
            if limit > 1:
                messages += self._consumer.consume(limit - 1, 0)
        else:
            messages = self._consumer.consume(limit, 0)
            if not messages:
                return NOTHING
        records = [message for message in messages if message.error() is None]
        # confluent_kafka types headers more widely (a dict, str values) than what it delivers.
        delivered = cast("Sequence[Record]", records)
        if len(records) == len(messages):
            return Batch(delivered, (), ())
        return self._with_events(delivered, messages)

    def _with_events(self, records: Sequence[Record], messages: Sequence[Message]) -> Batch:
        ends: list[End] = []
        failed: list[PartitionFault] = []
        for message in messages:
            error = message.error()
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if error is None or topic is None or partition is None:
                continue
            where = TopicPartition(topic, partition)
            if where not in self._reached:
                continue
            if error.code() == KafkaError._PARTITION_EOF:
                if offset is not None:
                    self._reached[where] = max(self._reached[where], offset)
                    ends.append(End(where, offset))
            elif error.code() not in faults.AWAY:
                doing = f"read {topic}-{partition}"
                failed.append(PartitionFault(where, faults.plain(error, doing, self._bootstrap)))
        return Batch(records, ends, failed)

    def position(self, partition: TopicPartition) -> int:
        """The next offset to deliver."""
        reached = self._reached.get(partition)
        if reached is None:
            raise BrokerError(f"{partition.topic}-{partition.partition} is not assigned to this reader")
        library = self._consumer.position([KafkaTopicPartition(*partition)])[0].offset
        return reached if library == OFFSET_INVALID else max(library, reached)

    def close(self) -> None:
        """Close."""
        if not self._closed:
            self._closed = True
            self._consumer.close()


def _theirs(partitions: Iterable[TopicPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(topic, partition) for topic, partition in partitions]
