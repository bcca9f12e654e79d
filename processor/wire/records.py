"""The records of the log, as values. `wire.codec` turns them into bytes and back; schemas/*.avsc is their definition.

Field order equals the schema's, so that decoding is one `_make`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from processor.job import ErrorInfo, Failure, Job, LoopProgress
from processor.states import State

__all__ = [
    "AlertRecord",
    "AnyRecord",
    "AuditRecord",
    "CheckpointRecord",
    "ControlRecord",
    "DeadLetterRecord",
    "DedupeMark",
    "Job",
    "LaneMark",
    "LiveJobRecord",
    "NumberMark",
    "ScheduleFired",
    "ScheduleRecord",
    "StatusRecord",
    "StepRecord",
]


class CheckpointRecord(NamedTuple):
    """Progress of a job, or its end mark (`final` is set). Key: the job's id."""

    id: str
    life: int
    hop: int
    epoch: int
    sequence: int
    at: int
    """Milliseconds since the epoch."""
    home_topic: str
    """Topic that holds the job's record; the checkpoint topic itself once it is promoted."""
    home_offset: int
    """Offset in the lane; -1 for a promoted job (`id#job`)."""
    attempt: int
    cursor: str | None = None
    state: str | None = None
    loops: dict[str, LoopProgress] | None = None
    done: float | None = None
    total: float | None = None
    final: bytes | None = None
    """Encoded StatusRecord of the end, in an end mark."""


class StepRecord(NamedTuple):
    """One saved step. Key: `id#step:name`."""

    id: str
    life: int
    hop: int
    epoch: int
    sequence: int
    name: str
    phase: str
    result: str | None = None
    error: str | None = None


class LiveJobRecord(NamedTuple):
    """A promoted or parked job: its whole record. Key: `id#job`."""

    id: str
    life: int
    hop: int
    epoch: int
    sequence: int
    job: bytes
    """The job as encoded in its lane."""
    lane_topic: str
    """Where it came from; also its place in key order, with `lane_offset`."""
    lane_offset: int
    since: int
    """When it was promoted or parked, milliseconds since the epoch."""
    state: State = State.RUNNING
    reason: str = ""
    """Why it is parked."""
    until: int | None = None
    """When a parked job is tried again at the latest, milliseconds since the epoch."""


class StatusRecord(NamedTuple):
    """Where a life of a job stands. Key: the job's id."""

    id: str
    life: int
    type: str
    queue: str
    state: State
    at: int
    attempt: int
    worker: str
    result: bytes | None = None
    """JSON."""
    error: ErrorInfo | None = None
    done: float | None = None
    total: float | None = None
    note: str | None = None
    due_at: int | None = None
    """When the next attempt may begin, milliseconds since the epoch; None unless it waits for that."""
    number: int | None = None
    """Partition number of a job that waits for its retry."""
    kill_at: int | None = None
    """Its kill date, milliseconds since the epoch; None if it has none, or has ended."""
    ends_at: int | None = None
    """When the attempt that runs has used up its attempt timeout, milliseconds since the epoch; None if none runs, or
    it has none."""


class DedupeMark(NamedTuple):
    """A derived job that has been finished or promoted. Key: the job's id."""

    id: str
    life: int
    hop: int
    at: int
    due: int = 0
    """When a job that was moved into the retry chain comes back, milliseconds since the epoch; 0: it was not."""
    lane: str = ""
    """Of a job with an idempotency key, the lane of the record that its life began with; empty: not said."""
    offset: int = -1
    """The offset of that record."""
    check: int = 0
    """Of a job with an idempotency key, 16 bits of its type and payload."""


class LaneMark(NamedTuple):
    """How far a lane partition is done."""

    topic: str
    low: int
    read_mark: int
    ranges: Sequence[int]
    """From `low` on, in pairs: incomplete offsets, then the length of a complete range."""


class NumberMark(NamedTuple):
    """How far the lanes of a partition number are done. Key in the checkpoint topic: `#number`."""

    epoch: int
    sequence: int
    at: int
    lanes: Sequence[LaneMark]


class DeadLetterRecord(NamedTuple):
    """A job that will not be tried again by itself, whole. Key: the job's id, else the original key."""

    id: str
    reason: str
    """`dead`, `undecodable`, `unknown_type`, `bad_payload`, `unsendable`, `crash_loop`, ..."""
    at: int
    worker: str
    topic: str
    partition: int
    offset: int
    job: bytes | None = None
    """The job as encoded; None if it could not be decoded or was too large to keep."""
    raw: bytes | None = None
    """The original value of a record that could not be decoded."""
    raw_key: bytes | None = None
    failures: list[Failure] | None = None
    """Of the life, oldest first."""
    progress: bytes | None = None
    """Encoded CheckpointRecord."""
    steps: list[bytes] | None = None
    """Encoded StepRecords."""
    children: list[str] | None = None
    """Ids of the children that it has started, as far as they are known."""


class ControlRecord(NamedTuple):
    """What an operator wants of a queue, a job type or a job. Key: the target; a tombstone takes it back."""

    target: str
    """`queue:NAME`, `type:NAME` or `job:ID`."""
    action: str
    """`pause` (queue, type), `cancel` or `retry` (job)."""
    at: int
    by: str
    """Who asked for it, as `user@host`."""
    reason: str = ""
    life: int = 0
    """Of a job: lives up to this one are meant."""
    queue: str = ""
    """Of a job that waits for its retry: its queue."""
    number: int = -1
    """Of a job that waits for its retry: its number, whose owner can end it at once."""
    type: str = ""
    """Of a job that waits for its retry: its job type."""
    seen: int = 0
    """Of `retry`: when the job began to wait, as its status said (clock of its worker); later waits are not meant."""
    settled: int = 0
    """Of a job: when its owner did what the order says, milliseconds since the epoch; 0: not yet."""


class ScheduleRecord(NamedTuple):
    """When jobs of one kind are started by the clock, and what they are. Key: its name; a tombstone removes it."""

    name: str
    type: str
    queue: str
    version: int
    payload: bytes
    """JSON; empty if the job type takes none."""
    at: int
    """When this was written; moments and lengths of time here are milliseconds."""
    by: str
    since: int
    """Only instants after this one are fired: when it was declared, changed or resumed."""
    cron: str = ""
    """Five fields, or six with seconds first; empty: it fires by `every`."""
    tz: str = "UTC"
    """Time zone of the cron expression."""
    every: int = 0
    """Instants are its multiples since the epoch; 0: it fires by `cron`."""
    overlap: str = "skip"
    """What an instant does while an earlier run has not ended: `skip`, `queue` or `replace`."""
    catch_up: str = "last"
    """Which of the instants that were missed are fired afterwards: `none`, `last` or `all`."""
    jitter: int = 0
    key: str | None = None
    """Ordering key of the jobs."""
    kill_after: int | None = None
    source: str = "code"
    """`code` or `cli`; the latter wins."""
    paused: bool = False
    reason: str = ""


class ScheduleFired(NamedTuple):
    """How far a schedule has been fired. Key: its name and `#fired`. Moments in milliseconds since the epoch."""

    name: str
    instant: int
    """All instants up to this one are dealt with."""
    at: int
    worker: str
    job_id: str = ""
    """The last job that was started; empty: none yet."""
    job_at: int = 0
    """When it was started."""
    fired: int = 0
    """Jobs started by the clock so far."""
    skipped: int = 0
    """Instants that started none because an earlier run had not ended, or one run stood for many."""


class AlertRecord(NamedTuple):
    """Something somebody should look at. Key: the subject."""

    kind: str
    """An `AlertKind`; of a newer version perhaps one that is not known here."""
    subject: str
    """What it is about; repeats have the same."""
    at: int
    worker: str
    text: str
    job_id: str = ""
    type: str = ""
    queue: str = ""


class AuditRecord(NamedTuple):
    """What an operator did, and why. Key: the subject."""

    action: str
    """`redrive`, `discard`, `cancel`, `retry`, `pause`, `resume`, `schedule`, `trigger`, `backfill`, `remove`,
    `bulk`."""
    subject: str
    """A dead letter as `partition@offset`, `job:ID`, `queue:NAME`, `type:NAME`, `schedule:NAME` or `bulk:ID`."""
    at: int
    by: str
    """Who did it, as `user@host`."""
    reason: str = ""
    job_id: str = ""
    life: int = 0
    """The life of the job that it began, or that it concerns."""
    detail: str = ""
    bulk: str = ""
    """Id of the bulk action that it was part of; empty: of none."""


AnyRecord = (
    Job
    | CheckpointRecord
    | StepRecord
    | LiveJobRecord
    | StatusRecord
    | DedupeMark
    | NumberMark
    | DeadLetterRecord
    | ControlRecord
    | ScheduleRecord
    | ScheduleFired
    | AlertRecord
    | AuditRecord
)
"""Whatever is written into a topic."""
