"""One try of a job, as the owner of its number knows it.

The handler's side is a port of `processor.executors`. Between them is the `Mailbox`: what the handler reports, and the
owner's wish that it stops. When something is new the attempt is posted to the owner's inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from processor.context.mailbox import Mailbox
from processor.core.deadlines import ends_at
from processor.errors import UnknownJobType
from processor.job import CHILDREN_NAMED, Progress, Step
from processor.wire.headers import JOB_ID, header

if TYPE_CHECKING:
    from processor.broker.base import OutRecord
    from processor.clock import Clock
    from processor.context.port import ContextLimits, Observer
    from processor.core.outcome import Outcome
    from processor.core.write_set import Origin
    from processor.engine.owned_partition import OwnedLane, OwnedPartition
    from processor.engine.registry import RunnableJob
    from processor.job import Job
    from processor.runtime import Inbox, Signal
    from processor.tracing import WorkerTracing


class Sync(NamedTuple):
    """Somebody waits until everything an attempt saved so far is durable."""

    attempt: Attempt
    done: Signal | None
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[None] | None = None

    def release(self) -> None:
        """Wake whoever waits; they look at the attempt for how it went."""
        if self.done is not None:
            self.done.set()
        elif self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(_resolve, self.future)


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


class Drained(NamedTuple):
    """What an attempt reported since the last drain, in order."""

    steps: Sequence[Step]
    children: Sequence[OutRecord]
    forgotten: Sequence[str]
    """Steps whose tombstones may leave with this flush."""
    progress: Progress | None
    """To be written now, None if nothing new."""


class AttemptShared(NamedTuple):
    """What all attempts of a worker have in common."""

    inbox: Inbox[Attempt | object]
    clock: Clock
    limits: ContextLimits
    signal: Callable[[], Signal]
    """Makes one: the runtime's."""
    patience: float
    """Seconds a job of an unknown type or newer version waits for a deploy."""
    observer: Observer | None = None
    """Set by the Testbed."""
    tracing: WorkerTracing | None = None
    """None: attempts are no spans."""


class History(NamedTuple):
    """What is known of a job from before this attempt."""

    derived: bool = False
    """A copy of its record may come again: its end is marked."""
    repeated: bool = False
    """Perhaps an earlier record of the same enqueue lies in its lane: that is looked for before it starts."""
    deaths: int = 0
    """Of processes that ran it, in a row and without progress."""
    parked_until: int | None = None
    """It was parked for a deploy before: when its patience ends (ms)."""


class Notices(NamedTuple):
    """What was announced of an attempt that runs."""

    running: bool = False
    """That it runs."""
    kill_date: bool = False
    """Somebody was told that its kill date is near."""
    quiet_until: float = 0.0
    """No `running` status with progress before this (monotonic seconds)."""


class Line(Protocol):
    """Where attempts wait for a slot, and the pool behind it; `processor.engine.ready_queue.ReadyQueue`."""

    def submit(self, attempt: Attempt) -> None: ...
    def holds(self, attempt: Attempt) -> bool: ...
    def ended(self, attempt: Attempt) -> None: ...
    def nudge(self) -> None: ...


_NOTHING: Mapping[str, Step] = {}
_FRESH = History()
_SILENT = Notices()


class Logged:
    """What the log holds of a job, or is about to hold. Most jobs save nothing, and have none."""

    saved = False
    """Something of this job is, or is about to be, in the checkpoint topic."""
    promoted = False
    """Its record lives there: it has no lane offset."""
    resumed: Progress | None = None
    """Its progress when the attempt began."""
    steps: Mapping[str, Step] = _NOTHING
    """Its steps when the attempt began."""
    progress: Progress | None = None
    """The progress last given to the outbox."""
    steps_now: dict[str, Step] | None = None
    """Steps in the checkpoint topic, as of the last drain."""
    forgettable: list[str] | None = None
    """Names of steps that may go with the next progress."""
    children: list[str] | None = None
    """Ids of the first children that it started, as of the last drain."""

    def again(self, latest: Progress | None) -> Logged:
        """What the log holds when the same job is tried once more by the same owner."""
        logged = Logged()
        logged.saved, logged.promoted, logged.children = self.saved, self.promoted, self.children
        logged.resumed = logged.progress = latest
        if self.steps_now:
            logged.steps, logged.steps_now = dict(self.steps_now), dict(self.steps_now)
        return logged

    @property
    def has_grown(self) -> bool:
        """Whether this attempt saved anything that was not there when it began."""
        return self.progress != self.resumed or bool(self.steps_now and set(self.steps_now) - set(self.steps))

    def name_child(self, record: OutRecord) -> None:
        """A child was started."""
        if self.children is None:
            self.children = []
        if len(self.children) < CHILDREN_NAMED:
            self.children.append((header(record.headers, JOB_ID) or b"").decode())


class Attempt:
    """One try of a job. Attributes with a default live on the class: an attempt of a short job sets only a few."""

    history = _FRESH
    notices = _SILENT
    outcome: Outcome | None = None
    settled = False
    """The owner has dealt with the outcome."""
    refusals = 0
    """How often a record of its end was refused."""
    moved: Job | None = None
    """It goes on later, from this record; None: it does not, or not yet."""
    over = False
    """Everything that its end, or its move, has to write is in the outbox."""
    started_at: float | None = None
    """Monotonic seconds, set by the executor."""
    run_seconds = 0.0
    ready_queue: Line | None = None
    """Where it waited for a slot; None until it may start."""
    known: Logged | None = None
    """See `logged`; None: the log holds nothing of its job, and nothing has been saved."""

    def __init__(
        self,
        shared: AttemptShared,
        number: OwnedPartition[Attempt, Sync],
        lane: OwnedLane[Attempt, Sync] | None,
        origin: Origin,
        job: Job,
        raw: bytes,
        job_type: RunnableJob | None,
    ) -> None:
        self.shared = shared
        self.number = number
        self.assignment = number.assignment
        self.lane = lane
        """None for a job that lives in the checkpoint topic."""
        self.origin = origin
        self.job = job
        self.raw = raw
        self.job_type = job_type
        self.mailbox = Mailbox()
        if job_type is not None and job_type.options.stall_timeout is not None:
            self.mailbox.beat_at = 0.0

    def again(self) -> Attempt:
        """The same job once more, by the same owner, from where this attempt has come to."""
        attempt = Attempt(self.shared, self.number, self.lane, self.origin, self.job, self.raw, self.job_type)
        attempt.history = self.history._replace(repeated=False)
        attempt.notices = Notices(running=self.notices.running)
        attempt.known = self.logged.again(self.mailbox.latest)
        attempt.mailbox.latest = self.mailbox.latest
        return attempt

    @property
    def logged(self) -> Logged:
        """What the log holds of its job. For the owner alone: it is made when it is first asked for."""
        logged = self.known
        if logged is None:
            logged = self.known = Logged()
        return logged

    @property
    def runnable(self) -> RunnableJob:
        """The job type of an attempt that was handed to a pool: never unknown."""
        if self.job_type is None:
            raise UnknownJobType(f"no job type named {self.job.type!r}")
        return self.job_type

    @property
    def ends_at(self) -> int | None:
        """When it is told to stop at the latest, milliseconds since the epoch; None: never."""
        mailbox = self.mailbox
        if mailbox.ends_at < 0:
            clock = self.shared.clock
            ran = 0.0 if self.started_at is None else clock.monotonic() - self.started_at
            mailbox.ends_at = ends_at(self.runnable.options, self.job, ran=ran, now_ms=clock.now_ms()) or 0
        return mailbox.ends_at or None

    def resume(self, progress: Progress) -> None:
        """This is where the attempt begins."""
        self.mailbox.latest = self.logged.resumed = self.logged.progress = progress

    def note_begun(self) -> None:
        """A job that has begun expires no more, though it saved nothing: then its record says so."""
        if self.started_at is not None and self.runnable.options.queue_timeout is not None:
            self.mailbox.latest = self.mailbox.latest or Progress()

    def drain(self, *, final: bool = False) -> Drained:
        """Take what is new. `final`: the handler has ended, so its last noted progress goes out too."""
        mailbox, logged = self.mailbox, self.logged
        mailbox.posted = False
        steps, children, forgotten = mailbox.take()
        for child in children:
            logged.name_child(child)
        forgettable = [*(logged.forgettable or ()), *forgotten]
        progress: Progress | None = None
        if mailbox.wants_save or forgettable or final:
            mailbox.wants_save = False
            latest = mailbox.latest
            # Saving once more what is saved already is no news, and no progress of a job that dies at the same place.
            if latest is not logged.progress and latest != logged.progress:
                progress = logged.progress = latest
        if progress is None:
            logged.forgettable = forgettable or None
            return Drained(steps, children, (), None)
        logged.forgettable = None
        if not forgettable:
            return Drained(steps, children, (), progress)
        # Steps that are both new and forgotten are never written: the progress beside them says they are done.
        gone, known = set(forgettable), logged.steps_now or {}
        new = [step for step in steps if step.name not in gone]
        return Drained(new, children, [name for name in forgettable if name in known], progress)
