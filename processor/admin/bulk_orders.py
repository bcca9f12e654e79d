"""Cancelling many jobs, or letting many go on, at once: what is asked of Kafka is asked once for all of them.

First the orders are written, and once those are there their audit records: a caller who dies in between gives the
orders again, which is harmless, and none stands in the audit log that was not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from processor.admin.orders import Operator, copy_home, orders_now, producing
from processor.admin.reading import partitions_of, read_to_end
from processor.broker.base import Broker, OutRecord, TopicPartition
from processor.client.orders import cancelling, send
from processor.core.audit import noted
from processor.core.control import JOB, RETRY
from processor.errors import OrderRefused, RecordError
from processor.job import Job, Place
from processor.states import TERMINAL, State
from processor.wire import codec, topics
from processor.wire.records import AuditRecord, ControlRecord, StatusRecord


class Asked(NamedTuple):
    """A job, as far as it is known."""

    id: str
    status: StatusRecord | None
    """None: it waits in its lane."""
    lies: Place | None = None
    """Where its record lies, if it is in the retry chain."""


@dataclass(slots=True, kw_only=True)
class Given:
    """What was ordered."""

    done: list[str] = field(default_factory=list)
    """Ids of the jobs that were ordered."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Ids of the others, and why."""


def cancel_jobs(broker: Broker, namespace: str, jobs: Sequence[Asked], who: Operator) -> Given:
    """Cancel jobs, as `orders.cancel` does one.

    Raises:
        BrokerError: not all was confirmed; giving it again is harmless.
    """
    given, orders = Given(), []
    for job in jobs:
        order = cancelling(job.id, job.status, by=who.by, reason=who.reason, now_ms=who.clock.now_ms())
        if order is None:
            assert job.status is not None
            given.refused.append((job.id, f"it has ended already: {job.status.state}"))
        else:
            orders.append(order)
    _give(broker, namespace, [_control(namespace, order) for order in orders], orders, who)
    given.done = [order.target.removeprefix(JOB) for order in orders]
    return given


def go_on_jobs(broker: Broker, namespace: str, jobs: Sequence[Asked], who: Operator) -> Given:
    """Let waiting jobs go on now, as `orders.go_on` does one.

    Raises as `cancel_jobs`.
    """
    given, table = Given(), orders_now(broker, namespace)
    chain: list[Asked] = []
    records: list[OutRecord] = []
    audits: list[ControlRecord] = []
    for job in jobs:
        status = job.status
        if status is not None and table.cancelled(job.id, status.life, 0) is not None and status.state not in TERMINAL:
            given.refused.append((job.id, "it is being cancelled"))
        elif status is not None and status.state in (State.WAITING, State.IN_DOUBT):
            order = _retry(job.id, status.life, who)._replace(seen=status.at)
            records.append(_control(namespace, order))
            audits.append(order)
        elif status is not None and status.state in (State.RETRYING, State.SCHEDULED):
            chain.append(job)
        else:
            given.refused.append((job.id, f"it does not wait: {status.state if status else State.QUEUED}"))
    found = _in_chain(broker, chain)
    for job in chain:
        _copy(namespace, job, found.get(job.id), who, (given, records, audits))
    _give(broker, namespace, records, audits, who)
    given.done += [order.target.removeprefix(JOB) for order in audits]
    return given


def _copy(
    namespace: str,
    asked: Asked,
    job: Job | None,
    who: Operator,
    into: tuple[Given, list[OutRecord], list[ControlRecord]],
) -> None:
    given, records, audits = into
    if job is None or job.number is None:
        given.refused.append((asked.id, "it has left the retry chain meanwhile, and starts when its turn comes"))
        return
    try:
        records.append(copy_home(namespace, job, who))
    except OrderRefused as error:
        given.refused.append((asked.id, str(error)))
    else:
        audits.append(_retry(asked.id, job.life, who))


def _in_chain(broker: Broker, jobs: Sequence[Asked]) -> dict[str, Job]:
    """The records of these jobs, read where they lay; those that have moved on meanwhile are left out."""
    lives = {job.id: job.status.life for job in jobs if job.status is not None}
    starts: dict[TopicPartition, int] = {}
    stops: dict[TopicPartition, int] = {}
    for lies in (job.lies for job in jobs if job.lies is not None):
        place = TopicPartition(lies.topic, lies.partition)
        starts[place] = min(lies.offset, starts.get(place, lies.offset))
        stops[place] = max(lies.offset + 1, stops.get(place, 0))
    found: dict[str, Job] = {}
    if not starts:
        return found
    for record in read_to_end(broker, list(starts), starts, stops):
        try:
            job = codec.decode_job(record.value() or b"")
        except RecordError:
            continue
        if lives.get(job.id) == job.life and (job.id not in found or job.hop >= found[job.id].hop):
            found[job.id] = job
    return found


def _retry(job_id: str, life: int, who: Operator) -> ControlRecord:
    return ControlRecord(f"{JOB}{job_id}", RETRY, who.clock.now_ms(), who.by, who.reason, life)


def _control(namespace: str, order: ControlRecord) -> OutRecord:
    return OutRecord(topics.control_topic(namespace), order.target.encode(), codec.encode(order))


def _give(
    broker: Broker, namespace: str, records: list[OutRecord], orders: Sequence[ControlRecord], who: Operator
) -> None:
    if not records:
        return
    # Asked for first: a producer waits long for a topic that does not exist.
    partitions_of(broker, [topics.control_topic(namespace), topics.audit_topic(namespace)])
    audits = [
        noted(
            namespace,
            AuditRecord(
                *(order.action, order.target, order.at, order.by, order.reason),
                *(order.target.removeprefix(JOB), order.life),
                bulk=who.bulk,
            ),
        )
        for order in orders
    ]
    with producing(broker) as producer:
        send(producer, records, who.timeout, f"{orders[0].action} of {len(orders)} jobs")
        send(producer, audits, who.timeout, f"the audit records of {len(orders)} jobs")
