"""What keeps a job from running: the facts, out of the log, the group and the orders; `core.why` judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from processor.admin.jobs import JobRow, job_status, list_jobs, saved_progress
from processor.admin.lag import LaneLag, queue_lag
from processor.admin.orders import orders_now
from processor.admin.reading import read_to_end
from processor.broker.base import Broker, TopicPartition
from processor.core import offset_metadata
from processor.core.checkpoint import KeyKind, parse_key
from processor.core.control import why
from processor.core.failures import brief
from processor.core.why import JobFacts
from processor.errors import RecordError, TopicMissing, UnknownQueue
from processor.job import Job, Lane
from processor.states import TERMINAL, State
from processor.wire import codec, topics
from processor.wire.groups import queue_group, slot_of
from processor.wire.json_job import completed
from processor.wire.records import LiveJobRecord, StatusRecord

_REDRIVEN = (State.DEAD, State.KILLED)
"""Ends after which a new life of the same id may wait in a lane."""


class _Place(NamedTuple):
    """Where a job waits in a lane."""

    lag: LaneLag
    offset: int
    job: Job


def facts_of(broker: Broker, namespace: str, job_id: str, now_ms: int) -> JobFacts:
    """Everything that `core.why.reasons` wants to know of a job.

    It reads the unfinished part of its queue's lanes, and of all queues if nothing else is known of the job: for a
    person at a terminal.

    Args:
        broker: where to read.
        namespace: whose job.
        job_id: the job.
        now_ms: milliseconds since the epoch.

    Raises:
        BrokerError: the cluster does not answer.
    """
    status = job_status(broker, namespace, job_id)
    row = None if status is not None else _unstarted(broker, namespace, job_id)
    if status is None and row is None:
        status = job_status(broker, namespace, job_id)  # it may have left its lane while that was read
    if status is not None:
        facts = _of_status(status, now_ms)
    elif row is not None:
        facts = _of_row(row, now_ms)
    else:
        return JobFacts(id=job_id, now=now_ms, state=None)
    place = _place(broker, namespace, facts) if _may_wait_in_a_lane(facts) else None
    if place is not None:
        facts = _in_lane(facts, place)
    if facts.state in TERMINAL:
        return facts
    facts = _with_parking(broker, namespace, facts)
    facts = _with_orders(broker, namespace, facts, 1 if status is None else status.life)
    facts = _with_workers(broker, namespace, facts)
    return facts if place is None else _with_key(broker, namespace, facts, place)


def _unstarted(broker: Broker, namespace: str, job_id: str) -> JobRow | None:
    for state in (State.QUEUED, State.SCHEDULED):
        for row in list_jobs(broker, namespace, states=frozenset({state}), limit=2**63 - 1):
            if row.id == job_id:
                return row
    return None


def _of_row(row: JobRow, now_ms: int) -> JobFacts:
    number = row.place.partition if row.place is not None and row.state is State.QUEUED else None
    return JobFacts(
        id=row.id,
        now=now_ms,
        state=row.state,
        type=row.type,
        queue=row.queue,
        since=row.at,
        attempt=row.attempt,
        due_at=row.due_at,
        kill_at=row.kill_at,
        number=number,
    )


def _of_status(status: StatusRecord, now_ms: int) -> JobFacts:
    error = None if status.error is None else brief(status.error)
    return JobFacts(
        id=status.id,
        now=now_ms,
        state=status.state,
        type=status.type,
        queue=status.queue,
        since=status.at,
        worker=status.worker,
        note=status.note or "",
        error="" if error is None else f"{error.kind}: {error.message}".partition("\n")[0],
        attempt=status.attempt,
        due_at=status.due_at,
        kill_at=status.kill_at,
        number=status.number,
    )


def _may_wait_in_a_lane(facts: JobFacts) -> bool:
    if facts.state is State.RETRYING:
        return facts.due_at is None or facts.due_at <= facts.now
    return facts.state is State.QUEUED or facts.state in _REDRIVEN


def _place(broker: Broker, namespace: str, facts: JobFacts) -> _Place | None:
    """Where it waits in a lane of its queue; None: it does not."""
    try:
        lags = queue_lag(broker, namespace, [facts.queue])
    except UnknownQueue:
        return None
    if facts.number is not None:
        lags = [lag for lag in lags if lag.number == facts.number]
    for lag, offset, job in _undone(broker, namespace, lags):
        if job.id == facts.id:
            return _Place(lag, offset, job)
    return None


def _undone(broker: Broker, namespace: str, lags: Sequence[LaneLag]) -> list[_Place]:
    """Jobs in these partitions of lanes that are not done, per partition in order."""
    by_place = {TopicPartition(topics.jobs_topic(namespace, lag.queue, lag.lane), lag.number): lag for lag in lags}
    starts = {place: lag.start for place, lag in by_place.items()}
    found = []
    for record in read_to_end(broker, list(by_place), starts):
        lag, offset = by_place[TopicPartition(record.topic() or "", record.partition() or 0)], record.offset() or 0
        if lag.is_done(offset):
            continue
        try:
            job = codec.decode_job(record.value() or b"")
        except RecordError:
            continue  # a worker sends it to the dead letters
        found.append(_Place(lag, offset, completed(job, lag.queue, record.timestamp()[1])))
    return found


def _in_lane(facts: JobFacts, place: _Place) -> JobFacts:
    lag, offset, job = place
    if facts.state in TERMINAL and job.attempt == 0 and facts.since > job.enqueued_at:
        return facts  # its end is not committed beside its offset yet: it is no new life
    before = sum(min(last, offset - 1) - first + 1 for first, last in lag.done if lag.start <= first < offset)
    return replace(
        facts,
        state=State.QUEUED,
        number=lag.number,
        kill_at=job.kill_at,
        key=job.key,
        ahead=max(0, offset - lag.start - before),
    )


def _with_parking(broker: Broker, namespace: str, facts: JobFacts) -> JobFacts:
    """Of a parked job: when its patience ends."""
    if facts.state not in (State.WAITING, State.IN_DOUBT, State.RUNNING):
        return facts
    saved = saved_progress(broker, namespace, facts.queue, facts.id)
    if saved is None or saved.live is None:
        return facts
    return replace(facts, number=saved.number, until=saved.live.until, note=facts.note or saved.live.reason)


def _with_orders(broker: Broker, namespace: str, facts: JobFacts, life: int) -> JobFacts:
    try:
        orders = orders_now(broker, namespace)
    except TopicMissing:
        return facts
    cancel = orders.cancelled(facts.id, life, 0)
    queue, type_ = orders.queue_pause(facts.queue), orders.type_pause(facts.type)
    return replace(
        facts,
        cancelled="" if cancel is None else why(cancel),
        queue_pause="" if queue is None else why(queue),
        type_pause="" if type_ is None else why(type_),
    )


def _with_workers(broker: Broker, namespace: str, facts: JobFacts) -> JobFacts:
    group = queue_group(namespace, facts.queue)
    members = broker.admin().members(group)
    names = [slot_of(member.instance_id) if member.instance_id else member.client_id for member in members]
    facts = replace(facts, workers=sorted(names))
    if facts.number is None:
        return facts
    place = TopicPartition(topics.jobs_topic(namespace, facts.queue), facts.number)
    owner = next((name for member, name in zip(members, names, strict=True) if place in member.partitions), "")
    if not owner:
        return facts
    known = broker.admin().committed(group, [place], stable=False).get(place)
    claimed = None
    if known is not None and known.offset is not None:
        claimed = offset_metadata.decode(known.metadata, known.offset)
    # Whoever begins with a number claims it first; whoever holds it lets go of it.
    held = claimed is None or claimed.released or claimed.slot != owner
    return replace(facts, owner=owner, held=held)


def _with_key(broker: Broker, namespace: str, facts: JobFacts, place: _Place) -> JobFacts:
    """Whose turn it is in its ordering key, if it is not its own."""
    if facts.key is None:
        return facts
    lags = [lag for lag in queue_lag(broker, namespace, [facts.queue]) if lag.number == place.lag.number]
    for job_id, record in _promoted(broker, namespace, facts.queue, place.lag.number).items():
        if job_id != facts.id and _key_of(record) == facts.key:
            return replace(facts, key_holder=job_id, key_holder_state=record.state.value)
    for lag, offset, job in _undone(broker, namespace, lags):
        earlier = lag.lane is Lane.DUE if lag.lane is not place.lag.lane else offset < place.offset
        if job.id != facts.id and job.key == facts.key and earlier:
            status = job_status(broker, namespace, job.id)
            return replace(
                facts, key_holder=job.id, key_holder_state="queued" if status is None else status.state.value
            )
    return facts


def _key_of(record: LiveJobRecord) -> str | None:
    try:
        return codec.decode_job(record.job).key
    except RecordError:
        return None  # a newer version's, say: what is known of all others is told


def _promoted(broker: Broker, namespace: str, queue: str, number: int) -> dict[str, LiveJobRecord]:
    """Jobs of a number that live in the checkpoint topic, and those that keep their key while they wait for a retry."""
    found: dict[str, LiveJobRecord] = {}
    place = TopicPartition(topics.checkpoints_topic(namespace, queue), number)
    for record in read_to_end(broker, [place]):
        try:
            parsed, value = parse_key(record.key() or b""), record.value()
            is_end = parsed.kind is KeyKind.PROGRESS and value is not None and codec.decode_checkpoint(value).final
            if parsed.kind is KeyKind.JOB and value is not None:
                found[parsed.id] = codec.decode_live_job(value)
            elif is_end or parsed.kind is KeyKind.JOB:
                found.pop(parsed.id, None)
        except RecordError:
            continue
    return found
