"""What a job is, as it travels: the values every floor speaks about.

These are NamedTuples, not dataclasses: a worker builds one per record it reads, and `Job._make(values)` costs a tenth
of a frozen dataclass. They are immutable all the same; use `_replace`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Lane(StrEnum):
    """A topic of a queue."""

    NORMAL = "normal"
    DUE = "due"
    HIGH = "high"
    LOW = "low"


OVERTAKING_LANES = frozenset({Lane.HIGH, Lane.LOW})
"""A queue with ordering keys has none of them: its jobs would pass one another."""


class Failure(NamedTuple):
    """A failed attempt, as it is kept: in the record of a job that is tried again, and in its dead letter."""

    kind: str
    """Class name with module, e.g. `builtins.ValueError`; or a stable code of ours."""
    message: str
    traceback: str = ""
    fingerprint: str = ""
    """Same for the same error at the same place, whatever the values in its message."""
    attempt: int = 0
    """Which attempt of the life it ended, counted from 1; 0: none."""
    worker: str = ""
    at: int = 0
    """Milliseconds since the epoch."""


CHILDREN_NAMED = 100
"""Children of a job that are named in its record and in its dead letter."""


class Carried(NamedTuple):
    """What a job takes along from earlier attempts."""

    failures: list[Failure]
    """Of this life, oldest first; cut to fit."""
    progress: bytes | None = None
    """The encoded CheckpointRecord; None if there is none or the checkpoint topic keeps it."""
    steps: list[bytes] | None = None
    """The encoded StepRecords."""
    children: list[str] | None = None
    """Ids of the children that it has started, the first `CHILDREN_NAMED` of them: it starts none of these again."""


class Job(NamedTuple):
    """One unit of work, as it is written to a lane. Field order is the order of schemas/job.avsc."""

    id: str
    """Unique; UUIDv7 for fresh jobs, a digest for derived ones."""
    type: str
    """Name of the job type, e.g. `import.file`."""
    version: int
    """Version of the payload's model."""
    queue: str
    payload: bytes
    """JSON; empty if the job type takes none."""
    enqueued_at: int
    """Milliseconds since the epoch, clock of the producer."""
    key: str | None = None
    """Ordering key: jobs of one (queue, key) run one at a time, in order."""
    life: int = 1
    hop: int = 0
    attempt: int = 0
    """Attempts of this life that were already made."""
    number: int | None = None
    """Partition number; None until the record leaves the partition it was first written to."""
    parent: str | None = None
    """Id of the job that spawned this one."""
    parent_life: int = 0
    kill_at: int | None = None
    """No attempt may start or go on after this moment, milliseconds since the epoch."""
    due_at: int | None = None
    deaths: int = 0
    """Unclean ends of a worker process while this job ran without saving anything."""
    carried: Carried | None = None
    """What it takes along from earlier attempts."""
    redriven_from: str | None = None
    """What this life began with: a dead letter (`partition@offset`), or a replayed job (`namespace/queue/id@life`)."""
    children_life: int = 0
    """The life that its children's ids are made of, 0: its own. A redrive from the checkpoint goes on with the same."""
    trace: str | None = None
    """Whoever enqueued it, as W3C trace context: `traceparent`, then a blank and `tracestate` if there is one. Says
    nothing of what the job is: the same job comes from other requests too."""


class Place(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


class Version(NamedTuple):
    """Order of the records of one job; the highest wins, whatever offset it lies at."""

    life: int
    hop: int
    epoch: int
    """Durable counter of the number: grows with each owner."""
    sequence: int
    """Counts the records one owner wrote for the number within its epoch."""


class LoopProgress(NamedTuple):
    """Where a `ctx.each` loop stands. JSON texts, so that a worker need not know their types."""

    cursor: str | None
    """JSON of the last finished item's cursor; None before the first."""
    items: int
    """Finished items, over all attempts."""
    total: int | None
    exhausted: bool


class Progress(NamedTuple):
    """Everything a job has saved, except its steps."""

    cursor: str | None = None
    """JSON of the value given to `ctx.checkpoint`."""
    state: str | None = None
    """JSON of `ctx.state`."""
    loops: dict[str, LoopProgress] = {}  # noqa: RUF012  (never mutated: progress is replaced whole)
    done: float | None = None
    total: float | None = None
    """`ctx.progress(done, total)`."""


class StepPhase(StrEnum):
    """What the log knows of a step. STARTED without an end is in doubt (`ctx.once`)."""

    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"


class Step(NamedTuple):
    """A saved step. `name` is scoped: `head`, `rows[501]/refund`."""

    name: str
    phase: StepPhase
    result: str | None = None
    """JSON of the returned value."""
    error: str | None = None


class ErrorInfo(NamedTuple):
    """An exception as it travels: strings only, never an object to rebuild."""

    kind: str
    """Class name with module, e.g. `builtins.ValueError`; or a stable code of ours."""
    message: str
    traceback: str = ""
    fingerprint: str = ""
    """Same for the same error at the same place, whatever the values in its message."""
