"""Names, clients and short questions of one scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from processor.broker.base import (
    Admin,
    Broker,
    Committed,
    End,
    GroupConsumer,
    Isolation,
    Membership,
    OffsetCommit,
    OutRecord,
    PartitionFault,
    Reader,
    Record,
    TopicPartition,
    TopicSpec,
    TransactionalProducer,
)
from processor.errors import BrokerUnavailable, RetriableBrokerError
from tests.contract.harness import Harness
from tests.waiting import eventually

PATIENCE_S = 20.0


class Closable(Protocol):
    """Anything that a scenario opens."""

    def close(self) -> None: ...


class Member:
    """A group member that writes down what it is told."""

    def __init__(self, consumer: GroupConsumer) -> None:
        self.consumer = consumer
        self.owned: set[TopicPartition] = set()
        self.calls: list[tuple[str, tuple[TopicPartition, ...]]] = []
        self.snapshot: Membership | None = None
        """The membership of the last callback that handed one over."""
        self.during_revoke: Callable[[Sequence[TopicPartition], Membership], None] | None = None

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self.calls.append(("assigned", tuple(partitions)))
        self.owned |= set(partitions)
        self.snapshot = membership

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self.calls.append(("revoked", tuple(partitions)))
        if self.during_revoke is not None:
            self.during_revoke(partitions, membership)
        self.owned -= set(partitions)
        self.snapshot = membership

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("lost", tuple(partitions)))
        self.owned -= set(partitions)

    @property
    def membership(self) -> Membership:
        """The membership that this member may commit with."""
        assert self.snapshot is not None
        return self.snapshot

    def times(self, call: str) -> int:
        """How often a callback ran."""
        return sum(1 for name, _ in self.calls if name == call)


class Reading:
    """What a reader delivered so far."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.records: list[Record] = []
        self.ends: list[End] = []
        self.faults: list[PartitionFault] = []

    def step(self, timeout: float = 0.1, limit: int = 500) -> None:
        """Fetch once."""
        batch = self.reader.fetch(limit, timeout)
        self.records += batch.records
        self.ends += batch.ends
        self.faults += batch.faults

    def values(self) -> list[bytes | None]:
        """Values in the order of delivery."""
        return [record.value() for record in self.records]

    def end(self, partition: TopicPartition) -> int | None:
        """The last end told of a partition."""
        return next((end.offset for end in reversed(self.ends) if end.partition == partition), None)


class Scene:
    """One scenario's cluster."""

    def __init__(self, harness: Harness, unique: str) -> None:
        self.harness = harness
        self.broker: Broker = harness.broker
        self.admin: Admin = harness.broker.admin()
        self.name = unique
        self.group = f"{unique}-group"
        self._open: list[Closable] = []

    def topic(self, suffix: str = "t", partitions: int = 1, **config: str) -> str:
        """A new topic; `min_x="1"` sets `min.x`."""
        name = f"{self.name}.{suffix}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.admin.create_topics([TopicSpec(name=name, partitions=partitions, replication=1, config=settings)])
        return name

    def append(self, *records: OutRecord) -> None:
        """Append outside of transactions, and wait."""
        producer = self.broker.producer()
        for record in records:
            producer.append(record)
        assert producer.flush(PATIENCE_S) == 0
        producer.close()

    def fill(self, partition: TopicPartition, *values: bytes) -> None:
        """Append values to one partition."""
        self.append(*(OutRecord(partition.topic, None, value, None, partition.partition) for value in values))

    def writer(self, transactional_id: str, broker: Broker | None = None) -> TransactionalProducer:
        """An initialised transactional producer."""
        producer = (broker or self.broker).transactional_producer(f"{self.name}-{transactional_id}")
        self._open.append(producer)
        until_done(lambda: producer.init(PATIENCE_S))
        return producer

    def reading(
        self, *partitions: TopicPartition, isolation: Isolation = Isolation.COMMITTED, start: int = 0
    ) -> Reading:
        """A reader of these partitions."""
        reader = self.broker.reader(isolation=isolation)
        self._open.append(reader)
        reader.assign(dict.fromkeys(partitions, start))
        return Reading(reader)

    def read(self, partition: TopicPartition, isolation: Isolation = Isolation.COMMITTED) -> list[bytes | None]:
        """All values that are visible now."""
        reading = self.reading(partition, isolation=isolation)
        target = self.admin.end_offsets([partition], isolation)[partition]
        eventually(lambda: reading.reader.position(partition) >= target, step=reading.step, message="read to the end")
        return reading.values()

    def becomes_visible(self, partition: TopicPartition, *values: bytes) -> None:
        """Wait until exactly these values are visible."""
        eventually(lambda: self.read(partition) == list(values), message=lambda: f"saw {self.read(partition)}")

    def member(self, topics: Sequence[str], *, instance: str | None = None, broker: Broker | None = None) -> Member:
        """A member that has subscribed and not polled yet."""
        member = Member((broker or self.broker).group_consumer(self.group, instance_id=instance))
        self._open.append(member.consumer)
        member.consumer.subscribe(topics, member)
        return member

    def serve(self, members: Iterable[Member], until: Callable[[], object], message: str = "") -> None:
        """Poll these members until something is true."""
        polled = list(members)

        def step() -> None:
            for member in polled:
                member.consumer.poll(0.02)

        def told() -> str:
            return f"{message}; callbacks: {[member.calls for member in polled]}"

        eventually(until, PATIENCE_S, told, step=step)

    def settle(self, members: Iterable[Member]) -> None:
        """Poll until nobody is told anything more: one member hears of a generation a moment before the others."""
        polled = list(members)

        def is_quiet() -> bool:
            before = [len(member.calls) for member in polled]
            for member in polled:
                member.consumer.poll(0.1)
            return before == [len(member.calls) for member in polled]

        eventually(is_quiet, PATIENCE_S, lambda: f"callbacks: {[member.calls for member in polled]}")

    def committed(self, partition: TopicPartition, *, stable: bool = True) -> Committed:
        """What the group has committed for a partition."""
        return self.admin.committed(self.group, [partition], stable=stable)[partition]

    def send(
        self, writer: TransactionalProducer, partition: TopicPartition, offset: int, membership: Membership
    ) -> None:
        """Commit one offset in a transaction of its own."""
        writer.begin()
        self.offset(writer, partition, offset, membership)
        self.commit(writer)

    def offset(
        self, writer: TransactionalProducer, partition: TopicPartition, offset: int, membership: Membership
    ) -> None:
        """Send one offset to the open transaction."""
        commits = [OffsetCommit(partition, offset)]
        until_done(lambda: writer.send_offsets(commits, self.group, membership, PATIENCE_S))

    def commit(self, writer: TransactionalProducer) -> None:
        """Commit the open transaction."""
        until_done(lambda: writer.commit(PATIENCE_S))

    def abort(self, writer: TransactionalProducer) -> None:
        """Abort the open transaction."""
        until_done(lambda: writer.abort(PATIENCE_S))

    def close(self) -> None:
        """Close what was opened."""
        for thing in reversed(self._open):
            thing.close()


def until_done(call: Callable[[], None]) -> None:
    """What callers do about retriable errors: the same call again."""

    def done() -> bool:
        try:
            call()
        except (RetriableBrokerError, BrokerUnavailable):
            return False
        return True

    eventually(done, PATIENCE_S, "the call went through")
