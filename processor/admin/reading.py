"""Reading topics from outside: a stretch that ends, or a tail that goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from processor.broker.base import Admin, Broker, Isolation, PartitionFault, Reader, Record, TopicPartition
from processor.errors import BrokerUnavailable, OffsetOutOfRange, TopicMissing

_FETCH = 1000
_SLICE = 0.25
"""Seconds of one fetch."""
PATIENCE = 30.0
"""Seconds without a single event after which a stretch is given up."""


def partitions_of(broker: Broker, topics: Sequence[str]) -> list[TopicPartition]:
    """All partitions of some topics.

    Raises:
        TopicMissing: one of them does not exist.
    """
    found = broker.admin().topics(topics)
    missing = [topic for topic in topics if topic not in found]
    if missing:
        raise TopicMissing(f"{', '.join(missing)}: no such topic", hint="create it: processor topics apply")
    return [TopicPartition(topic, number) for topic in topics for number in range(found[topic].partitions)]


def read_to_end(
    broker: Broker,
    partitions: Sequence[TopicPartition],
    starts: Mapping[TopicPartition, int] | None = None,
    stops: Mapping[TopicPartition, int] | None = None,
) -> Iterator[Record]:
    """Every committed record that is there now, per partition in order; records that come meanwhile are left out.

    Args:
        partitions: what to read.
        starts: first offset wanted of a partition; without one, and where it was deleted, the oldest that is kept.
        stops: first offset not wanted of a partition.

    Raises:
        BrokerUnavailable: nothing came for 30 s.
    """
    admin = broker.admin()
    begins = admin.begin_offsets(partitions)
    ends = admin.end_offsets(partitions, Isolation.COMMITTED)
    ends = {place: min(end, (stops or {}).get(place, end)) for place, end in ends.items()}
    wanted = {place: max(begins[place], (starts or {}).get(place, 0)) for place in partitions}
    left = {place for place in partitions if wanted[place] < ends[place]}
    if not left:
        return
    reader = broker.reader(isolation=Isolation.COMMITTED)
    idle = 0.0
    try:
        reader.assign({place: wanted[place] for place in left})
        while left:
            batch = reader.fetch(_FETCH, _SLICE)
            for fault in batch.faults:
                _go_on(reader, admin, fault)
            for record in batch.records:
                place = _place(record)
                if (record.offset() or 0) < ends[place]:
                    yield record
            left -= {place for place in left if reader.position(place) >= ends[place]}
            idle = 0.0 if batch.records or batch.ends else idle + _SLICE
            if idle >= PATIENCE:
                raise BrokerUnavailable(f"{len(left)} partitions gave no record for {PATIENCE:.0f} s")
    finally:
        reader.close()


def tail(
    broker: Broker, topics: Sequence[str], *, count: int | None = None, from_start: bool = False, follow: bool = False
) -> Iterator[Record]:
    """Records of some topics: the last `count` of each partition or all, and then, with `follow`, whatever comes.

    Args:
        topics: names; all must exist.
        count: records before the end of each partition, counted by offsets (fewer where the log has gaps); None: all
            with `from_start`, else only new ones.
        from_start: begin at the oldest record that is kept.
        follow: go on for ever.
    """
    partitions = partitions_of(broker, topics)
    admin = broker.admin()
    ends = admin.end_offsets(partitions, Isolation.COMMITTED)
    begins = admin.begin_offsets(partitions)
    starts = {
        place: begins[place] if from_start else max(begins[place], ends[place] - (count or 0)) for place in partitions
    }
    yield from read_to_end(broker, partitions, starts, ends)  # what comes meanwhile follows
    if not follow:
        return
    reader = broker.reader(isolation=Isolation.COMMITTED)
    try:
        reader.assign(ends)
        while True:
            batch = reader.fetch(_FETCH, _SLICE)
            for fault in batch.faults:
                _go_on(reader, admin, fault)
            yield from batch.records
    finally:
        reader.close()


def _go_on(reader: Reader, admin: Admin, fault: PartitionFault) -> None:
    """What was about to be read was deleted meanwhile (queues delete what is done): go on with what is left.

    Raises:
        BrokerError: it is another fault.
    """
    if not isinstance(fault.error, OffsetOutOfRange):
        raise fault.error
    place = fault.partition
    reader.unassign([place])
    reader.assign({place: admin.begin_offsets([place])[place]})


def _place(record: Record) -> TopicPartition:
    return TopicPartition(record.topic() or "", record.partition() or 0)
