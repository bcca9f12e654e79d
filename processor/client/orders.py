"""What callers and operators want of jobs, job types and queues, said in the control topic, each with an audit record.

An order is harmless twice: whoever is not sure that it arrived gives it again.
"""

from __future__ import annotations

from processor.broker.base import OutRecord, Producer
from processor.core.audit import RESUME, noted
from processor.core.control import CANCEL, JOB
from processor.core.idempotency import is_keyed, life_at
from processor.errors import BrokerError, BrokerUnavailable
from processor.states import TERMINAL, State
from processor.wire.codec import encode
from processor.wire.records import AuditRecord, ControlRecord, StatusRecord
from processor.wire.topics import control_topic


def give(producer: Producer, namespace: str, order: ControlRecord, timeout: float) -> None:
    """Append an order and its audit record, and wait until both are there. `resume` takes back what a target had.

    Raises:
        BrokerUnavailable: not confirmed within `timeout` seconds; giving it again is harmless.
        BrokerError: the broker refuses it.
    """
    value = None if order.action == RESUME else encode(order)
    job_id = order.target.removeprefix(JOB) if order.target.startswith(JOB) else ""
    audit = AuditRecord(order.action, order.target, order.at, order.by, order.reason, job_id, order.life)
    send(
        producer,
        [noted(namespace, audit), OutRecord(control_topic(namespace), order.target.encode(), value)],
        timeout,
        f"{order.action} of {order.target}",
    )


def send(producer: Producer, records: list[OutRecord], timeout: float, doing: str) -> None:
    """Append records and wait until they are all there.

    Raises as `give`.
    """
    answers: list[BrokerError | None] = []
    for record in records:
        producer.append(record, answers.append)
    producer.flush(timeout)
    producer.poll(0)
    for error in answers:
        if error is not None:
            raise error
    if len(answers) < len(records):
        raise BrokerUnavailable(f"{doing} was not confirmed within {timeout:g} s", hint="give it again")


def cancelling(job_id: str, status: StatusRecord | None, *, by: str, reason: str, now_ms: int) -> ControlRecord | None:
    """The order to cancel a job, as far as its latest status tells; None: it has ended.

    A later life, begun after this, is not meant.
    """
    if status is None:
        life = life_at(now_ms) if is_keyed(job_id) else 1
        return ControlRecord(f"{JOB}{job_id}", CANCEL, now_ms, by, reason, life=life)
    if status.state in TERMINAL:
        return None
    waits = status.state in (State.RETRYING, State.SCHEDULED) and status.number is not None
    return ControlRecord(
        *(f"{JOB}{job_id}", CANCEL, now_ms, by, reason, status.life),
        # Its owner needs them if it moves to the retry chain meanwhile.
        queue=status.queue,
        number=status.number if waits and status.number is not None else -1,
        type=status.type,
    )
