"""Questions and changes outside the hot path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are re-exported without __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    OffsetSpec,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic

from processor.broker import reach
from processor.broker.base import (
    ClusterInfo,
    Committed,
    Isolation,
    Member,
    OffsetCommit,
    TopicInfo,
    TopicPartition,
    TopicSpec,
)
from processor.broker.kafka import faults
from processor.broker.kafka.config import Properties
from processor.broker.kafka.health import ClientWatch
from processor.broker.kafka.offsets import GroupOffsets
from processor.broker.kafka.rolls import members_of
from processor.errors import BrokerError, RetriableBrokerError

LOOK_S = 0.05
"""How often a waiting call looks whether the brokers have refused it: librdkafka itself would only time out."""
MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
ISOLATION = {
    Isolation.COMMITTED: IsolationLevel.READ_COMMITTED,
    Isolation.UNCOMMITTED: IsolationLevel.READ_UNCOMMITTED,
}


class KafkaAdmin:
    """Implements `base.Admin`."""

    def __init__(
        self, properties: Properties, watch: ClientWatch, bootstrap: str, timeout_s: float, offsets: GroupOffsets
    ) -> None:
        self._offsets = offsets
        self._watch = watch
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._polling = threading.Lock()
        config: dict[str, Any] = {**properties, "error_cb": watch.on_error}
        self._make: Callable[[], AdminClient] = lambda: AdminClient(config, logger=watch)
        self._client = self._make()
        self._retired: list[AdminClient] = []

    def cluster(self) -> ClusterInfo:
        """The cluster that answers."""
        found = self._wait(self._client.describe_cluster(request_timeout=self._timeout_s), "describe the cluster")
        return ClusterInfo(cluster_id=str(found.cluster_id), brokers=len(found.nodes))

    def topics(self, names: Iterable[str] | None = None, *, configs: bool = False) -> dict[str, TopicInfo]:
        """Existing topics."""
        wanted = self._topic_names() if names is None else list(dict.fromkeys(names))
        if not wanted:
            return {}
        futures = self._client.describe_topics(TopicCollection(wanted), request_timeout=self._timeout_s)
        found: dict[str, Any] = {}
        for name, future in futures.items():
            description = self._wait(future, f"describe topic {name}", missing=MISSING)
            if description is not None:
                found[name] = description.partitions
        config = self._configs(found) if configs and found else {}
        return {
            name: TopicInfo(
                partitions=len(partitions),
                replication=min((len(partition.replicas) for partition in partitions), default=0),
                config=config.get(name, {}),
            )
            for name, partitions in found.items()
        }

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        """Create topics and wait until all brokers know them."""
        wanted = {spec.name: spec for spec in specs}
        if not wanted:
            return
        new = [NewTopic(s.name, s.partitions, s.replication, config=dict(s.config)) for s in wanted.values()]
        futures = self._client.create_topics(new, operation_timeout=self._timeout_s, request_timeout=self._timeout_s)
        for name, future in futures.items():
            self._wait(future, f"create topic {name}", missing=frozenset({KafkaError.TOPIC_ALREADY_EXISTS}))
        self._settle(dict.fromkeys(wanted, 1))

    def add_partitions(self, topic: str, total: int) -> None:
        """Grow a topic to `total` partitions."""
        futures = self._client.create_partitions(
            [NewPartitions(topic, total)], operation_timeout=self._timeout_s, request_timeout=self._timeout_s
        )
        self._wait(futures[topic], f"add partitions to {topic}")
        self._settle({topic: total})

    def set_topic_config(self, topic: str, config: Mapping[str, str]) -> None:
        """Set some configuration entries; the others stay."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        futures = self._client.incremental_alter_configs([resource], request_timeout=self._timeout_s)
        self._wait(futures[resource], f"configure topic {topic}")

    def end_offsets(
        self, partitions: Iterable[TopicPartition], isolation: Isolation = Isolation.UNCOMMITTED
    ) -> dict[TopicPartition, int]:
        """High watermarks or last stable offsets."""
        return self._list_offsets(partitions, LATEST, isolation)

    def begin_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """First offsets that the log still holds."""
        return self._list_offsets(partitions, EARLIEST, Isolation.UNCOMMITTED)

    def offsets_at(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """First offsets from a moment on."""
        # A timestamp below zero would be one of Kafka's marks for the earliest and the latest offset.
        specs = {place: OffsetSpec.for_timestamp(max(0, moment)) for place, moment in times.items()}
        found = self._list_offsets_by(specs, Isolation.UNCOMMITTED)
        return {place: offset for place, offset in found.items() if offset >= 0}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete what lies before the given offsets."""
        if not before:
            return
        wanted = [KafkaTopicPartition(topic, number, offset) for (topic, number), offset in before.items()]
        futures = self._client.delete_records(
            wanted, operation_timeout=self._timeout_s, request_timeout=self._timeout_s
        )
        for where, future in futures.items():
            self._wait(future, f"delete records of {where.topic}-{where.partition}")

    def committed(
        self, group: str, partitions: Sequence[TopicPartition], *, stable: bool = True, timeout: float = 10.0
    ) -> dict[TopicPartition, Committed]:
        """Committed offsets of a group."""
        return self._offsets.committed(group, partitions, stable=stable, timeout=timeout)

    def commit(self, group: str, offsets: Sequence[OffsetCommit]) -> None:
        """Set offsets of a group without members."""
        self._offsets.commit(group, offsets, self._timeout_s)

    def close(self) -> None:
        """Let go of the clients that ask for offsets."""
        self._offsets.close()

    def members(self, group: str) -> list[Member]:
        """Present members of a group."""
        found = members_of(self._client, group, self._timeout_s, self._bootstrap)
        self._watch.answered()
        return found

    def _list_offsets(
        self, partitions: Iterable[TopicPartition], spec: OffsetSpec, isolation: Isolation
    ) -> dict[TopicPartition, int]:
        return self._list_offsets_by(dict.fromkeys(partitions, spec), isolation)

    def _list_offsets_by(
        self, specs: Mapping[TopicPartition, OffsetSpec], isolation: Isolation
    ) -> dict[TopicPartition, int]:
        wanted = {KafkaTopicPartition(*partition): spec for partition, spec in specs.items()}
        if not wanted:
            return {}
        deadline = min(time.monotonic() + self._timeout_s, reach.until())
        while True:
            try:
                return self._list_offsets_once(wanted, isolation)
            except RetriableBrokerError:
                # A leader has moved. librdkafka's admin client asks the leader it remembers, with the epoch it
                # remembers, while its metadata lasts (seen: FENCED_LEADER_EPOCH for 100 s): a new client asks anew.
                if time.monotonic() + LOOK_S >= deadline:
                    raise
                self._renew()
                time.sleep(LOOK_S)

    def _list_offsets_once(
        self, wanted: Mapping[KafkaTopicPartition, OffsetSpec], isolation: Isolation
    ) -> dict[TopicPartition, int]:
        futures = self._client.list_offsets(
            dict(wanted), isolation_level=ISOLATION[isolation], request_timeout=self._timeout_s
        )
        return {
            TopicPartition(where.topic, where.partition): self._wait(
                future, f"list offsets of {where.topic}-{where.partition}"
            ).offset
            for where, future in futures.items()
        }

    def _renew(self) -> None:
        """A new client. The last ones are kept for a while: destroying one fails the answers it still owes."""
        with self._polling:
            self._retired = [*self._retired[-2:], self._client]
            self._client = self._make()

    def _topic_names(self) -> list[str]:
        # list_topics blocks without looking at refusals, so a call that looks goes first.
        self.cluster()
        try:
            metadata = self._client.list_topics(timeout=self._timeout_s)
        except KafkaException as exception:
            raise self._explained(faults.cause(exception), "list topics") from exception
        return sorted(name for name in metadata.topics if not name.startswith("__"))

    def _configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        futures = self._client.describe_configs(resources, request_timeout=self._timeout_s)
        return {
            resource.name: {
                entry.name: entry.value
                for entry in self._wait(future, f"read configuration of {resource.name}").values()
                if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value and entry.value is not None
            }
            for resource, future in futures.items()
        }

    def _settle(self, partitions: Mapping[str, int]) -> None:
        """Wait until the metadata shows a leader for that many partitions of each topic: a new topic is known to the
        broker that created it first, and to clients a moment later.
        """
        deadline = time.monotonic() + self._timeout_s
        waiting = dict(partitions)
        while waiting:
            futures = self._client.describe_topics(TopicCollection(list(waiting)), request_timeout=self._timeout_s)
            for name, future in futures.items():
                description = self._wait(future, f"describe topic {name}", missing=MISSING)
                if description is None or len(description.partitions) < waiting[name]:
                    continue
                if all(partition.leader is not None for partition in description.partitions) and self._led(
                    [TopicPartition(name, partition.id) for partition in description.partitions]
                ):
                    del waiting[name]
            if waiting and time.monotonic() > deadline:
                raise RetriableBrokerError(f"topics {', '.join(sorted(waiting))} were created, but have no leader yet")
            if waiting:
                time.sleep(LOOK_S)

    def _led(self, partitions: Sequence[TopicPartition]) -> bool:
        """Whether the leaders know that they lead. The metadata says so a moment earlier: the first question about a
        topic that was just created met NOT_LEADER_FOR_PARTITION.
        """
        asked = {KafkaTopicPartition(*partition): EARLIEST for partition in partitions}
        futures = self._client.list_offsets(asked, request_timeout=self._timeout_s)
        not_yet = MISSING | faults.RETRIABLE
        return all(self._wait(future, "list offsets", missing=not_yet) is not None for future in futures.values())

    def _wait(self, future: Future[Any], doing: str, missing: frozenset[int] = frozenset()) -> Any:
        """The result, or None for an error among `missing`."""
        deadline = min(time.monotonic() + self._timeout_s + 1.0, reach.until())
        refusals = self._watch.refusals
        while True:
            try:
                result = future.result(timeout=LOOK_S)
            except NotYet:
                self._look(doing, new=self._watch.refusals > refusals, overdue=time.monotonic() > deadline)
            except KafkaException as exception:
                error = faults.cause(exception)
                if error.code() in missing:
                    return None
                raise self._explained(error, doing) from exception
            else:
                self._watch.answered()
                return result

    def _look(self, doing: str, *, new: bool, overdue: bool) -> None:
        with self._polling:
            self._client.poll(0)
        # Only a new refusal ends the call at once: an old one may have been put right meanwhile.
        if new and self._watch.refused:
            raise faults.refused(self._watch.refused, self._bootstrap)
        if overdue:
            raise self._watch.reason(doing) or faults.away(doing, self._bootstrap)

    def _explained(self, error: KafkaError, doing: str) -> BrokerError:
        with self._polling:
            self._client.poll(0)
        if error.code() in faults.AWAY:
            return self._watch.reason(doing) or faults.away(doing, self._bootstrap)
        return faults.plain(error, doing, self._bootstrap)
