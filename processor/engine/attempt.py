"""One try of a job, seen from both sides.

The executor's thread runs the handler and reports through the methods of `processor.context.AttemptPort`; the owning
thread drains what was reported into the outbox. They share no lock: reports go into a deque (or replace one reference),
and the attempt is posted to the owner's inbox when there is something new.

Order matters in one place: a step may be forgotten only if the progress that marks its item done is written in the same
flush or was written before. `drain` reads the deque first and the progress last, so that progress is never older than
what was forgotten.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from processor.broker.base import OutRecord
from processor.context.port import Forgotten, Reported, StopWish
from processor.core.deadlines import ends_at
from processor.errors import JobLost, UnknownJobType
from processor.job import CHILDREN_NAMED, Progress, Step
from processor.wire.headers import JOB_ID, header

if TYPE_CHECKING:
    from processor.clock import Clock
    from processor.context.port import ContextLimits, Observer
    from processor.core.outcome import Outcome
    from processor.core.write_set import Origin
    from processor.engine.queue_partition import LaneState, QueuePartition
    from processor.engine.ready_queue import ReadyQueue
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


class Stop(NamedTuple):
    """Why an attempt is to end before its handler does."""

    kind: str
    """`timeout`, `stall`, `killed` or `cancelled`."""
    reason: str
    at: float
    """When it was told so (monotonic seconds)."""
    forced: bool = False
    """It did not listen: it is being ended by force."""


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


_NOTHING: Mapping[str, Step] = {}


class Attempt(StopWish):
    """One try of a job. Attributes with a default live on the class: an attempt of a short job sets only a few."""

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
    resumed: Progress | None = None
    steps: Mapping[str, Step] = _NOTHING
    """Steps the log held when the attempt began."""
    ready_queue: ReadyQueue | None = None
    """Where it waited for a slot; None until it may start."""
    derived = False
    repeated = False
    """Perhaps an earlier record of the same enqueue lies in its lane: that is looked for before it starts."""
    in_line = False
    """A later life of a job that is live: it has its place among the jobs that wait for its key."""
    saved = False
    """Something of this job is, or is about to be, in the checkpoint topic."""
    promoted = False
    parked_until: int | None = None
    """It was parked for a deploy before: when its patience ends (ms)."""
    announced = False
    warned = False
    """Somebody was told that its kill date is near."""
    quiet_until = 0.0
    """No `running` status with progress before this (monotonic seconds)."""
    latest: Progress | None = None
    """Newest consistent progress, noted by the handler's side."""
    written: Progress | None = None
    """The progress last given to the outbox."""
    want_progress = False
    news = False
    reported: tuple[float | None, float | None, str | None] | None = None
    beat_at: float | None = None
    """When the handler last saved something or said that it is alive (monotonic seconds; 0: not yet). None: its
    job type has no stall timeout, so nobody asks.
    """
    _ends_at = -1
    """Milliseconds since the epoch, 0: never, -1: nobody has asked yet. Told once, so that it does not waver."""
    stop: Stop | None = None
    stack = ""
    """Where its handler was when it was ended by force, as a traceback."""
    deaths = 0
    """Of processes that ran it, in a row and without progress."""
    _ops: deque[Reported] | None = None
    _forgettable: list[str] | None = None
    children: list[str] | None = None
    """Ids of the first children that it started, as of the last drain (owner only)."""
    step_names: dict[str, Step] | None = None
    """Steps in the checkpoint topic, as of the last drain (owner only)."""

    def __init__(
        self,
        shared: AttemptShared,
        number: QueuePartition,
        lane: LaneState | None,
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
        if job_type is not None and job_type.options.stall_timeout is not None:
            self.beat_at = 0.0

    def again(self) -> Attempt:
        """The same job once more, by the same owner, from where this attempt has come to."""
        attempt = Attempt(self.shared, self.number, self.lane, self.origin, self.job, self.raw, self.job_type)
        attempt.derived, attempt.deaths, attempt.parked_until = self.derived, self.deaths, self.parked_until
        attempt.saved, attempt.promoted, attempt.announced = self.saved, self.promoted, self.announced
        attempt.resumed = attempt.latest = attempt.written = self.latest
        attempt.children = self.children
        if self.step_names:
            attempt.steps, attempt.step_names = dict(self.step_names), dict(self.step_names)
        return attempt

    @property
    def runnable(self) -> RunnableJob:
        """The job type of an attempt that was handed to a pool: never unknown."""
        if self.job_type is None:
            raise UnknownJobType(f"no job type named {self.job.type!r}")
        return self.job_type

    def note_begun(self) -> None:
        """A job that has begun expires no more, though it saved nothing: then its record says so."""
        if self.started_at is not None and self.runnable.options.queue_timeout is not None:
            self.latest = self.latest or Progress()

    @property
    def progressed_here(self) -> bool:
        """Whether this attempt saved anything that was not there when it began."""
        return self.written != self.resumed or bool(self.step_names and set(self.step_names) - set(self.steps))

    # --- the handler's side (processor.context.AttemptPort) -------------------------------------------------------

    @property
    def clock(self) -> Clock:
        return self.shared.clock

    @property
    def limits(self) -> ContextLimits:
        return self.shared.limits

    @property
    def ends_at(self) -> int | None:
        if self._ends_at < 0:
            clock = self.shared.clock
            ran = 0.0 if self.started_at is None else clock.monotonic() - self.started_at
            self._ends_at = ends_at(self.runnable.options, self.job, ran=ran, now_ms=clock.now_ms()) or 0
        return self._ends_at or None

    @property
    def observer(self) -> Observer | None:
        return self.shared.observer

    @property
    def patience(self) -> float:
        return self.shared.patience

    @property
    def fencing_token(self) -> tuple[int, int, int]:
        return (self.job.life, self.job.hop, self.number.epoch)

    def note(self, progress: Progress) -> None:
        self.latest = progress

    def save(self, progress: Progress) -> None:
        self.latest = progress
        if self.beat_at is not None:
            self.beat_at = self.shared.clock.monotonic()
        self.want_progress = True
        if not self.news:
            self.news = True
            self.shared.inbox.post(self)

    def save_step(self, step: Step) -> None:
        self._report(step)

    def forget_steps(self, names: Sequence[str]) -> None:
        if names:
            self._report(Forgotten(names))

    def spawn(self, record: OutRecord, child_id: str) -> None:
        self._report(record)

    def progressed(self, done: float, total: float | None, note: str | None) -> None:
        self.reported = (done, total, note)

    def heartbeat(self) -> None:
        if self.beat_at is not None:
            self.beat_at = self.shared.clock.monotonic()

    def sync(self) -> None:
        """Wait until all that was saved is durable.

        Raises:
            JobLost: it never will be: the number moved away.
            JobYielded: the worker stops; what was saved goes out with its last flush.
        """
        self.check()
        done = self.shared.signal()
        self.shared.inbox.post(Sync(self, done))
        done.wait(None)
        if self.lost:
            raise JobLost(self.job.id)

    async def async_sync(self) -> None:
        """As `sync`, for the event loop."""
        self.check()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.shared.inbox.post(Sync(self, None, loop, future))
        await future
        if self.lost:
            raise JobLost(self.job.id)

    def _report(self, value: Reported) -> None:
        ops = self._ops
        if ops is None:
            ops = self._ops = deque()
        ops.append(value)
        if self.beat_at is not None:
            self.beat_at = self.shared.clock.monotonic()
        if not self.news:
            self.news = True
            self.shared.inbox.post(self)

    # --- the owner's side ----------------------------------------------------------------------------------------

    def drain(self, *, final: bool = False) -> Drained:
        """Take what is new. `final`: the handler has ended, so its last noted progress goes out too."""
        self.news = False
        steps: list[Step] = []
        children: list[OutRecord] = []
        forgettable = self._forgettable or []
        ops = self._ops
        while ops:
            value = ops.popleft()
            if isinstance(value, Step):
                steps.append(value)
            elif isinstance(value, OutRecord):
                children.append(value)
                self._name_child(value)
            else:
                forgettable.extend(value.names)
        progress: Progress | None = None
        if self.want_progress or forgettable or final:
            self.want_progress = False
            # Saving once more what is saved already is no news, and no progress of a job that dies at the same place.
            if self.latest is not self.written and self.latest != self.written:
                progress = self.written = self.latest
        if progress is None:
            self._forgettable = forgettable or None
            return Drained(steps, children, (), None)
        self._forgettable = None
        return self._without_forgotten(steps, children, forgettable, progress)

    def _name_child(self, record: OutRecord) -> None:
        if self.children is None:
            self.children = []
        if len(self.children) < CHILDREN_NAMED:
            self.children.append((header(record.headers, JOB_ID) or b"").decode())

    def _without_forgotten(
        self, steps: list[Step], children: list[OutRecord], forgotten: list[str], progress: Progress
    ) -> Drained:
        """Steps that are both new and forgotten are never written: the progress beside them says they are done."""
        if not forgotten:
            return Drained(steps, children, (), progress)
        gone = set(forgotten)
        known = self.step_names or {}
        return Drained(
            [step for step in steps if step.name not in gone],
            children,
            [name for name in forgotten if name in known],
            progress,
        )
