"""Schedules as operators see and change them: declared by code or by hand, paused, triggered, backfilled, removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from processor import events
from processor.admin.orders import Operator
from processor.admin.reading import partitions_of, read_to_end
from processor.broker.base import Broker, OutRecord, Producer
from processor.client.orders import send
from processor.core.audit import BACKFILL, PAUSE, REMOVE, RESUME, SCHEDULE, TRIGGER, noted
from processor.core.schedules import CLI, CODE, ScheduleTable, Standing, carried_on, instants, run_of, same_plan
from processor.errors import OrderRefused, RecordError, UnknownQueue
from processor.job import Job, Lane
from processor.job_ids import scheduled_id, uuid7
from processor.schedules import Schedule, refuse_unordered
from processor.states import State
from processor.texts import shown
from processor.wire import topics
from processor.wire.codec import decode_status, encode
from processor.wire.headers import routing_headers
from processor.wire.records import AuditRecord, ScheduleRecord

log = events.logger(__name__)

MOST = 10_000
"""Jobs of one backfill."""
CHUNK = 500
"""Jobs that are confirmed together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of one declaration of the code."""

    name: str
    what: str
    """`added`, `changed`, `as declared`, or `overridden`: the command line says something else, which wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """One instant of the past that is to be run."""

    instant: int
    """Milliseconds since the epoch."""
    job_id: str
    state: State | None
    """It has run already, or is known; None: it is to be started."""


def schedules_now(broker: Broker, namespace: str) -> ScheduleTable:
    """All schedules, and how far they are.

    Raises:
        TopicMissing: there is no schedules topic.
    """
    table = ScheduleTable()
    for record in read_to_end(broker, partitions_of(broker, [topics.schedules_topic(namespace)])):
        try:
            table.apply(record.key(), record.value())
        except RecordError:
            # One of a newer version must not hide the others.
            continue
    return table


def schedule_named(broker: Broker, namespace: str, name: str) -> Standing:
    """One schedule.

    Raises:
        OrderRefused: there is none of that name.
    """
    found = schedules_now(broker, namespace).standings
    if name not in found:
        raise OrderRefused(
            f"there is no schedule {shown(name, 60)} in namespace {namespace}",
            hint=(f"there are: {', '.join(sorted(found))}" if found else "processor schedule add makes one")
            + "; what the code declares is there once a worker has started",
        )
    return found[name]


# --- declaring --------------------------------------------------------------------------------------------------------


def apply_schedules(
    broker: Broker, namespace: str, declared: Iterable[Schedule], who: Operator, *, max_bytes: int = 1_000_000
) -> list[Applied]:
    """Write what the code declares and the topic does not say yet. A worker does it when it starts.

    A pause stays: it is the operator's. So does a schedule that was added by hand under the same name.

    Raises:
        PayloadInvalid, PayloadTooLarge, DefinitionError: a declaration makes no sense; nothing is written.
        BrokerError: it was not confirmed; doing it again is harmless.
    """
    now = who.clock.now_ms()
    wanted = [schedule.record(now_ms=now, by=who.by, max_bytes=max_bytes) for schedule in declared]
    if not wanted:
        return []
    known = schedules_now(broker, namespace).standings
    applied, written = [], []
    for record in wanted:
        before = known[record.name].plan if record.name in known else None
        if before is None:
            applied.append(Applied(name=record.name, what="added"))
            written.append(record)
        elif before.source == CLI:
            applied.append(Applied(name=record.name, what="overridden"))
            log.warning("schedule.overridden", extra={"schedule": record.name, "by": before.by})
        elif same_plan(before._replace(paused=False), record):
            applied.append(Applied(name=record.name, what="as declared"))
        else:
            applied.append(Applied(name=record.name, what="changed"))
            written.append(carried_on(before, record))
    if written:
        _write(broker, namespace, written, who)
    return applied


def add_schedule(broker: Broker, namespace: str, record: ScheduleRecord, who: Operator) -> ScheduleRecord | None:
    """Add a schedule by hand, or change one; what stood there before, if anything. A pause of it stays.

    Raises:
        UnknownQueue: its queue has no topics.
        DefinitionError: its runs cannot queue up in this queue.
        BrokerError: it was not confirmed; doing it again is harmless.
    """
    refuse_unordered(record.name, record.overlap, record.queue, _lanes(broker, namespace, record.queue))
    known = schedules_now(broker, namespace).standings.get(record.name)
    before = None if known is None else known.plan
    _write(broker, namespace, [record if before is None else carried_on(before, record)], who)
    return before


def remove_schedule(
    broker: Broker, namespace: str, name: str, declared: Schedule | None, who: Operator, max_bytes: int = 1_000_000
) -> ScheduleRecord | None:
    """Remove a schedule. One that was added by hand over a declaration of the code gives way to that: what holds now.

    Raises:
        OrderRefused: there is none.
        BrokerError: it was not confirmed; doing it again is harmless.
    """
    standing = schedule_named(broker, namespace, name)
    _audit(broker, namespace, REMOVE, name, who)
    if declared is not None and standing.plan.source == CLI:
        record = declared.record(now_ms=who.clock.now_ms(), by=who.by, max_bytes=max_bytes)
        record = carried_on(standing.plan, record)
        _put(broker, namespace, [record], who)
        return record
    with _producer(broker) as producer:
        send(producer, [_record(namespace, name, None)], who.timeout, f"the removal of schedule {name}")
    return None


def pause_schedule(broker: Broker, namespace: str, name: str, who: Operator) -> None:
    """Let a schedule rest: its instants pass without being fired, and are not caught up.

    Raises:
        OrderRefused: there is none, or it rests already.
        BrokerError: it was not confirmed; doing it again is harmless.
    """
    plan = schedule_named(broker, namespace, name).plan
    if plan.paused:
        raise OrderRefused(f"schedule {name} is paused already", hint=f"processor schedule resume {name}")
    _audit(broker, namespace, PAUSE, name, who)
    _put(broker, namespace, [plan._replace(paused=True, at=who.clock.now_ms(), by=who.by, reason=who.reason)], who)


def resume_schedule(broker: Broker, namespace: str, name: str, who: Operator) -> None:
    """Let a paused schedule go on, with the next instant.

    Raises:
        OrderRefused: there is none, or it is not paused.
        BrokerError: it was not confirmed; doing it again is harmless.
    """
    plan, now = schedule_named(broker, namespace, name).plan, who.clock.now_ms()
    if not plan.paused:
        raise OrderRefused(f"schedule {name} is not paused", hint="processor schedule list shows what is")
    _audit(broker, namespace, RESUME, name, who)
    _put(broker, namespace, [plan._replace(paused=False, since=now, at=now, by=who.by, reason=who.reason)], who)


# --- running ----------------------------------------------------------------------------------------------------------


def trigger(broker: Broker, namespace: str, name: str, who: Operator) -> str:
    """Start a job of a schedule now, beside its instants and whatever else of it runs; the job's id.

    Raises:
        OrderRefused: there is none.
        UnknownQueue: its queue has no topics.
        BrokerError: it was not confirmed; perhaps it is there.
    """
    plan, now = schedule_named(broker, namespace, name).plan, who.clock.now_ms()
    _lanes(broker, namespace, plan.queue)
    job = run_of(plan, uuid7(now), now)
    _audit(broker, namespace, TRIGGER, name, who, job_id=job.id)
    with _producer(broker) as producer:
        send(producer, [_job_record(namespace, job)], who.timeout, f"job {job.id} of schedule {name}")
    return job.id


def plan_backfill(broker: Broker, namespace: str, name: str, since: int, until: int) -> list[Backfill]:
    """The instants of a schedule in a stretch of the past (`since` <= instant < `until`, milliseconds), and which of
    them have run.

    Raises:
        OrderRefused: there is none, or there are too many, or the scheduler is not past them yet.
    """
    standing = schedule_named(broker, namespace, name)
    found = list(islice((at for at in _within(standing.plan, since, until)), MOST + 1))
    if len(found) > MOST:
        raise OrderRefused(f"that is more than {MOST:,} jobs", hint="backfill a shorter stretch, then the next")
    if found and found[-1] > standing.after:
        raise OrderRefused(
            "the end of the stretch is not over: what comes after the last instant that was dealt with is fired anyway",
            hint="end it earlier: processor schedule list shows how far the schedule is",
        )
    ids = {scheduled_id(name, at): at for at in found}
    states = _states(broker, namespace, ids)
    return [Backfill(instant=at, job_id=job_id, state=states.get(job_id)) for job_id, at in ids.items()]


def backfill(
    broker: Broker,
    namespace: str,
    name: str,
    chosen: Sequence[Backfill],
    who: Operator,
    tick: Callable[[int], None] = lambda steps: None,
) -> None:
    """Start the jobs of past instants. Each has the id of its instant, so doing it again runs none twice within the
    dedupe window.

    Raises:
        OrderRefused, UnknownQueue: there is none, or its queue has no topics.
        BrokerError: some were not confirmed; doing it again is harmless.
    """
    plan = schedule_named(broker, namespace, name).plan
    _lanes(broker, namespace, plan.queue)
    _audit(broker, namespace, BACKFILL, name, who, detail=f"{len(chosen)} jobs")
    now = who.clock.now_ms()
    with _producer(broker) as producer:
        for start in range(0, len(chosen), CHUNK):
            part = chosen[start : start + CHUNK]
            records = [_job_record(namespace, run_of(plan, each.job_id, now), derived=True) for each in part]
            send(producer, records, who.timeout, f"the backfill of schedule {name}")
            tick(len(part))


# --- inside -----------------------------------------------------------------------------------------------------------


def _within(plan: ScheduleRecord, since: int, until: int) -> Iterator[int]:
    for at in instants(plan, since - 1):
        if at >= until:
            return
        yield at


def _states(broker: Broker, namespace: str, ids: dict[str, int]) -> dict[str, State]:
    """Where jobs stand, as far as the status topic tells."""
    found: dict[str, State] = {}
    if not ids:
        return found
    places = partitions_of(broker, [topics.status_topic(namespace)])
    from_ms = min(ids.values()) - 60_000
    starts = broker.admin().offsets_at(dict.fromkeys(places, from_ms))
    ends = broker.admin().end_offsets(places)
    for record in read_to_end(broker, places, {place: starts.get(place, ends[place]) for place in places}):
        job_id, value = (record.key() or b"").decode("utf-8", "replace"), record.value()
        if job_id not in ids or value is None:
            continue
        try:
            found[job_id] = decode_status(value).state
        except RecordError:
            continue
    return found


def _lanes(broker: Broker, namespace: str, queue: str) -> tuple[Lane, ...]:
    topics.check_name(queue, "queue")
    names = {topics.jobs_topic(namespace, queue, lane): lane for lane in Lane}
    found = broker.admin().topics(list(names))
    if topics.jobs_topic(namespace, queue) not in found:
        raise UnknownQueue(
            f"queue {queue} has no topics in namespace {namespace}", hint="processor queue list shows the queues"
        )
    return tuple(lane for name, lane in names.items() if name in found)


def _write(broker: Broker, namespace: str, records: Sequence[ScheduleRecord], who: Operator) -> None:
    for record in records:
        if record.source != CODE:
            _audit(broker, namespace, SCHEDULE, record.name, who)
    _put(broker, namespace, records, who)


def _put(broker: Broker, namespace: str, records: Sequence[ScheduleRecord], who: Operator) -> None:
    with _producer(broker) as producer:
        out = [_record(namespace, record.name, encode(record)) for record in records]
        send(producer, out, who.timeout, f"schedule {', '.join(record.name for record in records)}")


def _audit(
    broker: Broker, namespace: str, action: str, name: str, who: Operator, *, job_id: str = "", detail: str = ""
) -> None:
    # Asked for first: a producer waits long for a topic that does not exist.
    partitions_of(broker, [topics.schedules_topic(namespace), topics.audit_topic(namespace)])
    record = AuditRecord(
        action, f"schedule:{name}", who.clock.now_ms(), who.by, who.reason, job_id, 1 if job_id else 0, detail
    )
    with _producer(broker) as producer:
        send(producer, [noted(namespace, record)], who.timeout, f"the audit record of schedule {name}")


def _record(namespace: str, name: str, value: bytes | None) -> OutRecord:
    return OutRecord(topics.schedules_topic(namespace), name.encode(), value)


def _job_record(namespace: str, job: Job, *, derived: bool = False) -> OutRecord:
    key = (job.id if job.key is None else job.key).encode()
    return OutRecord(topics.jobs_topic(namespace, job.queue), key, encode(job), routing_headers(job, derived=derived))


@contextmanager
def _producer(broker: Broker) -> Iterator[Producer]:
    producer = broker.producer()
    try:
        yield producer
    finally:
        producer.close()
