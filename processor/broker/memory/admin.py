"""Admin calls of the memory broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

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
from processor.broker.memory.cluster import Cluster, Process
from processor.broker.memory.log import Topic
from processor.errors import BrokerError, BrokerUnavailable, RetriableBrokerError

T = TypeVar("T")


class MemoryAdmin:
    """`base.Admin`."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process

    def cluster(self) -> ClusterInfo:
        return self._run("cluster", lambda: ClusterInfo(cluster_id="memory", brokers=1))

    def topics(self, names: Iterable[str] | None = None, *, configs: bool = False) -> dict[str, TopicInfo]:
        wanted = None if names is None else set(names)

        def step() -> dict[str, TopicInfo]:
            return {
                topic.name: TopicInfo(
                    partitions=len(topic.partitions),
                    replication=topic.replication,
                    config=dict(topic.config) if configs else {},
                )
                for topic in self._cluster.topics.values()
                if wanted is None or topic.name in wanted
            }

        return self._run("topics", step)

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        wanted = list(specs)

        def step() -> None:
            for spec in wanted:
                if spec.partitions < 1:
                    raise BrokerError(f"{spec.name} cannot have {spec.partitions} partitions")
                if spec.name not in self._cluster.topics:
                    replication = max(1, spec.replication)
                    self._cluster.topics[spec.name] = Topic(spec.name, spec.partitions, replication, spec.config)
                    self._cluster.topics_changed(spec.name)

        self._run("create_topics", step)

    def add_partitions(self, topic: str, total: int) -> None:
        def step() -> None:
            found = self._topic(topic)
            if total <= len(found.partitions):
                raise BrokerError(f"{topic} has {len(found.partitions)} partitions already; {total} is not more")
            found.add_partitions(total)
            self._cluster.topics_changed(topic)

        self._run("add_partitions", step)

    def set_topic_config(self, topic: str, config: Mapping[str, str]) -> None:
        self._run("set_topic_config", lambda: self._topic(topic).configure(config))

    def end_offsets(
        self, partitions: Iterable[TopicPartition], isolation: Isolation = Isolation.UNCOMMITTED
    ) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        return self._run("end_offsets", lambda: {p: self._cluster.log(p).end_for(isolation) for p in wanted})

    def begin_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        return self._run("begin_offsets", lambda: {p: self._cluster.log(p).start for p in wanted})

    def offsets_at(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        wanted = dict(times)

        def step() -> dict[TopicPartition, int]:
            found = {place: self._cluster.log(place).first_at(moment) for place, moment in wanted.items()}
            return {place: offset for place, offset in found.items() if offset is not None}

        return self._run("offsets_at", step)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        def step() -> None:
            for partition, offset in before.items():
                log = self._cluster.log(partition)
                if "delete" not in self._topic(partition.topic).cleanup:
                    raise BrokerError(f"POLICY_VIOLATION: {partition.topic} is compacted only")
                log.delete_before(offset)

        self._run("delete_records", step)

    def committed(
        self, group: str, partitions: Sequence[TopicPartition], *, stable: bool = True, timeout: float = 10.0
    ) -> dict[TopicPartition, Committed]:
        offsets = self._cluster.group(group).offsets

        def is_known() -> bool:
            return not self._cluster.plan.outage and not (stable and offsets.is_pending(partitions))

        planned = self._cluster.enter(self._process, "committed")
        found = self._cluster.until(
            self._process, lambda: offsets.committed(partitions) if is_known() else None, is_known, timeout
        )
        if found is None:
            raise RetriableBrokerError(f"committed offsets of {group} were not known within {timeout} s")
        if planned is not None:
            raise planned.error
        return found

    def commit(self, group: str, offsets: Sequence[OffsetCommit]) -> None:
        self._run("commit_admin", lambda: self._cluster.group(group).commit(offsets))

    def members(self, group: str) -> list[Member]:
        return self._run("members", self._cluster.group(group).members)

    def _topic(self, name: str) -> Topic:
        topic = self._cluster.topics.get(name)
        if topic is None:
            raise BrokerError(f"unknown topic {name}")
        return topic

    def _run(self, operation: str, step: Callable[[], T]) -> T:
        """Run one step as soon as a broker answers.

        Raises:
            BrokerUnavailable: none did in time.
        """
        planned = self._cluster.enter(self._process, operation)
        done = self._cluster.until(
            self._process,
            lambda: None if self._cluster.plan.outage else (step(),),
            lambda: not self._cluster.plan.outage,
            self._cluster.limits.admin_seconds,
        )
        if done is None:
            raise BrokerUnavailable("no broker answers")
        with self._cluster.lock:
            self._cluster.touch()
        if planned is not None:
            raise planned.error
        return done[0]
