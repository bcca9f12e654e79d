"""The queues of a namespace as operators see them, and setting where a queue goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from processor.admin.lag import LaneLag, queue_lag
from processor.admin.orders import Operator, orders_now
from processor.broker.base import Broker, Isolation, OffsetCommit, OutRecord, TopicPartition
from processor.client.orders import send
from processor.core.audit import SEEK, noted
from processor.core.control import ControlTable, why
from processor.errors import OrderRefused, SeekRefused
from processor.job import Lane
from processor.wire.groups import queue_group, slot_of
from processor.wire.records import AuditRecord, ControlRecord
from processor.wire.topics import jobs_topic


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """One queue, as a list shows it."""

    queue: str
    partitions: int
    waiting: Mapping[Lane, int]
    """Offsets that are not complete, by lane; an upper bound of the jobs."""
    workers: Sequence[str]
    """Slots that serve it."""
    unowned: int
    """Partitions that no worker owns."""
    paused: str
    """Why it rests, and by whom; empty: it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek:
    """Where one partition of a lane goes on."""

    place: TopicPartition
    before: int | None
    """The committed offset; None: there is none."""
    to: int
    waiting: int
    """Offsets from there on."""


def list_queues(broker: Broker, namespace: str, orders: ControlTable | None = None) -> list[QueueRow]:
    """All queues that have topics. `orders`: those that hold now, if they are known already.

    Raises:
        TopicMissing: there is no control topic.
    """
    lags: dict[str, list[LaneLag]] = {}
    for lag in queue_lag(broker, namespace):
        lags.setdefault(lag.queue, []).append(lag)
    table = orders_now(broker, namespace) if orders is None else orders
    return [_row(broker, namespace, queue, rows, table.queue_pause(queue)) for queue, rows in lags.items()]


def _row(broker: Broker, namespace: str, queue: str, lags: Sequence[LaneLag], pause: ControlRecord | None) -> QueueRow:
    waiting: dict[Lane, int] = {}
    for lag in lags:
        waiting[lag.lane] = waiting.get(lag.lane, 0) + lag.waiting
    members = broker.admin().members(queue_group(namespace, queue))
    partitions = sum(lag.lane is Lane.NORMAL for lag in lags)
    owned = {place for member in members for place in member.partitions}
    return QueueRow(
        queue=queue,
        partitions=partitions,
        waiting=waiting,
        workers=sorted(slot_of(member.instance_id) if member.instance_id else member.client_id for member in members),
        unowned=partitions - len(owned),
        paused="" if pause is None else why(pause),
    )


def plan_seek(
    broker: Broker, namespace: str, queue: str, to: str, *, lane: Lane = Lane.NORMAL, numbers: Sequence[int] = ()
) -> list[Seek]:
    """Where `seek` would set partitions of a lane.

    Args:
        broker: the cluster.
        namespace: whose queue.
        queue: its name.
        to: `begin`, `end`, or an offset.
        lane: which of its lanes.
        numbers: only these partitions; empty: all.

    Raises:
        UnknownQueue: there is no such queue.
        SeekRefused: a partition does not exist, or the offset is not in the log.
    """
    known = {lag.number: lag for lag in queue_lag(broker, namespace, [queue]) if lag.lane is lane}
    strange = sorted(set(numbers) - known.keys())
    if strange or not known:
        raise SeekRefused(
            f"queue {queue} has no partition {', '.join(map(str, strange))} in lane {lane}"
            if known
            else f"queue {queue} has no lane {lane}",
            hint=f"processor queue lag {queue}",
        )
    places = [TopicPartition(jobs_topic(namespace, queue, lane), number) for number in numbers or sorted(known)]
    admin = broker.admin()
    begins, ends = admin.begin_offsets(places), admin.end_offsets(places, Isolation.COMMITTED)
    committed = admin.committed(queue_group(namespace, queue), places)
    return [
        Seek(place=place, before=committed[place].offset, to=at, waiting=ends[place] - at)
        for place in places
        for at in (_offset(to, place, begins[place], ends[place]),)
    ]


def seek(broker: Broker, namespace: str, queue: str, plan: Sequence[Seek], who: Operator) -> None:
    """Set where a queue goes on: what lies before is not run, what lies behind runs (again).

    Raises:
        OrderRefused: workers serve the queue: stop them first.
        BrokerError: the cluster did not answer, or refuses.
    """
    group = queue_group(namespace, queue)
    members = broker.admin().members(group)
    if members:
        slots = ", ".join(sorted(slot_of(member.instance_id or member.client_id) for member in members))
        raise OrderRefused(
            f"workers serve queue {queue}: {slots}", hint="stop them first: they would go on where they are"
        )
    broker.admin().commit(group, [OffsetCommit(each.place, each.to) for each in plan])
    now = who.clock.now_ms()
    producer = broker.producer()
    try:
        records: list[OutRecord] = []
        for each in plan:
            detail = f"{each.place.topic}-{each.place.partition} from {each.before} to {each.to}"
            record = AuditRecord(SEEK, f"queue:{queue}", now, who.by, who.reason, detail=detail)
            records.append(noted(namespace, record))
        send(producer, records, who.timeout, f"the audit record of a seek of queue {queue}")
    finally:
        producer.close()


def _offset(to: str, place: TopicPartition, begin: int, end: int) -> int:
    if to == "begin":
        return begin
    if to == "end":
        return end
    if not to.isdecimal():
        raise SeekRefused(f"{to!r} is no place in a lane", hint="use begin, end or an offset")
    if not begin <= int(to) <= end:
        raise SeekRefused(
            f"{place.topic}-{place.partition} holds offsets {begin} to {end}, not {to}",
            hint="name the partitions it is meant for with --number",
        )
    return int(to)
