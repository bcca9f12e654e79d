"""What operators want, folded from the control topic: which queues and job types rest, which jobs are cancelled. Pure.

A record holds until a tombstone under its target takes it back. One about a job holds for lives up to the one it names:
it never hits a later life, which somebody started knowing of it.

Orders about jobs are taken back by workers, or the topic would grow for ever: the owner of a job that did what an
order says writes it once more, as settled, and `KEPT_MS` later any worker buries it. One that nobody settles (there is
no such job, or it had ended meanwhile) is buried after `UNSETTLED_MS`, when the longest delay is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from processor.broker.base import Headers, OutRecord
from processor.wire.codec import decode_control
from processor.wire.headers import number_header
from processor.wire.records import ControlRecord

PAUSE, CANCEL, RETRY = "pause", "cancel", "retry"
QUEUE, TYPE, JOB = "queue:", "type:", "job:"
HOLDS_MS = 24 * 3_600_000
"""How long after a cancel the same id, enqueued again, is still the cancelled job: clocks of producers and operators
differ, and within the usual dedupe window one id is one job.
"""
KEPT_MS = 8 * HOLDS_MS
"""How long after it was settled an order about a job is kept: longer than lanes keep what is done (7 days)."""
UNSETTLED_MS = 400 * HOLDS_MS
"""The same after it was given, of one that nobody settles: longer than the longest delay."""
ORDER_AT = "order-at"
"""Header of a tombstone: it buries the order of that moment (milliseconds), none that was given meanwhile."""
PAUSED_TYPE = "its job type is paused"
"""How the reason of a job begins that is parked because its type is paused."""


class Change(NamedTuple):
    """What one record of the control topic says: `record` None takes back what its target had."""

    target: str
    record: ControlRecord | None
    of: int | None = None
    """Of a tombstone: it is about orders up to this moment, milliseconds since the epoch; None: about any."""


def change_of(key: bytes, value: bytes | None, headers: Headers | None) -> Change:
    """What a record of the control topic says.

    Raises:
        RecordError: it does not decode.
        UnicodeDecodeError: its key does not.
    """
    record = None if value is None else decode_control(value)
    return Change(key.decode(), record, number_header(headers, ORDER_AT))


class ControlTable:
    """The orders that hold now."""

    __slots__ = ("_jobs", "_queues", "_types")

    def __init__(self) -> None:
        self._queues: dict[str, ControlRecord] = {}
        self._types: dict[str, ControlRecord] = {}
        self._jobs: dict[str, ControlRecord] = {}

    def apply(self, change: Change) -> bool:
        """Fold one more record; of a target or an action that is not known here (a newer version's) nothing is kept.

        False: it buries an order that has been replaced by another one, which still holds.
        """
        for prefix, orders, actions in (
            (QUEUE, self._queues, (PAUSE,)),
            (TYPE, self._types, (PAUSE,)),
            (JOB, self._jobs, (CANCEL, RETRY)),
        ):
            if change.target.startswith(prefix):
                name = change.target[len(prefix) :]
                if change.record is not None and change.record.action in actions:
                    orders[name] = change.record
                elif name in orders and change.of is not None and change.record is None and orders[name].at > change.of:
                    return False
                else:
                    orders.pop(name, None)
        return True

    def job_order(self, job_id: str) -> ControlRecord | None:
        """The order about a job, whatever it says."""
        return self._jobs.get(job_id)

    def over(self, now_ms: int) -> Iterator[ControlRecord]:
        """Orders about jobs that need not be kept any longer."""
        for order in self._jobs.values():
            since, kept = (order.settled, KEPT_MS) if order.settled else (order.at, UNSETTLED_MS)
            if now_ms - since > kept:
                yield order

    def concerns(self, job_id: str, job_type: str) -> bool:
        """Whether any order may be about this job."""
        return job_id in self._jobs or job_type in self._types

    @property
    def paused_queues(self) -> frozenset[str]:
        """Names of the queues that rest."""
        return frozenset(self._queues)

    def paused_types(self) -> dict[str, str]:
        """Job types that rest, and why."""
        return {name: why(order) for name, order in self._types.items()}

    def queue_pause(self, queue: str) -> ControlRecord | None:
        """Why a queue rests; None: it does not."""
        return self._queues.get(queue)

    def type_pause(self, job_type: str) -> ControlRecord | None:
        """Why a job type rests; None: it does not."""
        return self._types.get(job_type)

    def cancelled(self, job_id: str, life: int, enqueued_at: int) -> ControlRecord | None:
        """The order to cancel this life of a job, if there is one.

        Args:
            job_id: the job.
            life: of its record.
            enqueued_at: of its record, milliseconds since the epoch. An order is about what was enqueued before it;
                the same id given again long after is another job.
        """
        order = self._order(CANCEL, job_id, life)
        return order if order is not None and enqueued_at <= order.at + HOLDS_MS else None

    def retried(self, job_id: str, life: int, since: int) -> ControlRecord | None:
        """The order to go on with a job that waits since `since` (milliseconds), if whoever gave it had seen it wait.

        Both moments are of the worker that parked it: no other clock has a say. A later wait is not meant.
        """
        order = self._order(RETRY, job_id, life)
        return order if order is not None and order.seen >= since else None

    def _order(self, action: str, job_id: str, life: int) -> ControlRecord | None:
        order = self._jobs.get(job_id)
        return order if order is not None and order.action == action and life <= order.life else None


def burial(topic: str, order: ControlRecord) -> OutRecord:
    """The tombstone of an order, in the control topic."""
    return OutRecord(topic, order.target.encode(), None, [(ORDER_AT, b"%d" % order.at)])


def why(order: ControlRecord) -> str:
    """An order as the reason that stays with a job."""
    return f"{order.reason} (by {order.by})" if order.reason else f"by {order.by}"
