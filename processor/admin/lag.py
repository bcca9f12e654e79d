"""How much work waits in a queue: in its lanes, and as live jobs in its checkpoint topic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from processor.admin.reading import partitions_of, read_to_end
from processor.broker.base import Broker, Committed, Isolation, TopicPartition
from processor.core import offset_metadata
from processor.core.backlog import waiting
from processor.core.checkpoint import KeyKind, parse_key
from processor.core.live import LiveTable, LiveView
from processor.errors import RecordError, UnknownQueue
from processor.job import Lane
from processor.wire import codec, topics
from processor.wire.groups import queue_group
from processor.wire.records import CheckpointRecord, LiveJobRecord, StepRecord
from processor.wire.topics import TopicKind


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLag:
    """One partition of a lane."""

    queue: str
    lane: Lane
    number: int
    start: int
    """Next offset to complete: the committed one, else the oldest that is kept."""
    end: int
    """Offset behind the newest committed record."""
    done: tuple[tuple[int, int], ...]
    """Offsets above `start` that are complete already: first and last of each range."""
    slot: str
    """The slot that committed last; empty before the first commit."""
    epoch: int

    @property
    def waiting(self) -> int:
        """Offsets not complete; an upper bound of the jobs, since offsets have gaps."""
        return waiting(self.start, self.end, self.done)

    def is_done(self, offset: int) -> bool:
        """Whether the record at this offset is complete."""
        return offset < self.start or any(first <= offset <= last for first, last in self.done)


def queues_of(broker: Broker, namespace: str) -> dict[str, list[Lane]]:
    """The queues whose topics exist, each with its lanes."""
    found: dict[str, list[Lane]] = {}
    for topic in sorted(broker.admin().topics()):
        name = topics.parse_topic(topic)
        if name and name.namespace == namespace and name.kind is TopicKind.JOBS and name.queue and name.lane:
            found.setdefault(name.queue, []).append(name.lane)
    return found


def queues_named(broker: Broker, namespace: str, names: Iterable[str] | None) -> dict[str, list[Lane]]:
    """As `queues_of`, but only these; None: all.

    Raises:
        UnknownQueue: one of them has no topics.
    """
    lanes = queues_of(broker, namespace)
    wanted = list(lanes if names is None else names)
    for name in wanted:
        if name not in lanes:
            raise UnknownQueue(
                f"queue {name} has no topics in namespace {namespace}", hint=f"there are: {', '.join(lanes) or 'none'}"
            )
    return {name: lanes[name] for name in wanted}


def queue_lag(broker: Broker, namespace: str, queues: Iterable[str] | None = None) -> list[LaneLag]:
    """What waits in the lanes, per partition; of all queues if none are named.

    Raises:
        UnknownQueue: a named queue has no topics.
    """
    lanes = queues_named(broker, namespace, queues)
    names = list(lanes)
    wanted = [topics.jobs_topic(namespace, name, lane) for name in names for lane in lanes[name]]
    if not wanted:
        return []
    partitions = partitions_of(broker, wanted)
    admin = broker.admin()
    begins = admin.begin_offsets(partitions)
    ends = admin.end_offsets(partitions, Isolation.COMMITTED)
    committed: dict[TopicPartition, Committed] = {}
    for name in names:
        of_queue = {topics.jobs_topic(namespace, name, lane) for lane in lanes[name]}
        mine = [place for place in partitions if place.topic in of_queue]
        committed |= admin.committed(queue_group(namespace, name), mine, stable=False)
    rows = []
    for place in partitions:
        name_ = topics.parse_topic(place.topic)
        assert name_ is not None
        assert name_.queue is not None
        assert name_.lane is not None
        known = committed.get(place)
        offset = known.offset if known else None
        metadata = None if known is None or offset is None else offset_metadata.decode(known.metadata, offset)
        rows.append(
            LaneLag(
                queue=name_.queue,
                lane=name_.lane,
                number=place.partition,
                start=begins[place] if offset is None else max(offset, begins[place]),
                end=ends[place],
                done=tuple((first, last) for first, last in metadata.ranges) if metadata else (),
                slot=metadata.slot if metadata else "",
                epoch=metadata.epoch if metadata else 0,
            )
        )
    return rows


def live_jobs(
    broker: Broker, namespace: str, queue: str, *, job_id: str | None = None, number: int | None = None
) -> list[tuple[int, LiveView]]:
    """The jobs with records in the checkpoint topic, as (number, view); end marks included, see `LiveView.ended`.

    Args:
        broker: where to read.
        namespace: of the queue.
        queue: its name.
        job_id: only this job.
        number: only this partition.
    """
    topic = topics.checkpoints_topic(namespace, queue)
    places = [TopicPartition(topic, number)] if number is not None else partitions_of(broker, [topic])
    tables: dict[int, LiveTable] = {place.partition: LiveTable() for place in places}
    for record in read_to_end(broker, places):
        key = record.key() or b""
        try:
            parsed = parse_key(key)
            if job_id is not None and parsed.id != job_id:
                continue
            _fold(tables[record.partition() or 0], parsed.kind, key, record.value(), record.offset() or 0)
        except RecordError:
            # A worker holds such a number and raises an alarm; here the readable rest is still worth showing.
            continue
    return [
        (partition, view)
        for partition, table in tables.items()
        for id_ in table.ids()
        if (view := table.view(id_)) is not None
    ]


def _fold(table: LiveTable, kind: KeyKind, key: bytes, value: bytes | None, offset: int) -> None:
    if value is None:
        table.remove(key)
        return
    if kind is KeyKind.SIGNAL:
        table.put(key, value, offset)
        return
    record = codec.decode(value)
    if isinstance(record, (CheckpointRecord, StepRecord, LiveJobRecord)):
        table.put(key, value, offset, record)
