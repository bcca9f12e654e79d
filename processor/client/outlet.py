"""An open producer of a client, and what it has not confirmed yet."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence

from processor.broker.base import OutRecord, Producer
from processor.errors import BrokerError, EnqueueError, EnqueueUnconfirmed, RecordRefused
from processor.wire.codec import decode_job


class Ticket:
    """A record on its way."""

    __slots__ = ("done", "error", "id", "missed", "told")

    def __init__(self, job_id: str, missed: Callable[[], None] | None = None) -> None:
        self.id = job_id
        self.missed = missed
        """Is told that the record did not arrive, instead of whoever closes the client."""
        self.done = threading.Event()
        self.error: BrokerError | None = None
        self.told = False
        """Its caller was told that it is not confirmed: nobody need wait for it once more."""


class Outlet:
    """An open producer, and what it has not confirmed."""

    __slots__ = ("pending", "producer")

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.pending: dict[Ticket, None] = {}

    def patience(self, timeout: float) -> float:
        """How long its end may take: nobody waits for what was given up, and not long for what may be dropped."""
        awaited = [ticket for ticket in list(self.pending) if not ticket.told]
        if any(ticket.missed is None for ticket in awaited):
            return timeout
        return min(timeout, 1.0) if awaited else 0.0


def keep_for_ever(inherited: object) -> None:
    """Never destroy this: a librdkafka client waits for its threads then, which the child of a fork does not have."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def id_of(record: OutRecord) -> str:
    """The id of the job that a record holds."""
    return decode_job(record.value or b"").id


def failure_of(
    ids: Sequence[str], left: int, refused: Sequence[tuple[OutRecord, BrokerError]], waited: str
) -> EnqueueError:
    """What is told of jobs sent together that are not all confirmed.

    Args:
        ids: of all of them.
        left: how many records have no answer.
        refused: those that have a bad one.
        waited: how long, and for whom.
    """
    if left:
        # Which of them are there is not known; repeating one with its id is safe either way.
        return EnqueueUnconfirmed(ids[0], f"no acknowledgement within {waited}", ids)
    failed = {id_of(record): error for record, error in refused}
    first = next((job_id for job_id in ids if job_id in failed), ids[0])
    error = failed.get(first) or next(iter(failed.values()))
    told: EnqueueError
    if isinstance(error, RecordRefused):
        told = EnqueueError(f"job {first} was refused: {error}", hint="do the topics exist? processor topics apply")
    else:
        told = EnqueueUnconfirmed(first, str(error), [job_id for job_id in ids if job_id in failed])
    told.__cause__ = error
    return told
