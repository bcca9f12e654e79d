"""A dead letter as the job that it becomes again: the next life of the same id. Pure.

What the new life keeps: id, type, queue, key, number, parent, payload and its version. What begins anew: hop, attempts,
deaths, failures, and the limits in time. A job that had 24 hours from its enqueue to its kill date has 24 hours again
from the redrive: the old date has mostly passed, and would kill the new life at once.

Two operators, or a command that is run again, may send the same next life twice. That is harmless: its id and life are
the same, and the worker drops the second copy. A letter whose next life was begun counts as redriven, and so does its
double, should a torn transaction have left one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from processor.broker.base import ANY_PARTITION, OutRecord
from processor.broker.partitioner import partition_for
from processor.core.audit import DISCARD, REDRIVE, lives_begun
from processor.core.idempotency import is_keyed, life_at
from processor.errors import DeadLetterError, NewerRecord, RecordError
from processor.job import Carried, Job, Lane
from processor.states import State
from processor.wire.codec import decode_checkpoint, decode_job, decode_step, encode
from processor.wire.headers import routing_headers
from processor.wire.json_job import completed_in
from processor.wire.records import AuditRecord, DeadLetterRecord, StatusRecord
from processor.wire.topics import TopicKind, jobs_topic, parse_topic, status_topic

_ADDRESS = re.compile(r"(\d{1,9})@(\d{1,18})", re.ASCII)


class Address(NamedTuple):
    """Where a dead letter lies in the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"


def parse_address(text: str) -> Address | None:
    """`partition@offset`; None if the text is something else, such as a job's id."""
    found = _ADDRESS.fullmatch(text)
    return None if found is None else Address(int(found[1]), int(found[2]))


class LetterState(StrEnum):
    """What became of a dead letter."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class Settled:
    """What operators did with dead letters, folded from the audit topic; and which lives there have been."""

    def __init__(self) -> None:
        self._by_address: dict[str, AuditRecord] = {}
        self._lives: dict[str, int] = {}
        self._begun: dict[tuple[str, int], AuditRecord] = {}

    def note(self, record: AuditRecord) -> None:
        """Fold one more record of the audit topic."""
        for job_id, life in lives_begun(record).items():
            self.saw(job_id, life)
            self._begun.setdefault((job_id, life), record)
        if record.action not in (REDRIVE, DISCARD):
            return
        self._by_address[record.subject] = record

    def saw(self, job_id: str, life: int) -> None:
        """This life of a job has begun: there is a letter of it, or somebody began it."""
        if life > self._lives.get(job_id, 0):
            self._lives[job_id] = life

    def state(self, address: Address, job_id: str, life: int) -> LetterState:
        """What became of a letter. `life` 0: of a record that is no job."""
        known = self._by_address.get(str(address))
        if known is not None and known.action == REDRIVE:
            return LetterState.REDRIVEN
        if life and self._lives.get(job_id, 0) > life:
            return LetterState.REDRIVEN
        return LetterState.OPEN if known is None else LetterState.DISCARDED

    def by(self, address: Address, job_id: str, life: int) -> AuditRecord | None:
        """The record that says who did it."""
        known = self._by_address.get(str(address))
        if known is not None and known.action == REDRIVE:
            return known
        return self._begun.get((job_id, life + 1), known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """How letters are sent back."""

    from_zero: bool = False
    """Without what the job had saved; children of the new life are new ones."""
    payload: bytes | None = None
    """In place of the job's own; JSON."""
    version: int | None = None
    """Of that payload; None: as before."""


def job_of(letter: DeadLetterRecord) -> Job | None:
    """The job of a letter; None if its bytes are none (yet: a newer version of this code may know them)."""
    for value in (letter.job, letter.raw):
        if value is None:
            continue
        try:
            job = decode_job(value)
        except RecordError:
            continue
        if letter.id in ("", job.id):
            return completed_in(job, letter.topic, letter.at)
    return None


def next_life(letter: DeadLetterRecord, address: Address, how: Redrive, now_ms: int) -> Job:
    """The job that a letter becomes, without its number.

    Raises:
        DeadLetterError: the letter holds no job that could be sent back, or its checkpoint cannot be read.
    """
    job = job_of(letter)
    if job is None:
        raise _no_job(letter, address)
    return renewed(job, now_ms)._replace(
        payload=job.payload if how.payload is None else how.payload,
        version=job.version if how.payload is None or how.version is None else how.version,
        life=max(job.life + 1, life_at(now_ms)) if is_keyed(job.id) else job.life + 1,
        carried=None if how.from_zero else _checkpoint(letter, address, job),
        redriven_from=str(address),
        children_life=0 if how.from_zero else job.children_life or job.life,
    )


def _checkpoint(letter: DeadLetterRecord, address: Address, job: Job) -> Carried | None:
    """What the job had saved, as it travels in its record; None: nothing."""
    progress, steps, children = letter.progress, letter.steps, letter.children
    if progress is None and job.carried is not None:
        # The letter was written in an emergency, from the record as it lay there.
        progress, steps, children = job.carried.progress, job.carried.steps, job.carried.children
    if progress is None:
        return Carried([], children=children) if children else None
    _check(decode_checkpoint, progress, "checkpoint", address)
    for step in steps or ():
        _check(decode_step, step, "saved steps", address)
    return Carried([], progress, steps, children)


def _check(decode: Callable[[bytes], object], value: bytes, what: str, address: Address) -> None:
    try:
        decode(value)
    except RecordError as error:
        raise DeadLetterError(
            f"dead letter {address}: the {what} of its job cannot be read: {error}",
            hint=error.hint if isinstance(error, NewerRecord) else "redrive it with --from-zero",
        ) from error


def number_of(letter: DeadLetterRecord, job: Job, partitions: int) -> int:
    """The number whose owner the job belongs to: its own, for ever.

    Args:
        letter: says where its record lay.
        job: of the letter.
        partitions: of its queue's due lane.

    Raises:
        DeadLetterError: the queue has not that many partitions.
    """
    place = parse_topic(letter.topic)
    number = job.number
    if number is None and place is not None and place.queue == job.queue:
        # A lane and the checkpoint topic have the number's partitions; the queue may have grown since the enqueue.
        number = letter.partition if place.kind in (TopicKind.JOBS, TopicKind.CHECKPOINTS) else None
    if number is None:
        return partition_for((job.id if job.key is None else job.key).encode(), partitions)
    if not 0 <= number < partitions:
        raise DeadLetterError(
            f"job {job.id} belongs to partition {number} of queue {job.queue}, which has {partitions} partitions",
            hint="were the queue's topics deleted and made anew? Give them as many partitions as before",
        )
    return number


def sent_back(namespace: str, job: Job, by: str, reason: str) -> list[OutRecord]:
    """The records that begin a new life: its status, and the job in the due lane of its number."""
    note = f"redriven from {job.redriven_from} by {by}" + (f": {reason}" if reason else "")
    assert job.number is not None
    return life_begun(namespace, job, Lane.DUE, note)


def life_begun(namespace: str, job: Job, lane: Lane, note: str) -> list[OutRecord]:
    """The records that begin a life whose id is known before: its status, and the job in a lane.

    A job without a number goes where its ordering key, else its id, belongs.
    """
    place = (job.id, job.life, job.type, job.queue)
    status = StatusRecord(*place, State.QUEUED, job.enqueued_at, 0, "", note=note, number=job.number)
    key = job.id if job.number is not None or job.key is None else job.key
    number = ANY_PARTITION if job.number is None else job.number
    headers = routing_headers(job, derived=True)
    return [
        OutRecord(status_topic(namespace), job.id.encode(), encode(status)),
        OutRecord(jobs_topic(namespace, job.queue, lane), key.encode(), encode(job), headers, number),
    ]


def renewed(job: Job, now_ms: int) -> Job:
    """A job as its life begins anew: no attempt made, no hop, and as much time to its kill date as it once had."""
    span = None if job.kill_at is None else job.kill_at - job.enqueued_at
    return job._replace(
        enqueued_at=now_ms,
        hop=0,
        attempt=0,
        kill_at=now_ms + span if span is not None and span > 0 else None,
        due_at=None,
        deaths=0,
    )


def _no_job(letter: DeadLetterRecord, address: Address) -> DeadLetterError:
    if letter.raw is None:
        why = "its job was too large to be kept"
    else:
        try:
            decode_job(letter.raw)
            why = f"its bytes are a job of another id than {letter.id}"
        except RecordError as error:
            why = f"what it holds is no job to this version: {error}"
    return DeadLetterError(
        f"dead letter {address} ({letter.reason}) cannot be redriven: {why}",
        hint=f"processor dlq export {address} writes what there is of it; enqueue the job anew from its source, "
        f"then processor dlq discard {address}",
    )
