"""The keys of a checkpoint topic, and the order of the records of one job.

    id                 progress, or the end mark of a job that had saved progress
    id#step:name       one saved step; the name is scoped and may hold any character, `#` and `/` too
    id#job             a promoted or parked job, whole
    id#signal:source   a signal that came before its job was parked
    #number            how far the lanes of this partition number are done

A job's id holds no `#`: the first one ends it. An equal key means an equal place in the compacted topic, so a tombstone
removes exactly what was written under its own key.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from processor.errors import UndecodableRecord
from processor.job import Version
from processor.wire.records import CheckpointRecord, LiveJobRecord, StepRecord

SavedRecord = CheckpointRecord | StepRecord | LiveJobRecord


NUMBER_KEY = b"#number"
"""No job has an empty id."""


class KeyKind(StrEnum):
    """What a key of the checkpoint topic holds."""

    PROGRESS = "progress"
    STEP = "step"
    JOB = "job"
    SIGNAL = "signal"
    NUMBER = "number"


class ParsedKey(NamedTuple):
    """A key of the checkpoint topic, taken apart."""

    kind: KeyKind
    id: str
    rest: str
    """Name of the step or source of the signal; else empty."""


def order_of(record: SavedRecord) -> Version:
    """The place of a record among the records of its key: the highest wins, whatever offset it lies at."""
    return Version(record.life, record.hop, record.epoch, record.sequence)


def progress_key(job_id: str) -> bytes:
    """Key of a job's progress and end mark."""
    _check_id(job_id)
    return job_id.encode()


def step_key(job_id: str, name: str) -> bytes:
    """Key of a saved step."""
    _check_id(job_id)
    return f"{job_id}#step:{name}".encode()


def job_key(job_id: str) -> bytes:
    """Key of a promoted or parked job's whole record."""
    _check_id(job_id)
    return f"{job_id}#job".encode()


def signal_key(job_id: str, source: str) -> bytes:
    """Key of a signal that waits for its job."""
    _check_id(job_id)
    return f"{job_id}#signal:{source}".encode()


def parse_key(key: bytes) -> ParsedKey:
    """What a key means.

    Raises:
        UndecodableRecord: none of ours.
    """
    try:
        job_id, mark, rest = key.decode().partition("#")
    except UnicodeDecodeError as error:
        raise UndecodableRecord(f"the checkpoint key {key!r} is not UTF-8") from error
    if key == NUMBER_KEY:
        return ParsedKey(KeyKind.NUMBER, "", "")
    if job_id:
        if not mark:
            return ParsedKey(KeyKind.PROGRESS, job_id, "")
        if rest == "job":
            return ParsedKey(KeyKind.JOB, job_id, "")
        if rest.startswith("step:"):
            return ParsedKey(KeyKind.STEP, job_id, rest[5:])
        if rest.startswith("signal:"):
            return ParsedKey(KeyKind.SIGNAL, job_id, rest[7:])
    raise UndecodableRecord(f"the checkpoint key {key!r} has no known form")


def _check_id(job_id: str) -> None:
    if not job_id or "#" in job_id:
        raise ValueError(f"a job id is not empty and holds no '#': {job_id!r}")
