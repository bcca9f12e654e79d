"""What is known of jobs: their status, what they saved, and which still wait in a lane."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from processor.admin.lag import live_jobs, queue_lag, queues_named
from processor.admin.reading import PATIENCE, partitions_of, read_to_end
from processor.broker.base import Broker, TopicPartition
from processor.client.status import StatusTail
from processor.client.track import supersedes
from processor.clock import SystemClock
from processor.errors import BrokerUnavailable, RecordError
from processor.job import Job, Place
from processor.states import State
from processor.wire import codec, topics
from processor.wire.json_job import completed_in
from processor.wire.records import CheckpointRecord, LiveJobRecord, StatusRecord, StepRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job, as a list shows it."""

    id: str
    type: str
    queue: str
    state: State
    life: int
    attempt: int
    at: int
    """Last change, milliseconds since the epoch; for a queued job when it was enqueued."""
    worker: str = ""
    error: str = ""
    """The last error, first line."""
    note: str = ""
    """Why the state is what it is, first line."""
    done: float | None = None
    total: float | None = None
    place: Place | None = None
    """Of a job that waits in a lane."""
    due_at: int | None = None
    """When it may begin, or its next attempt may, milliseconds since the epoch; None: at once."""
    kill_at: int | None = None
    """Its kill date, milliseconds since the epoch."""
    ends_at: int | None = None
    """When the attempt that runs has used up its attempt timeout, milliseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedProgress:
    """What a job has saved."""

    number: int
    progress: CheckpointRecord | None
    steps: Sequence[StepRecord]
    """By scoped name."""
    live: LiveJobRecord | None
    """Its record, if it is promoted or parked."""
    signals: Sequence[str]
    """Sources of the signals that wait for it."""
    ended: bool


def job_status(broker: Broker, namespace: str, job_id: str) -> StatusRecord | None:
    """The latest status of a job; None if the status topic holds none (it is queued, unknown, or long gone).

    It reads as a handle does: from the time in the id on, and the whole partition before it says None.

    Raises:
        BrokerUnavailable: it could not be read within 30 s.
    """
    topic = topics.status_topic(namespace)
    tail = StatusTail(lambda: broker, topic, SystemClock())
    try:
        track = tail.track(job_id)
        if not tail.catch_up(track, PATIENCE):
            raise BrokerUnavailable(f"{topic} could not be read within {PATIENCE:.0f} s")
        return track.latest
    finally:
        tail.close()


def saved_progress(
    broker: Broker, namespace: str, queue: str, job_id: str, *, number: int | None = None
) -> SavedProgress | None:
    """What the checkpoint topic holds of a job; None: nothing.

    Args:
        broker: where to read.
        namespace: of the queue.
        queue: its name.
        job_id: the job.
        number: its partition; None: all are read, since a keyed job's number follows from a key we do not know.
    """
    found = live_jobs(broker, namespace, queue, job_id=job_id, number=number)
    if not found:
        return None
    partition, view = max(found, key=lambda row: (row[1].life, row[1].hop))
    return SavedProgress(
        number=partition,
        progress=codec.decode_checkpoint(view.progress) if view.progress else None,
        steps=[codec.decode_step(view.steps[name]) for name in sorted(view.steps)],
        live=codec.decode_live_job(view.job) if view.job else None,
        signals=sorted(view.signals),
        ended=view.ended,
    )


def list_jobs(
    broker: Broker,
    namespace: str,
    *,
    queue: str | None = None,
    states: frozenset[State] | None = None,
    type_: str | None = None,
    limit: int = 100,
) -> list[JobRow]:
    """Jobs, newest change first: those with a status, and those that wait in a lane without one.

    This reads the whole status topic and the unfinished part of the lanes. It is meant for a person at a terminal.
    Jobs that wait for their time are looked for only if `states` names `scheduled`: there may be very many.

    Args:
        broker: where to read.
        namespace: whose jobs.
        queue: only this queue.
        states: only these states.
        type_: only this job type.
        limit: rows at most.

    Raises:
        UnknownQueue: the named queue has no topics.
    """
    queues = list(queues_named(broker, namespace, None if queue is None else [queue]))
    rows = {status.id: _row(status) for status in _statuses(broker, namespace)}
    if states is None or State.QUEUED in states:
        for row in _queued(broker, namespace, queues):
            known = rows.get(row.id)
            if known is None or row.life > known.life:
                rows[row.id] = row
    if states is not None and State.SCHEDULED in states:
        for row in _scheduled(broker, namespace):
            rows.setdefault(row.id, row)
    chosen = (
        row
        for row in rows.values()
        if (queue is None or row.queue == queue)
        and (states is None or row.state in states)
        and (type_ is None or row.type == type_)
    )
    return sorted(chosen, key=lambda row: row.at, reverse=True)[:limit]


def _statuses(broker: Broker, namespace: str) -> list[StatusRecord]:
    latest: dict[str, StatusRecord] = {}
    for record in read_to_end(broker, partitions_of(broker, [topics.status_topic(namespace)])):
        value = record.value()
        status = _status(value) if value is not None else None
        if status is not None and supersedes(status, latest.get(status.id)):
            latest[status.id] = status
    return list(latest.values())


def _queued(broker: Broker, namespace: str, queues: Sequence[str]) -> Iterator[JobRow]:
    lags = {
        TopicPartition(topics.jobs_topic(namespace, lag.queue, lag.lane), lag.number): lag
        for lag in queue_lag(broker, namespace, queues)
    }
    starts = {place: lag.start for place, lag in lags.items()}
    for record in read_to_end(broker, list(lags), starts):
        place = Place(record.topic() or "", record.partition() or 0, record.offset() or 0)
        value = record.value()
        if value is None or lags[TopicPartition(place.topic, place.partition)].is_done(place.offset):
            continue
        try:
            job = completed_in(codec.decode_job(value), place.topic, record.timestamp()[1])
        except RecordError:
            # The worker sends it to the dead letters with its bytes; here it has no id to be listed under.
            continue
        yield _unstarted(job, State.QUEUED, place)


def _scheduled(broker: Broker, namespace: str) -> Iterator[JobRow]:
    """Jobs that wait in the retry chain until they are due for the first time."""
    rungs = [topics.retry_topic(namespace, delay) for delay in topics.RETRY_DELAYS]
    for record in read_to_end(broker, partitions_of(broker, rungs)):
        try:
            job = codec.decode_job(record.value() or b"")
        except RecordError:
            continue
        if not (job.attempt or job.hop):
            place = Place(record.topic() or "", record.partition() or 0, record.offset() or 0)
            yield _unstarted(job, State.SCHEDULED, place)


def _unstarted(job: Job, state: State, place: Place) -> JobRow:
    """A job that is known by its record alone."""
    return JobRow(
        id=job.id,
        type=job.type,
        queue=job.queue,
        state=state,
        life=job.life,
        attempt=job.attempt,
        at=job.enqueued_at,
        place=place,
        due_at=job.due_at,
        kill_at=job.kill_at,
    )


def _status(value: bytes) -> StatusRecord | None:
    try:
        return codec.decode_status(value)
    except RecordError:
        # One status of a newer version must not hide all the others.
        return None


def _row(status: StatusRecord) -> JobRow:
    return JobRow(
        id=status.id,
        type=status.type,
        queue=status.queue,
        state=status.state,
        life=status.life,
        attempt=status.attempt,
        at=status.at,
        worker=status.worker,
        error=f"{status.error.kind}: {status.error.message}".partition("\n")[0] if status.error else "",
        note=(status.note or "").partition("\n")[0],
        done=status.done,
        total=status.total,
        due_at=status.due_at,
        kill_at=status.kill_at,
        ends_at=status.ends_at,
    )
