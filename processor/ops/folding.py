"""What a record of the log means for the projection. Pure.

The topics are read side by side, so nothing here may depend on which topic came first: a job's row keeps apart what its
own record says, what its status says and what its dead letter says, each by its own order, and `settle` puts the three
together. So a projection that was built anew equals one that has grown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from processor.broker.base import Record
from processor.client.track import supersedes
from processor.core.idempotency import copy_for
from processor.core.redrive import Address, job_of
from processor.errors import RecordError
from processor.job import Failure, Job, Place
from processor.states import State
from processor.wire import codec
from processor.wire.headers import IDEMPOTENCY, SIGNAL, header
from processor.wire.json_job import completed_in
from processor.wire.records import AuditRecord, ControlRecord, DeadLetterRecord, StatusRecord
from processor.wire.topics import TopicKind, parse_topic

PAYLOAD = 64 * 1024
"""Bytes of a payload that is kept; longer ones are read from the log when somebody asks."""
_VALUE = 200
"""Characters of a searchable value."""
_VALUES = 20
"""Searchable values of one field, if it is a list."""

READ = frozenset({TopicKind.JOBS, TopicKind.RETRY, TopicKind.STATUS, TopicKind.DLQ, TopicKind.CONTROL, TopicKind.AUDIT})
"""Topics that are projected. Checkpoints are asked for when one job is looked at."""

Search = Mapping[str, Sequence[str]]
"""Payload fields that can be searched, by job type; `customer.id` names an inner one."""


class JobSeen(NamedTuple):
    """The record of a job, in a lane or in the retry chain."""

    job: Job
    place: Place
    in_chain: bool
    copy_for: int = -1
    """See `processor.core.idempotency.copy_for`."""


class StatusSeen(NamedTuple):
    """A status."""

    status: StatusRecord
    offset: int


class LetterSeen(NamedTuple):
    """A dead letter."""

    address: Address
    letter: DeadLetterRecord
    job: Job | None
    size: int


class OrderSeen(NamedTuple):
    """An order of an operator; None: it was taken back."""

    target: str
    order: ControlRecord | None


class AuditSeen(NamedTuple):
    """What an operator did."""

    address: Address
    record: AuditRecord


Seen = JobSeen | StatusSeen | LetterSeen | OrderSeen | AuditSeen


def seen(record: Record) -> Seen | None:
    """What a record is; None: nothing that is projected (a signal in a lane, say).

    Raises:
        RecordError: its bytes are none of ours, or of a newer version.
    """
    topic, value = record.topic() or "", record.value()
    name = _topic(topic)
    kind = None if name is None else name.kind
    place = Place(topic, record.partition() or 0, record.offset() or 0)
    if kind is TopicKind.CONTROL:
        target = (record.key() or b"").decode("utf-8", "replace")
        return OrderSeen(target, None if value is None else codec.decode_control(value))
    if value is None or kind is None:
        return None
    if kind is TopicKind.STATUS:
        return StatusSeen(codec.decode_status(value), place.offset)
    if kind is TopicKind.AUDIT:
        return AuditSeen(Address(place.partition, place.offset), codec.decode_audit(value))
    if kind is TopicKind.DLQ:
        return _letter(record, place, value)
    if kind not in (TopicKind.JOBS, TopicKind.RETRY) or header(record.headers(), SIGNAL) is not None:
        return None
    job = codec.decode_job(value)
    job = completed_in(job, record.topic() or "", record.timestamp()[1])
    return JobSeen(job, place, kind is TopicKind.RETRY, copy_for(header(record.headers(), IDEMPOTENCY)))


_topic = lru_cache(maxsize=4096)(parse_topic)


def _letter(record: Record, place: Place, value: bytes) -> LetterSeen:
    address = Address(place.partition, place.offset)
    try:
        letter = codec.decode_dead_letter(value)
    except RecordError as error:
        letter = DeadLetterRecord("", error.code, record.timestamp()[1], "", *place, raw=value, raw_key=record.key())
    return LetterSeen(address, letter, job_of(letter), len(value))


class RecordSide(NamedTuple):
    """What the newest record of a job says. Each side's fields are columns of `tables.jobs`, in their order."""

    type: str = ""
    queue: str = ""
    key: str | None = None
    number: int | None = None
    parent: str | None = None
    version: int = 0
    enqueued_at: int = 0
    kill_at: int | None = None
    record_life: int = 0
    record_rank: int = -1
    """Order of its records: life, then hop, then a lane before the retry chain. -1: none was seen."""
    waits: str = ""
    """`queued` in a lane, `scheduled` in the retry chain before its first attempt, else empty."""
    lay_topic: str = ""
    lay_partition: int = 0
    lay_offset: int = 0
    copy_for: int = -1
    """See `JobSeen`."""


class StatusSide(NamedTuple):
    """What the status that counts says."""

    status_life: int = 0
    status_state: str = ""
    status_at: int = 0
    status_began: int = 0
    """When it was first told: a running job tells its progress again and again."""
    status_offset: int = -1
    attempt: int = 0
    worker: str = ""
    done: float | None = None
    total: float | None = None
    note: str = ""
    error_kind: str = ""
    error_message: str = ""
    error_place: str = ""
    fingerprint: str = ""


class LetterSide(NamedTuple):
    """What the dead letter of the latest life says."""

    letter_life: int = 0
    letter_at: int = 0


_NO_RECORD, _NO_STATUS, _NO_LETTER = RecordSide(), StatusSide(), LetterSide()


@dataclass(slots=True)
class JobRow:
    """A row of `tables.jobs`: the three sides, each of which is replaced as a whole, and what they come to."""

    id: str
    record: RecordSide = _NO_RECORD
    status: StatusSide = _NO_STATUS
    letter: LetterSide = _NO_LETTER
    due_at: int | None = None
    """Of the record or the status, whichever is of the later life."""
    state: str = ""
    life: int = 0
    changed_at: int = 0

    @classmethod
    def loaded(cls, values: Sequence[Any]) -> JobRow:
        """As it lies in the table. `values`: in the order of `JOB_COLUMNS`."""
        id_, *sides = values
        record, status = RecordSide(*sides[:_RECORD]), StatusSide(*sides[_RECORD:_STATUS])
        return cls(id_, record, status, LetterSide(*sides[_STATUS:_LETTER]), *sides[_LETTER:])

    def settle(self) -> None:
        """State, life and time of the last change, from the three sides."""
        record, status, letter = self.record, self.status, self.letter
        if record.copy_for >= 0 and status.status_life and record.enqueued_at <= status.status_at + record.copy_for:
            # Enqueued again under the same key while it was there: the owner lets that record pass.
            self.life = max(status.status_life, letter.letter_life)
        else:
            self.life = max(record.record_life, status.status_life, letter.letter_life)
        if status.status_life == self.life:
            self.state, self.changed_at = status.status_state, status.status_at
        elif letter.letter_life == self.life:
            self.state, self.changed_at = State.DEAD.value, letter.letter_at
        else:
            self.state, self.changed_at = record.waits or State.QUEUED.value, record.enqueued_at

    def alike(self) -> dict[str, Any]:
        """What it has in common with the jobs that it is counted with, and when it last changed."""
        fingerprint = self.status.fingerprint
        return {
            "fingerprint": fingerprint,
            "error_kind": self.status.error_kind if fingerprint else "",
            "queue": self.record.queue,
            "type": self.record.type,
            "state": self.state,
            "changed_at": self.changed_at,
        }

    def columns(self) -> dict[str, Any]:
        """As SQL takes it."""
        values = (self.id, *self.record, *self.status, *self.letter, *_REST(self))
        return dict(zip(JOB_COLUMNS, values, strict=True))


_LAST = ("due_at", "state", "life", "changed_at")
_REST = attrgetter(*_LAST)
_RECORD = len(RecordSide._fields)
_STATUS = _RECORD + len(StatusSide._fields)
_LETTER = _STATUS + len(LetterSide._fields)
JOB_COLUMNS = ("id", *RecordSide._fields, *StatusSide._fields, *LetterSide._fields, *_LAST)


def fold_job(
    row: JobRow, job: Job, place: Place, *, in_chain: bool, in_letter: bool = False, copy_for: int = -1
) -> bool:
    """A record of the job. Whether it is newer than what was known, so that the payload is its."""
    # A letter's record ranks below the same record in a lane: its place is where bytes can be read as a job.
    rank = (job.life << 32) | (job.hop << 2) | (0 if in_letter else 1 if in_chain else 2)
    if rank <= row.record.record_rank:
        return False
    row.record = RecordSide(
        clean(job.type),
        clean(job.queue),
        clean(job.key),
        job.number if job.number is not None else None if in_chain else place.partition,
        clean(job.parent),
        job.version,
        job.enqueued_at,
        job.kill_at,
        job.life,
        rank,
        State.SCHEDULED.value if in_chain and job.attempt == 0 else State.QUEUED.value,
        *place,
        copy_for,
    )
    if row.status.status_life < job.life:
        row.due_at = job.due_at if in_chain else None
    return True


def fold_status(row: JobRow, status: StatusRecord, offset: int) -> bool:
    """A status; whether it counts."""
    before = row.status
    known = None
    if before.status_life:
        known = status._replace(life=before.status_life, state=State(before.status_state), at=before.status_at)
    if not supersedes(status, known):
        return False
    error = status.error
    row.status = StatusSide(
        status.life,
        status.state.value,
        status.at,
        before.status_began if says_again(row, status) else status.at,
        offset,
        status.attempt,
        clean(status.worker),
        status.done,
        status.total,
        clean(status.note or ""),
        *((clean(error.kind), clean(error.message), clean(error.traceback), clean(error.fingerprint)) if error else ()),
    )
    row.due_at = status.due_at
    if row.record.record_rank < 0:
        row.record = RecordSide(clean(status.type), clean(status.queue), number=status.number)
    return True


def says_again(row: JobRow, status: StatusRecord) -> bool:
    """Whether a status tells only how far the same attempt has come."""
    known = row.status
    same = (known.status_life, known.status_state, known.attempt, known.worker)
    return same == (status.life, status.state.value, status.attempt, clean(status.worker))


def fold_letter(row: JobRow, seen: LetterSeen) -> None:
    """A dead letter, beside the job that it holds."""
    if seen.job is not None and seen.job.life >= row.letter.letter_life:
        row.letter = LetterSide(seen.job.life, seen.letter.at)


def letter_columns(seen: LetterSeen) -> dict[str, Any]:
    """A row of `tables.letters`, still open."""
    letter, job = seen.letter, seen.job
    last = letter.failures[-1] if letter.failures else None
    lay = parse_topic(letter.topic)
    return {
        "partition": seen.address.partition,
        "offset": seen.address.offset,
        "job_id": clean(job.id if job else letter.id),
        "life": job.life if job else 0,
        "type": clean(job.type) if job else "",
        "queue": clean(job.queue if job else (lay.queue if lay else None) or ""),
        "reason": clean(letter.reason),
        "at": letter.at,
        "worker": clean(letter.worker),
        "error": clean(f"{last.kind}: {last.message}".partition("\n")[0]) if last else "",
        "fingerprint": clean(last.fingerprint) if last else "",
        "attempts": sum(failure.attempt > 0 for failure in letter.failures or ()),
        "size": seen.size,
        "state": "open",
        "settled_by": "",
        "settled_at": None,
        "settled_reason": "",
    }


def move_columns(row: JobRow) -> dict[str, Any]:
    """The status that counted until now, as a row of `tables.moves`."""
    known = row.status
    return {
        "job_id": clean(row.id),
        "offset": known.status_offset,
        "life": known.status_life,
        "state": known.status_state,
        "at": known.status_began,
        "attempt": known.attempt,
        "worker": clean(known.worker),
        "note": clean(known.note),
        "error_kind": clean(known.error_kind),
        "error_message": clean(known.error_message),
        "fingerprint": clean(known.fingerprint),
    }


def failure_columns(job_id: str, life: int, failure: Failure) -> dict[str, Any]:
    """A row of `tables.failures`."""
    return {
        "job_id": clean(job_id),
        "life": life,
        "attempt": failure.attempt,
        "at": failure.at,
        "kind": clean(failure.kind),
        "message": clean(failure.message),
        "traceback": clean(failure.traceback),
        "fingerprint": clean(failure.fingerprint),
        "worker": clean(failure.worker),
    }


def fuller(known: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Of two tellings of one failure what each has more of: later records leave out what earlier ones said."""
    return {
        **known,
        "message": max(known["message"], other["message"], key=len),
        "traceback": max(known["traceback"], other["traceback"], key=len),
    }


def searchable(job: Job, search: Search) -> Iterator[tuple[str, str]]:
    """The declared fields of a payload, as (name, value)."""
    names = search.get(job.type)
    if not names or not job.payload:
        return
    try:
        payload = json.loads(job.payload)
    except (ValueError, RecursionError):
        return
    for name in names:
        found: Any = payload
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        for value in found[:_VALUES] if isinstance(found, list) else (found,):
            if isinstance(value, str | int | float):
                text = json.dumps(value) if isinstance(value, bool | float) else str(value)
                yield name, clean(text[:_VALUE])


def clean(value: Any) -> Any:
    """A value that every database takes: PostgreSQL refuses the character NUL in a text."""
    return value.replace("\x00", "\\x00") if isinstance(value, str) and "\x00" in value else value
