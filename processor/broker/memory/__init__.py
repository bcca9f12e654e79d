"""A whole Kafka cluster inside one process: for tests, simulation and the Testbed. It is as unkind as the real one.

    broker = MemoryBroker(clock)
    worker = broker.process("worker-1")     a `Broker` whose clients live and die together
    worker.kill()                           SIGKILL: no more heartbeats, its open transaction stays open
    broker.faults.hold_next("slot-1", Frame.COMMIT)

It rebalances in two steps, hides open transactions, fences as measured on Kafka 4.4 (and leaves the same holes),
compacts, deletes, and delivers frames late. `tests/contract` runs the same scenarios on it and on a real broker.

What it does not have: replication, prefetching (a reader sees a `delete_records` at once), record batches (a record
that is too large fails alone), a delay between a change and those who hear of it (heartbeats, metadata).
"""

from __future__ import annotations

from collections.abc import Iterable

from processor.broker.base import Isolation, Record, TopicPartition
from processor.broker.memory.admin import MemoryAdmin
from processor.broker.memory.cluster import Cluster, MemoryLimits, Process
from processor.broker.memory.consumer import MemoryGroupConsumer, MemoryReader
from processor.broker.memory.faults import Frame, HeldFrame, HeldMarkers, PlannedError, ProcessKilled
from processor.broker.memory.producer import MemoryBulkProducer, MemoryProducer, MemoryTransactionalProducer
from processor.broker.memory.wait import AdvancingWait, ThreadWait, WaitFor
from processor.clock import Clock, SystemClock
from processor.errors import BrokerError

__all__ = [
    "AdvancingWait",
    "Faults",
    "Frame",
    "HeldFrame",
    "HeldMarkers",
    "MemoryBroker",
    "MemoryLimits",
    "MemoryProcess",
    "ProcessKilled",
    "ThreadWait",
    "WaitFor",
]


class MemoryProcess:
    """`base.Broker` as one operating system process sees it; what it makes dies with it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._process = Process(name)
        self._members: list[MemoryGroupConsumer] = []

    @property
    def name(self) -> str:
        return self._process.name

    def producer(self) -> MemoryProducer:
        return MemoryProducer(self._cluster, self._process)

    def bulk_producer(self) -> MemoryBulkProducer:
        return MemoryBulkProducer(self.producer())

    def transactional_producer(self, transactional_id: str) -> MemoryTransactionalProducer:
        return MemoryTransactionalProducer(self._cluster, self._process, transactional_id)

    def group_consumer(self, group: str, *, instance_id: str | None = None, peers: int = 1) -> MemoryGroupConsumer:
        del peers  # a heartbeat costs nothing here
        member = MemoryGroupConsumer(self._cluster, self._process, group, instance_id)
        self._members.append(member)
        return member

    def reader(self, *, isolation: Isolation = Isolation.COMMITTED, ahead_kbytes: int | None = None) -> MemoryReader:
        del ahead_kbytes  # nothing is fetched ahead here
        return MemoryReader(self._cluster, self._process, isolation)

    def admin(self) -> MemoryAdmin:
        return MemoryAdmin(self._cluster, self._process)

    @property
    def answers(self) -> bool:
        return not self._process.frozen

    @property
    def trouble(self) -> str:
        return "" if self.answers else "this process is frozen"

    def close(self) -> None:
        """Close the members that are still open; the log stays."""
        members, self._members = self._members, []
        for member in members:
            if not member.client.closed and not self._process.killed:
                member.close()

    def kill(self) -> None:
        """SIGKILL. Every call of its clients raises `ProcessKilled` from now on, waiting ones too.

        What was appended lies in the log already, unless `faults.buffer_appends` kept it in the dead process.
        """
        with self._cluster.lock:
            self._cluster.tick()
            self._process.killed = True
            self._cluster.touch()

    def freeze(self) -> None:
        """SIGSTOP. No heartbeats; calls of its clients wait until it is thawed."""
        with self._cluster.lock:
            self._cluster.tick()
            self._process.frozen = True
            self._cluster.touch()

    def thaw(self) -> None:
        """SIGCONT."""
        with self._cluster.lock:
            # What fell due while it was frozen comes before its next heartbeat.
            self._cluster.tick()
            self._process.frozen = False
            self._cluster.touch()


class Faults:
    """How a test makes things go wrong."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def hold_next(self, transactional_id: str, frame: Frame) -> HeldFrame:
        """Delay the next such request of a producer; `release` lets it arrive.

        The call itself succeeds, by a second sending on a new connection, and the producer is `disturbed`.
        """
        with self._cluster.lock:
            held = HeldFrame()
            self._cluster.plan.frames[(transactional_id, frame)] = held
            return held

    def hold_markers(self, transactional_id: str) -> HeldMarkers:
        """The next commit or abort is answered before its markers are written, as Kafka does it for a moment: records
        stay invisible and offsets pending, the next transaction of the id waits, until `release`.
        """
        with self._cluster.lock:
            held = HeldMarkers()
            self._cluster.plan.markers[transactional_id] = held
            return held

    def fail_next(
        self,
        operation: str,
        error: BrokerError,
        *,
        after: bool = False,
        process: str | None = None,
        transactional_id: str | None = None,
        times: int = 1,
    ) -> None:
        """The next calls named `operation` raise `error`, before or `after` taking effect.

        The name is that of the method; only `Admin.commit` is "commit_admin" and `Producer.poll` "poll_producer".
        """
        with self._cluster.lock:
            self._cluster.plan.errors.append(
                PlannedError(
                    operation=operation,
                    error=error,
                    after=after,
                    process=process,
                    transactional_id=transactional_id,
                    times=times,
                )
            )

    def outage(self, on: bool) -> None:
        """No broker answers: calls wait as long as they may. Nothing is lost; sessions begin anew when it is over."""
        with self._cluster.lock:
            self._cluster.set_outage(on)

    def buffer_appends(self, on: bool) -> None:
        """Producers keep what is appended to themselves until they flush, wait for acks or commit; a kill loses it."""
        with self._cluster.lock:
            self._cluster.plan.buffer_appends = on

    def refuse(self, topic: str, on: bool = True) -> None:
        """Records for this topic are refused, as if none of them could ever be written."""
        with self._cluster.lock:
            self._cluster.plan.refused_topics.discard(topic)
            if on:
                self._cluster.plan.refused_topics.add(topic)

    def freeze(self, member: MemoryGroupConsumer) -> None:
        """This member alone sends no heartbeats any more and hears nothing."""
        with self._cluster.lock:
            self._cluster.tick()
            member.client.frozen = True
            self._cluster.touch()

    def thaw(self, member: MemoryGroupConsumer) -> None:
        with self._cluster.lock:
            self._cluster.tick()
            member.client.frozen = False
            self._cluster.touch()

    def forget_offsets(self, group: str, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Committed offsets expire: all of the group's, or those of some partitions."""
        with self._cluster.lock:
            self._cluster.group(group).offsets.forget(partitions)


class MemoryBroker(MemoryProcess):
    """The cluster, and the view of a first process named "main"."""

    def __init__(
        self, clock: Clock | None = None, wait: WaitFor | None = None, *, limits: MemoryLimits | None = None
    ) -> None:
        super().__init__(Cluster(clock or SystemClock(), wait, limits or MemoryLimits()), "main")
        self.faults = Faults(self._cluster)

    def process(self, name: str) -> MemoryProcess:
        """A process of its own. A restarted one is a new one; the name only names it."""
        return MemoryProcess(self._cluster, name)

    def records(self, topic: str, isolation: Isolation = Isolation.COMMITTED) -> list[Record]:
        """Every record of a topic that a reader sees now, by partition and offset."""
        with self._cluster.lock:
            self._cluster.tick()
            logs = self._cluster.topics[topic].partitions
            return [record for log in logs for record in log.records(isolation)]

    def compact(self, topic: str, *, drop_tombstones: bool = False) -> None:
        """Let the cleaner run up to the last stable offset.

        Tombstones go only when asked, as if delete.retention.ms had passed.
        """
        with self._cluster.lock:
            for log in self._cluster.topics[topic].partitions:
                log.compact(drop_tombstones=drop_tombstones)

    def expire(self, topic: str) -> None:
        """Let retention run: drop what is older than the topic's retention.ms, if its cleanup policy deletes at all."""
        with self._cluster.lock:
            found = self._cluster.topics[topic]
            keep_ms = int(found.setting("retention.ms"))
            if keep_ms < 0 or "delete" not in found.cleanup:
                return
            for log in found.partitions:
                log.expire_before(self._cluster.clock.now_ms() - keep_ms)
