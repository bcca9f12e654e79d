"""The log as the rest of the package sees it. Kafka and the memory broker implement this, nothing more, nothing kinder.

Words and rules, before the first method:

*Visible.* A record is visible to a `read_committed` reader when its transaction has committed *and* no earlier
transaction of that partition is still open (last stable offset, LSO). A `read_uncommitted` reader sees everything,
aborted records included.

*Offsets have gaps*: transaction markers, aborted records, compacted and deleted records. `End` (end of partition) tells
the position a reader reached, past such gaps; committing it brings lag to zero.

*Membership* is the group metadata at one moment. `GroupConsumer` hands it to the listener on entering every assign
callback (empty ones too) and every revoke callback, never on lost. It is what `send_offsets` presents, and what fences:

- a membership older than the group's generation is refused (`AbortRequired`), also with unchanged offsets;
- that of a member that left or timed out is refused (`AbortRequired`);
- a predecessor with the same transactional id is refused (`ProducerFenced`);
- **not** refused: fresh membership for a partition that another member owns; a member that was never subscribed.
  The worker closes these holes, the log does not.

*Generation moves first*: when `on_revoked` runs, the group is already in the next generation; only the membership given
to that callback can still commit. `on_assigned` is called in every generation, with an empty list if nothing was added.
A hand-over takes two generations, and who gives nothing up hears of the second a heartbeat later: until then its newest
membership is refused, which is no sign of anything wrong.

*Leaving*: `close` of a dynamic member leaves at once; a static one keeps its partitions until its session ends.

*Refused records*: one record that can never be written dooms its transaction, watched or not: all later calls up to
`abort` raise `AbortRequired`. Only culprits are named in `Acks.failures`, never the records purged with them. A topic's
`max.message.bytes` judges whole batches of up to 1 MB: set below that, it refuses innocent records too.

*An open transaction* survives `close` and the death of its producer: only a successor's `init` or the timeout ends it,
and the timeout fences the producer (`ProducerFenced`).

*Committed offsets* of a partition with a pending transactional commit are unknown to a stable read until that
transaction ends; an unstable read returns the last finished commit. Of two offsets of a partition in one transaction
the later sent one counts. Too long metadata is `AbortRequired`. `Admin.commit` into a group with members is refused.

*Errors*: `RetriableBrokerError` and `BrokerUnavailable` -> the same call again (a commit is never aborted because it
timed out); `AbortRequired` -> abort, rebuild the producer, send again; `ProducerFatal` -> rebuild.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType, Protocol

from processor.errors import BrokerError

Headers = list[tuple[str, bytes]]
Membership = NewType("Membership", object)
"""Opaque group metadata of one moment."""

ANY_PARTITION = -1
"""Leave the partition to the partitioner: murmur2 of the key, as every Kafka client does it."""


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Isolation(StrEnum):
    """What a reader sees."""

    COMMITTED = "read_committed"
    UNCOMMITTED = "read_uncommitted"


class Record(Protocol):
    """A fetched record. Shaped as confluent_kafka.Message, so that the hot path converts nothing."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Headers | None: ...
    def timestamp(self) -> tuple[int, int]:
        """(type, milliseconds since the epoch); type 1 = set by the writer, 2 = by the broker."""
        ...


class OutRecord(NamedTuple):
    """A record to append. A `value` of None is a tombstone."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
    partition: int = ANY_PARTITION


class End(NamedTuple):
    """A reader reached the end of a partition at `offset` (the next one it would read, past markers)."""

    partition: TopicPartition
    offset: int


class PartitionFault(NamedTuple):
    """Reading one partition failed (for instance `OffsetOutOfRange`); the others go on."""

    partition: TopicPartition
    error: BrokerError


class Batch(NamedTuple):
    """What one fetch returned. Apply `records` before `ends`: no end lies past a record that was not delivered."""

    records: Sequence[Record]
    ends: Sequence[End]
    faults: Sequence[PartitionFault]


class Committed(NamedTuple):
    """A committed offset (None: there is none) and the text stored beside it."""

    offset: int | None
    metadata: str


class OffsetCommit(NamedTuple):
    """An offset to commit for a partition; `metadata` at most 4095 bytes."""

    partition: TopicPartition
    offset: int
    metadata: str = ""


class Failure(NamedTuple):
    """A record of a transaction that the broker refused."""

    record: OutRecord
    error: BrokerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Acks:
    """What the broker acknowledged of a transaction so far."""

    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)
    """Highest acknowledged offset of each partition that had a watched record."""
    failures: Sequence[Failure] = ()
    """Refused records, as far as they were watched."""


class RebalanceListener(Protocol):
    """Called inside `GroupConsumer.poll` and `unsubscribe`, on the polling thread. Must return within seconds."""

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None: ...
    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None: ...
    def on_lost(self, partitions: Sequence[TopicPartition]) -> None: ...


class GroupConsumer(Protocol):
    """Membership in a consumer group. It owns partitions; it does not read them (a `Reader` does)."""

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None: ...

    def poll(self, timeout: float) -> None:
        """Serve the group for up to `timeout` seconds; runs the listener's callbacks.

        Raises:
            MemberFenced: another process joined with this instance id; this one is over.
            BrokerRefused: not authorised.
        """
        ...

    def membership(self) -> Membership:
        """The group metadata of this very moment. Diagnostics and tests only: a flush never uses it."""
        ...

    def unsubscribe(self) -> None:
        """Leave for good, also as a static member; runs `on_revoked`. Poll until it has been served, then close."""
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """Reads partitions that its user chooses. Not thread-safe: one thread at a time."""

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """Add partitions, each read from the given offset."""
        ...

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop partitions; records of theirs that were prefetched are not delivered any more."""
        ...

    def pause(self, partitions: Iterable[TopicPartition]) -> None: ...
    def resume(self, partitions: Iterable[TopicPartition]) -> None: ...

    def fetch(self, limit: int, timeout: float) -> Batch:
        """Up to `limit` events; returns as soon as there are some, empty after `timeout` seconds (0: at once)."""
        ...

    def position(self, partition: TopicPartition) -> int:
        """The next offset to deliver; grows past markers and aborted records. Before the first fetch: the start."""
        ...

    def close(self) -> None: ...


class Producer(Protocol):
    """Appends with idempotence and all in-sync replicas. Thread-safe."""

    def append(self, record: OutRecord, on_delivery: Callable[[BrokerError | None], None] | None = None) -> None:
        """Hand a record over. `on_delivery(None)` once all in-sync replicas have it, else with the error; runs in
        `poll` or `flush`, or on a thread of the producer's. Waits while the local buffer is full.
        """
        ...

    def poll(self, timeout: float) -> None: ...

    def flush(self, timeout: float) -> int:
        """Wait for acknowledgements; how many records are still unacknowledged."""
        ...

    def close(self) -> None: ...


class BulkResult(NamedTuple):
    """How a flush of a bulk producer went."""

    left: int
    """Records that are not acknowledged yet: they may be written or not, and may still be sent."""
    refused: Sequence[tuple[OutRecord, BrokerError]] = ()
    """Records that were not written (their topic, key and value), and why."""


class BulkProducer(Protocol):
    """Appends many records with idempotence and all in-sync replicas, without a word about each that arrives: that
    costs as much as sending it. Used by one thread at a time.
    """

    def append(self, record: OutRecord) -> None:
        """Hand a record over; waits while the local buffer is full."""
        ...

    def flush(self, timeout: float) -> BulkResult:
        """Wait for acknowledgements of all that was appended since the last flush."""
        ...

    def close(self) -> None: ...


class TransactionalProducer(Protocol):
    """One transactional id. Used by one thread at a time. Every call may raise the errors of the module's docstring."""

    def init(self, timeout: float) -> None:
        """Fence predecessors and end what they left open. Once, before the first `begin`."""
        ...

    def begin(self) -> None: ...

    def append(self, records: Iterable[OutRecord], *, watch: bool = False) -> None:
        """Append to the open transaction. Watched records are reported by `wait_acks`; that costs about 2 us each."""
        ...

    def wait_acks(self, timeout: float) -> Acks:
        """Wait until everything appended was acknowledged or refused.

        Raises:
            RetriableBrokerError: not all acknowledged in time; call it again.
        """
        ...

    def send_offsets(
        self, offsets: Sequence[OffsetCommit], group: str, membership: Membership, timeout: float
    ) -> None: ...
    def commit(self, timeout: float) -> None: ...
    def abort(self, timeout: float) -> None: ...

    @property
    def disturbed(self) -> bool:
        """Whether any broker connection of this producer broke since `begin` (librdkafka issue #5423: a frame may still
        be on its way). The producer must then be rebuilt before the next `begin`.
        """
        ...

    def close(self) -> None:
        """Let go at once; waits for nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic as the cluster has it."""

    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A topic as we want it."""

    name: str
    partitions: int
    replication: int = -1
    """-1: the broker's default."""
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a group."""

    member_id: str
    instance_id: str | None
    client_id: str
    partitions: Sequence[TopicPartition] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """The cluster that answers."""

    cluster_id: str
    brokers: int


class Admin(Protocol):
    """Questions and changes outside the hot path. Thread-safe. Each call has a time limit and raises BrokerError."""

    def cluster(self) -> ClusterInfo: ...
    def topics(self, names: Iterable[str] | None = None, *, configs: bool = False) -> dict[str, TopicInfo]:
        """Existing topics, only those of `names` if given; missing ones are left out."""
        ...

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        """Create and wait until all brokers know them; an existing one is left as it is."""
        ...

    def add_partitions(self, topic: str, total: int) -> None: ...
    def set_topic_config(self, topic: str, config: Mapping[str, str]) -> None: ...

    def end_offsets(
        self, partitions: Iterable[TopicPartition], isolation: Isolation = Isolation.UNCOMMITTED
    ) -> dict[TopicPartition, int]:
        """True high watermarks (UNCOMMITTED) or last stable offsets (COMMITTED)."""
        ...

    def begin_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]: ...
    def offsets_at(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Offset of each partition's first record whose timestamp is at least so many milliseconds since the epoch;
        partitions without such a record are left out. All records of that time or later lie there or behind it.
        """
        ...

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None: ...

    def committed(
        self, group: str, partitions: Sequence[TopicPartition], *, stable: bool = True, timeout: float = 10.0
    ) -> dict[TopicPartition, Committed]:
        """Committed offsets of a group.

        Raises:
            RetriableBrokerError: `stable` was asked and a transaction on one of them is still pending after `timeout`.
        """
        ...

    def commit(self, group: str, offsets: Sequence[OffsetCommit]) -> None:
        """Set offsets of a group that has no members (operators' work, never the worker's)."""
        ...

    def members(self, group: str) -> list[Member]: ...


class Broker(Protocol):
    """A cluster, and the clients that speak to it."""

    def producer(self) -> Producer: ...
    def bulk_producer(self) -> BulkProducer: ...
    def transactional_producer(self, transactional_id: str) -> TransactionalProducer: ...
    def group_consumer(self, group: str, *, instance_id: str | None = None, peers: int = 1) -> GroupConsumer:
        """A new, not yet subscribed member of `group`, a static one if it has an `instance_id`. `peers`: how many such
        memberships this process has in all; with many of them each says less often that it is alive."""
        ...

    # `ahead_kbytes`: how much a reader may fetch ahead in all; None: as configured.
    def reader(self, *, isolation: Isolation = Isolation.COMMITTED, ahead_kbytes: int | None = None) -> Reader: ...
    def admin(self) -> Admin: ...
    @property
    def answers(self) -> bool:
        """Whether the cluster was heard of lately, as far as the clients made here know."""
        ...

    @property
    def trouble(self) -> str: ...  # why it was not, in a few words, with the address; empty if it was

    def close(self) -> None: ...
