"""Records to bytes and back: Avro single-object encoding (C3 01, fingerprint of the writer's schema, body).

The fingerprint says with which schema a record was written. Today's schemas decode straight into the record; older ones
are resolved to today's first. Any bytes at all decode to a record or raise `UndecodableRecord` or `NewerRecord`, and
never take more memory than a small multiple of their own length.

One job costs one `decode_job` and one `encode` of its status, so these two have a short form each (see
`wire.schemas`): a job whose last fields hold their defaults is written without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple, TypeVar, cast

from fastavro import schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError

from processor.errors import NewerRecord, RecordError, UndecodableRecord
from processor.job import Carried, ErrorInfo, Failure, Job, LoopProgress
from processor.states import State
from processor.wire import schemas
from processor.wire.brief_job import decode_brief_job, encode_brief_job
from processor.wire.brief_status import INDEX, brief_status, encode_brief_status
from processor.wire.json_job import OPENS, decode_json_job
from processor.wire.names import fault_of_id, is_id
from processor.wire.records import (
    AlertRecord,
    AnyRecord,
    AuditRecord,
    CheckpointRecord,
    ControlRecord,
    DeadLetterRecord,
    DedupeMark,
    LaneMark,
    LiveJobRecord,
    NumberMark,
    ScheduleFired,
    ScheduleRecord,
    StatusRecord,
    StepRecord,
)

R = TypeVar("R", bound=NamedTuple)

MARKER = b"\xc3\x01"
"""First two bytes of single-object encoding."""
HEAD = len(MARKER) + 8
"""Bytes before the body: the marker and the fingerprint."""

_GARBAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    SchemaResolutionError,
    StopIteration,
    TypeError,
    ValueError,
)
"""What fastavro may raise on bytes that are not the schema's."""

_JOB_FIELDS = Job._fields
_JOB_BRIEF = 7
"""Fields of schemas/brief/job.avsc."""
_JOB_TAIL = tuple(Job._field_defaults[name] for name in _JOB_FIELDS[_JOB_BRIEF:])
_STATUS_BRIEF = 9
"""Fields of schemas/brief/status.avsc."""
_STATUS_FIELDS = StatusRecord._fields
_STATUS_TAIL = (None,) * (len(_STATUS_FIELDS) - _STATUS_BRIEF)
_SUCCEEDED = INDEX[State.SUCCEEDED]
_STATES: dict[str, State] = {state.value: state for state in State}


def _open_job(values: dict[str, Any]) -> None:
    carried = values.get("carried")
    if carried is not None:
        failures = [Failure(**failure) for failure in carried["failures"]]
        values["carried"] = Carried(failures, carried["progress"], carried["steps"], carried["children"])


def _close_job(values: dict[str, Any]) -> None:
    carried = values["carried"]
    if carried is not None:
        failures = [failure._asdict() for failure in carried.failures]
        values["carried"] = {**carried._asdict(), "failures": failures}


def _open_checkpoint(values: dict[str, Any]) -> None:
    if values["loops"] is not None:
        values["loops"] = {name: LoopProgress(**loop) for name, loop in values["loops"].items()}


def _close_checkpoint(values: dict[str, Any]) -> None:
    if values["loops"] is not None:
        values["loops"] = {name: loop._asdict() for name, loop in values["loops"].items()}


def _open_status(values: dict[str, Any]) -> None:
    values["state"] = _STATES[values["state"]]
    if values.get("error") is not None:
        values["error"] = ErrorInfo(**values["error"])


def _close_status(values: dict[str, Any]) -> None:
    if values["error"] is not None:
        values["error"] = values["error"]._asdict()


def _open_live_job(values: dict[str, Any]) -> None:
    values["state"] = _STATES[values["state"]]


def _open_number_mark(values: dict[str, Any]) -> None:
    values["lanes"] = [LaneMark(**lane) for lane in values["lanes"]]


def _close_number_mark(values: dict[str, Any]) -> None:
    values["lanes"] = [lane._asdict() for lane in values["lanes"]]


def _open_dead_letter(values: dict[str, Any]) -> None:
    if values["failures"] is not None:
        values["failures"] = [Failure(**failure) for failure in values["failures"]]


def _close_dead_letter(values: dict[str, Any]) -> None:
    if values["failures"] is not None:
        values["failures"] = [failure._asdict() for failure in values["failures"]]


def _same(values: dict[str, Any]) -> None:
    """Nothing nested: the values are the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """How one type of record is written and read."""

    name: str
    record: type[Any]
    topics: str
    """Where such records lie, for messages."""
    open: Callable[[dict[str, Any]], None]
    """Turns nested values, in place, into those of the record."""
    close: Callable[[dict[str, Any]], None]
    """The opposite of `open`."""
    head: bytes
    """Marker and fingerprint of today's schema."""
    current: schemas.Schema
    brief_head: bytes
    """Marker and fingerprint of the short form; empty if there is none."""
    brief: schemas.Schema
    written: dict[bytes, schemas.Schema]
    """Every schema ever written, by marker and fingerprint."""


class _Formats(NamedTuple):
    """All formats, in the ways they are looked up."""

    job: _Format
    status: _Format
    by_record: dict[type[Any], _Format]
    by_head: dict[bytes, _Format]


_KINDS: tuple[tuple[str, type[Any], str, Callable[[dict[str, Any]], None], Callable[[dict[str, Any]], None]], ...] = (
    ("job", Job, "jobs.* and retry.*", _open_job, _close_job),
    ("checkpoint", CheckpointRecord, "checkpoints.*", _open_checkpoint, _close_checkpoint),
    ("step", StepRecord, "checkpoints.*", _same, _same),
    ("live_job", LiveJobRecord, "checkpoints.*", _open_live_job, _same),
    ("status", StatusRecord, "status", _open_status, _close_status),
    ("dedupe", DedupeMark, "dedupe.*", _same, _same),
    ("number_mark", NumberMark, "checkpoints.*", _open_number_mark, _close_number_mark),
    ("dead_letter", DeadLetterRecord, "dlq", _open_dead_letter, _close_dead_letter),
    ("control", ControlRecord, "control", _same, _same),
    ("schedule", ScheduleRecord, "schedules", _same, _same),
    ("schedule_fired", ScheduleFired, "schedules", _same, _same),
    ("alert", AlertRecord, "alerts", _same, _same),
    ("audit", AuditRecord, "audit", _same, _same),
)


@cache
def _formats() -> _Formats:
    """Read the schemas, once."""
    made: dict[str, _Format] = {}
    for name, record, topics, open_, close in _KINDS:
        published = schemas.load(name)
        brief = published.brief or published.current
        made[name] = _Format(
            name=name,
            record=record,
            topics=topics,
            open=open_,
            close=close,
            head=MARKER + schemas.fingerprint(published.current),
            current=published.current,
            brief_head=MARKER + schemas.fingerprint(brief) if published.brief else b"",
            brief=brief,
            written={MARKER + print_: schema for print_, schema in published.written.items()},
        )
    return _Formats(
        job=made["job"],
        status=made["status"],
        by_record={format_.record: format_ for format_ in made.values()},
        by_head={head: format_ for format_ in made.values() for head in format_.written},
    )


def encode(record: AnyRecord) -> bytes:
    """The bytes of a record, 10 bytes of head included.

    Text that is not valid Unicode (lone surrogates in an error message, say) is written with replacement characters:
    a record of ours must never fail to be written because of what a handler's exception says.
    """
    try:
        if type(record) is StatusRecord and record[_STATUS_BRIEF:] == _STATUS_TAIL:
            return encode_brief_status(_formats().status.brief_head, record)
        if type(record) is Job and record[_JOB_BRIEF:] == _JOB_TAIL:
            return encode_brief_job(_formats().job.brief_head, record)
        format_ = _formats().by_record[type(record)]
        values = record._asdict()
        format_.close(values)
        sink = BytesIO()
        sink.write(format_.head)
        schemaless_writer(sink, format_.current, values)
        return sink.getvalue()
    except UnicodeEncodeError:
        return encode(_printable(record))


def encode_success(job: Job, job_id: bytes, at: int, worker: str, result: bytes | None) -> bytes:
    """The status of a job that has succeeded. `job_id` is the job's, encoded; the job was decoded, so all of its text
    is valid Unicode.
    """
    head = _formats().status.brief_head
    return brief_status(head, job_id, job.life, job.type, job.queue, _SUCCEEDED, at, job.attempt + 1, worker, result)


def _printable(value: Any) -> Any:
    """The value with every text in it made valid Unicode."""
    if type(value) is str:
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, tuple):
        return cast("type[NamedTuple]", type(value))._make(map(_printable, value))
    if type(value) is list:
        return [_printable(item) for item in value]
    if type(value) is dict:
        return {_printable(key): _printable(item) for key, item in value.items()}
    return value


def decode_job(data: bytes) -> Job:
    """A job from a lane, a retry topic, a promoted job or a dead letter; in a lane it may be JSON (`json_job`).

    Raises:
        NewerRecord: written with a schema that this version does not know.
        UndecodableRecord: not a job.
    """
    format_ = _formats().job
    if data[:HEAD] == format_.brief_head:
        quick = decode_brief_job(data, HEAD)
        if quick is not None:
            if not is_id(quick[0]):
                raise _not_a_job(quick[0])
            return quick
        source = BytesIO(data)
        source.seek(HEAD)
        try:
            values = schemaless_reader(source, format_.brief, None)
        except _GARBAGE as error:
            raise _garbage(format_, error) from error
        if source.read(1):
            raise _trailing(format_)
        # tuple.__new__ is what _make does, minus a check of the length, which the schema has done.
        job = tuple.__new__(Job, (*values.values(), *_JOB_TAIL))  # type: ignore[union-attr]  # a record's dict
    elif data[:1] == OPENS:
        return decode_json_job(data)
    else:
        job = _decode(format_, data, Job)
    if not is_id(job.id):
        raise _not_a_job(job.id)
    return job


def _not_a_job(job_id: str) -> UndecodableRecord:
    return UndecodableRecord(f"a job whose id {job_id[:100]!r} cannot be one: {fault_of_id(job_id)}")


def decode_checkpoint(data: bytes) -> CheckpointRecord:
    """Progress or an end mark. Raises as `decode_job`."""
    return _decode(_formats().by_record[CheckpointRecord], data, CheckpointRecord)


def decode_step(data: bytes) -> StepRecord:
    """A saved step. Raises as `decode_job`."""
    return _decode(_formats().by_record[StepRecord], data, StepRecord)


def decode_live_job(data: bytes) -> LiveJobRecord:
    """A promoted or parked job. Raises as `decode_job`."""
    return _decode(_formats().by_record[LiveJobRecord], data, LiveJobRecord)


def decode_status(data: bytes) -> StatusRecord:
    """A status. Raises as `decode_job`."""
    return _decode(_formats().status, data, StatusRecord)


def decode_number_mark(data: bytes) -> NumberMark:
    """How far the lanes of a number are done. Raises as `decode_job`."""
    return _decode(_formats().by_record[NumberMark], data, NumberMark)


def decode_dedupe(data: bytes) -> DedupeMark:
    """A dedupe mark. Raises as `decode_job`."""
    return _decode(_formats().by_record[DedupeMark], data, DedupeMark)


def decode_dead_letter(data: bytes) -> DeadLetterRecord:
    """A dead letter. Raises as `decode_job`."""
    return _decode(_formats().by_record[DeadLetterRecord], data, DeadLetterRecord)


def decode_control(data: bytes) -> ControlRecord:
    """What an operator wants. Raises as `decode_job`."""
    return _decode(_formats().by_record[ControlRecord], data, ControlRecord)


def decode_alert(data: bytes) -> AlertRecord:
    """An alert. Raises as `decode_job`."""
    return _decode(_formats().by_record[AlertRecord], data, AlertRecord)


def decode_audit(data: bytes) -> AuditRecord:
    """What an operator did. Raises as `decode_job`."""
    return _decode(_formats().by_record[AuditRecord], data, AuditRecord)


def decode(data: bytes) -> AnyRecord:
    """Whatever record this is, told by its fingerprint. Raises as `decode_job`."""
    format_ = _formats().by_head.get(data[:HEAD])
    if format_ is None:
        raise _unknown("record", "", data)
    return cast(AnyRecord, _decode(format_, data, format_.record))


def _decode(format_: _Format, data: bytes, record: type[R]) -> R:
    head = data[:HEAD]
    writer = format_.written.get(head)
    if writer is None:
        other = _formats().by_head.get(head)
        if other is not None:
            raise UndecodableRecord(f"a {other.name} record lies where a {format_.name} record should be")
        raise _unknown(f"{format_.name} record", format_.topics, data)
    source = BytesIO(data)
    source.seek(HEAD)
    # Resolving costs twice the time of reading, and the short form needs none: what it lacks are the record's defaults.
    known = head in (format_.head, format_.brief_head)
    try:
        values = schemaless_reader(source, writer, None if known else format_.current)
        assert isinstance(values, dict)
        for name in record._fields[len(values) :]:
            values.setdefault(name, record._field_defaults[name])
        format_.open(values)
    except _GARBAGE as error:
        raise _garbage(format_, error) from error
    if source.read(1):
        raise _trailing(format_)
    return record._make(map(values.__getitem__, record._fields))


def _garbage(format_: _Format, error: BaseException) -> UndecodableRecord:
    return UndecodableRecord(f"the bytes of a {format_.name} record do not decode: {type(error).__name__}: {error}")


def _trailing(format_: _Format) -> UndecodableRecord:
    return UndecodableRecord(f"the bytes of a {format_.name} record go on after its last field")


_WRITE_IT_SO = "other programs write jobs as JSON that begins with {, or as Avro with its fingerprint and no registry"


def _unknown(what: str, topics: str, data: bytes) -> RecordError:
    if data[:2] == MARKER and len(data) >= HEAD:
        place = f" (topics {topics} of the namespace)" if topics else ""
        return NewerRecord(
            f"a {what}{place} was written with the schema {data[2:HEAD].hex()}, which this version does not know",
            hint="a newer version of this package writes to these topics: upgrade this process",
        )
    says = f"does not start with C3 01 and a fingerprint: {data[:HEAD].hex(' ') or 'empty'}"
    if data[:1] == b"\x00":
        says = "starts with 00, as records written through a schema registry do"
    return UndecodableRecord(f"a {what} {says}", hint=_WRITE_IT_SO)
