"""What one outcome writes, and what it is written from: the values between the worker and the completer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from processor.broker.base import OutRecord
from processor.core.checkpoint import SavedRecord
from processor.job import Job, Progress, Step
from processor.states import State


class Topics(NamedTuple):
    """Where the records of one number go."""

    status: str
    dlq: str
    checkpoints: str
    dedupe: str
    number: int
    namespace: str = ""


class Origin(NamedTuple):
    """Where a job's record was read."""

    topic: str
    partition: int
    offset: int


class Saved(NamedTuple):
    """What the checkpoint topic holds of a job, as far as this owner wrote or restored it."""

    progress: Progress | None
    steps: Sequence[Step]
    promoted: bool
    written: bool = True
    """Whether the checkpoint topic holds any of it; else it came with the job's record, or was never saved."""
    fresh: Sequence[Step] = ()
    """Those of `steps` that it does not hold."""


class SavedOut(NamedTuple):
    """A record for the checkpoint topic, with what it says: the live table needs both once it is committed."""

    out: OutRecord
    record: SavedRecord


class WriteSet(NamedTuple):
    """The records of one end, in the order of a flush."""

    creates: Sequence[OutRecord] = ()
    saves: Sequence[SavedOut] = ()
    """Creating records of the checkpoint topic."""
    announces: Sequence[OutRecord] = ()
    later: Sequence[bytes] = ()
    """Keys of the checkpoint topic to bury in a later flush than the one that commits `saves`."""
    state: State | None = None


class Move(NamedTuple):
    """A job that goes on later, from another record."""

    job: Job
    """As it is written there: a hop further."""
    writes: WriteSet
