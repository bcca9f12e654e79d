"""Pausing queues and job types, cancelling jobs, letting waiting ones go on: what operators order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from processor.admin.jobs import job_status
from processor.admin.reading import partitions_of, read_to_end
from processor.broker.base import Broker, OutRecord, Producer
from processor.client.orders import cancelling, give, send
from processor.clock import Clock, SystemClock
from processor.core.audit import RESUME, noted
from processor.core.control import JOB, PAUSE, QUEUE, RETRY, TYPE, ControlTable, change_of
from processor.errors import OrderRefused, RecordError, UnknownQueue
from processor.identity import operator
from processor.job import Job, Lane
from processor.states import TERMINAL, State
from processor.texts import plain
from processor.wire import codec, topics
from processor.wire.headers import routing_headers
from processor.wire.records import AuditRecord, ControlRecord, StatusRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who orders something, and why."""

    reason: str = ""
    """At most 500 characters are kept."""
    by: str = field(default_factory=operator)
    """`user@host`."""
    clock: Clock = field(default_factory=SystemClock)
    dedupe_ms: int = 20 * 3_600_000
    """A job that is due later is not sent on early: its own record would come when nobody remembers its end."""
    timeout: float = 30.0
    """Seconds to wait for the confirmation of an order."""
    bulk: str = ""
    """Id of the bulk action that it is part of."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", plain(self.reason, 500))


def orders_now(broker: Broker, namespace: str) -> ControlTable:
    """The orders that hold now.

    Raises:
        TopicMissing: there is no control topic.
    """
    table = ControlTable()
    for record in read_to_end(broker, partitions_of(broker, [topics.control_topic(namespace)])):
        try:
            table.apply(change_of(record.key() or b"", record.value(), record.headers()))
        except (RecordError, UnicodeDecodeError):
            # One order of a newer version must not hide all others.
            continue
    return table


def pause(broker: Broker, namespace: str, target: str, who: Operator) -> None:
    """Let a queue (`queue:NAME`) or job type (`type:NAME`) rest: nothing of it starts, what runs saves and yields.

    Raises:
        UnknownQueue: there is no such queue.
        BrokerError: the order was not confirmed; giving it again is harmless.
    """
    if target.startswith(QUEUE):
        _refuse_unknown_queue(broker, namespace, target.removeprefix(QUEUE))
    _give(broker, namespace, ControlRecord(target, PAUSE, who.clock.now_ms(), who.by, who.reason), who)


def resume(broker: Broker, namespace: str, target: str, who: Operator) -> None:
    """Take a pause back.

    Raises:
        OrderRefused: it is not paused.
        BrokerError: the order was not confirmed; giving it again is harmless.
    """
    table, name = orders_now(broker, namespace), target.partition(":")[2]
    holds = table.queue_pause(name) if target.startswith(QUEUE) else table.type_pause(name)
    if holds is None:
        what = "queue" if target.startswith(QUEUE) else "job type"
        raise OrderRefused(f"{what} {name} is not paused", hint="processor queue list shows what is")
    _give(broker, namespace, ControlRecord(target, RESUME, who.clock.now_ms(), who.by, who.reason), who)


def cancel(broker: Broker, namespace: str, job_id: str, who: Operator) -> StatusRecord | None:
    """Cancel a job, wherever it is: queued, running, parked or waiting for its retry. Its status when it was asked.

    One that runs hears of it at its next checkpoint, step or item. Nothing is known of a job that is still in its lane:
    the order waits for it.

    Raises:
        OrderRefused: it has ended.
        BrokerError: the order was not confirmed; giving it again is harmless.
    """
    status = job_status(broker, namespace, job_id) or _scheduled(broker, namespace, job_id, who)
    order = cancelling(job_id, status, by=who.by, reason=who.reason, now_ms=who.clock.now_ms())
    if order is None:
        assert status is not None
        raise OrderRefused(f"job {job_id} has ended already: {status.state}", hint=f"processor job show {job_id}")
    _give(broker, namespace, order, who)
    return status


def go_on(broker: Broker, namespace: str, job_id: str, who: Operator) -> str:
    """Let a waiting job go on now: one that waits for its retry, that is parked, or that is in doubt. What was done.

    Raises:
        OrderRefused: it does not wait for anything that could be cut short.
        BrokerError: it was not confirmed; asking again is harmless.
    """
    status = job_status(broker, namespace, job_id) or _scheduled(broker, namespace, job_id, who)
    if status is None:
        raise OrderRefused(
            f"job {job_id} has no status: it is in its lane and starts when its turn comes, or is not known",
            hint=f"processor job show {job_id}",
        )
    if orders_now(broker, namespace).cancelled(job_id, status.life, 0) is not None and status.state not in TERMINAL:
        raise OrderRefused(f"job {job_id} is being cancelled", hint=f"processor job show {job_id}")
    if status.state in (State.WAITING, State.IN_DOUBT):
        target, now = f"{JOB}{job_id}", who.clock.now_ms()
        order = ControlRecord(target, RETRY, now, who.by, who.reason, status.life, seen=status.at)
        _give(broker, namespace, order, who)
        return f"it was {status.state}, and goes on"
    if status.state in (State.RETRYING, State.SCHEDULED):
        return _copy_home(broker, namespace, status, who)
    hint = f"processor dlq redrive {job_id}" if status.state is State.DEAD else f"processor job show {job_id}"
    ended = status.state in TERMINAL
    raise OrderRefused(f"job {job_id} {'has ended' if ended else 'is'}: {status.state}", hint=hint)


def _copy_home(broker: Broker, namespace: str, status: StatusRecord, who: Operator) -> str:
    """A copy of its record in the retry chain goes to its lane at once. The drop rule makes one of the two: whichever
    comes second has the same id, life and hop.
    """
    job = _in_chain(broker, namespace, status)
    if job is None or job.number is None:
        return "it has left the retry chain meanwhile, and starts when its turn comes"
    copy = copy_home(namespace, job, who)
    audit = AuditRecord(RETRY, f"{JOB}{job.id}", who.clock.now_ms(), who.by, who.reason, job.id, job.life)
    records = [noted(namespace, audit), copy]
    with producing(broker) as producer:
        send(producer, records, who.timeout, f"retry of job {job.id}")
    return f"attempt {job.attempt + 1} begins now instead of later"


def copy_home(namespace: str, job: Job, who: Operator) -> OutRecord:
    """The copy of a job's record in the retry chain that goes to its lane at once.

    Raises:
        OrderRefused: its own record would come when nobody remembers the copy's end.
    """
    now = who.clock.now_ms()
    if (job.due_at or now) - now > who.dedupe_ms:
        raise OrderRefused(
            f"job {job.id} is due only after the time for which ended jobs are remembered: it would run twice",
            hint=f"processor job cancel {job.id}, and enqueue it under another id",
        )
    assert job.number is not None, "every record of the chain has one"
    home = topics.jobs_topic(namespace, job.queue, Lane.DUE)
    copy = job._replace(due_at=now)
    return OutRecord(home, job.id.encode(), codec.encode(copy), routing_headers(copy, derived=True), job.number)


def _scheduled(broker: Broker, namespace: str, job_id: str, who: Operator) -> StatusRecord | None:
    """Of a job without a status that waits in the chain until it is due; None: it does not."""
    asked = StatusRecord(job_id, 1, "", "", State.SCHEDULED, who.clock.now_ms(), 0, "")
    job = _in_chain(broker, namespace, asked)
    if job is None:
        return None
    return asked._replace(type=job.type, queue=job.queue, life=job.life, number=job.number, due_at=job.due_at)


def _in_chain(broker: Broker, namespace: str, status: StatusRecord) -> Job | None:
    """The record of a job on its way through the retry chain, all of which is read; None: it is not there any more."""
    rungs = [topics.retry_topic(namespace, delay) for delay in topics.RETRY_DELAYS]
    found: Job | None = None
    key = status.id.encode()
    for record in read_to_end(broker, partitions_of(broker, rungs)):
        value = record.value()
        if record.key() != key or value is None:
            continue
        try:
            job = codec.decode_job(value)
        except RecordError:
            continue
        if job.life == status.life and (found is None or job.hop >= found.hop):
            found = job
    return found


def _refuse_unknown_queue(broker: Broker, namespace: str, queue: str) -> None:
    topic = topics.jobs_topic(namespace, topics.check_name(queue, "queue"))
    if topic not in broker.admin().topics([topic]):
        raise UnknownQueue(
            f"queue {queue} has no topics in namespace {namespace}", hint="processor queue list shows the queues"
        )


def _give(broker: Broker, namespace: str, order: ControlRecord, who: Operator) -> None:
    # Asked for first: a producer waits long for a topic that does not exist.
    partitions_of(broker, [topics.control_topic(namespace), topics.audit_topic(namespace)])
    with producing(broker) as producer:
        give(producer, namespace, order, who.timeout)


@contextmanager
def producing(broker: Broker) -> Iterator[Producer]:
    """A producer for as long as it is needed."""
    producer = broker.producer()
    try:
        yield producer
    finally:
        producer.close()


def target_of(queue: str | None, job_type: str | None) -> str:
    """What an order is about."""
    return f"{QUEUE}{queue}" if queue is not None else f"{TYPE}{job_type}"
