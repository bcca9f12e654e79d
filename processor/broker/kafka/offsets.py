"""Committed offsets of a group, read and set from outside of it.

By consumers that have the group's id and never join. Not by AdminClient.list_consumer_group_offsets: when the group's
coordinator answers NOT_COORDINATOR (a fresh cluster, a broker that failed over) librdkafka 2.16 hands that to the
consumer group of the client, which an admin client does not have, and the process dies of it (segmentation fault in
rd_kafka_cgrp_op, called from rd_kafka_handle_OffsetFetch).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from processor.broker.base import Committed, Isolation, OffsetCommit, TopicPartition
from processor.broker.kafka import faults
from processor.broker.kafka.config import Properties
from processor.broker.kafka.health import ClientWatch
from processor.errors import BrokerError, RetriableBrokerError

PAUSE_S = 0.05
"""Between two tries while the coordinator moves."""
SLICE_S = 1.0
"""The longest single question: a refused login only shows between two of them."""


class GroupOffsets:
    """Asks for and sets the offsets of any group. Thread-safe; one client per group and way of asking."""

    def __init__(
        self, properties: Callable[[str, str], Properties], watch: Callable[[], ClientWatch], bootstrap: str
    ) -> None:
        self._properties = properties
        self._new_watch = watch
        self._bootstrap = bootstrap
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, Isolation], tuple[Consumer, ClientWatch]] = {}

    def committed(
        self, group: str, partitions: Sequence[TopicPartition], *, stable: bool, timeout: float
    ) -> dict[TopicPartition, Committed]:
        """Committed offsets. A read-committed client asks for stable ones."""
        if not partitions:
            return {}
        isolation = Isolation.COMMITTED if stable else Isolation.UNCOMMITTED
        wanted = [KafkaTopicPartition(*partition) for partition in partitions]
        doing = f"committed offsets of group {group}"
        found = self._ask(group, isolation, doing, timeout, lambda client, left: client.committed(wanted, left))
        result: dict[TopicPartition, Committed] = {}
        for item in found:
            if item.error is not None:
                raise faults.plain(item.error, doing, self._bootstrap)
            offset = item.offset if item.offset >= 0 else None
            result[TopicPartition(item.topic, item.partition)] = Committed(offset, item.metadata or "")
        return result

    def commit(self, group: str, offsets: Sequence[OffsetCommit], timeout: float) -> None:
        """Set offsets of a group without members; one with members refuses them."""
        if not offsets:
            return
        positions = [
            KafkaTopicPartition(topic, number, offset, metadata) for (topic, number), offset, metadata in offsets
        ]
        doing = f"commit offsets of group {group}"

        def commit(client: Consumer, _left: float) -> list[KafkaTopicPartition]:
            return client.commit(offsets=positions, asynchronous=False) or []

        for item in self._ask(group, Isolation.COMMITTED, doing, timeout, commit):
            if item.error is not None:
                raise faults.plain(item.error, doing, self._bootstrap)

    def close(self) -> None:
        """Let go of the clients."""
        with self._lock:
            clients, self._clients = self._clients, {}
            for client, _ in clients.values():
                client.close()

    def _ask(
        self,
        group: str,
        isolation: Isolation,
        doing: str,
        timeout: float,
        question: Callable[[Consumer, float], list[KafkaTopicPartition]],
    ) -> list[KafkaTopicPartition]:
        deadline = time.monotonic() + timeout
        with self._lock:
            client, watch = self._client(group, isolation)
            while True:
                left = deadline - time.monotonic()
                try:
                    answer = question(client, max(0.1, min(left, SLICE_S)))
                except KafkaException as exception:
                    error = self._explained(faults.cause(exception), client, watch, doing)
                    if not isinstance(error, RetriableBrokerError) or time.monotonic() + PAUSE_S >= deadline:
                        raise error from exception
                    time.sleep(PAUSE_S)
                else:
                    watch.answered()
                    return answer

    def _client(self, group: str, isolation: Isolation) -> tuple[Consumer, ClientWatch]:
        known = self._clients.get((group, isolation))
        if known is None:
            watch = self._new_watch()
            properties = {**self._properties(group, isolation.value), "error_cb": watch.on_error}
            known = self._clients[group, isolation] = (Consumer(properties, logger=watch), watch)
        return known

    def _explained(self, error: KafkaError, client: Consumer, watch: ClientWatch, doing: str) -> BrokerError:
        # Serves the callbacks that tell a refused login from silence; it never joined, so nothing else happens.
        client.poll(0)
        if error.code() not in faults.AWAY:
            return faults.plain(error, doing, self._bootstrap)
        # A pending transaction and a coordinator that moves look like silence too: ask again while there is time.
        return watch.reason(doing) or RetriableBrokerError(faults.explain(error, doing))
