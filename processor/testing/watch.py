"""What a Testbed sees: handlers from inside, through `processor.context.port.Observer`, and the log from outside."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from processor.broker.base import Record, TopicPartition
from processor.broker.memory import MemoryBroker
from processor.context.scopes import escaped
from processor.core.checkpoint import KeyKind, parse_key
from processor.errors import RecordError
from processor.job import Job
from processor.states import TERMINAL, State
from processor.wire.codec import decode_checkpoint, decode_dead_letter, decode_job, decode_status
from processor.wire.records import DeadLetterRecord, StatusRecord
from processor.wire.topics import TopicKind, parse_topic

Loop = tuple[str, str]
"""Job id and scoped name."""


class CrashPoint(NamedTuple):
    """Where in a handler a process is to be killed."""

    name: str
    """Of a loop or step."""
    after: int | None
    """Items of a loop; None: once the function of a step has returned."""


class FailPoint(NamedTuple):
    """Where in handlers an error is to be raised."""

    name: str
    """Of a loop or step."""
    after: int | None
    """Items of a loop that are done by then; None: when the step is about to run."""
    error: BaseException
    times: int | None
    """So often; None: always."""


def is_named(full: str, name: str) -> bool:
    """Whether a scoped name is meant by `name`: scoped itself, or the last part alone."""
    return full in (name, escaped(name)) or full.rpartition("/")[2] == escaped(name)


class Watcher:
    """Counts what handlers do, lets time pass for it, and crashes where it is told to."""

    def __init__(self, spend: Callable[[str], None], crash: Callable[[], None]) -> None:
        self._spend = spend
        """Called with `step` or `item`, after each of them."""
        self._crash = crash
        """Kills the process of the caller; does not return."""
        self.crash_at: CrashPoint | None = None
        self.fail_points: list[FailPoint] = []
        self.runs: Counter[tuple[str, str]] = Counter()
        """Calls of a step's function, by job id and scoped name."""
        self._taken: dict[Loop, Counter[str]] = defaultdict(Counter)
        self._reached: dict[Loop, int] = {}
        """Items of the running attempt that were handed out, over all attempts of the job."""
        self._done: dict[Loop, int] = {}
        """Items that are done, over all attempts of the job."""
        self._gaps: Counter[Loop] = Counter()

    # --- processor.context.port.Observer --------------------------------------------------------------------------

    def step_begins(self, job: Job, step: str) -> None:
        """Counts; fails, if that was wanted."""
        self.runs[job.id, step] += 1
        self._fail_at(step, None)

    def step_ran(self, job: Job, step: str) -> None:
        """Crashes, or spends time."""
        if self.crash_at is not None and self.crash_at.after is None and is_named(step, self.crash_at.name):
            self._crash()
        self._spend("step")

    def item_taken(self, job: Job, loop: str, cursor: str) -> None:
        """Counts; fails, if that was wanted."""
        key = (job.id, loop)
        self._taken[key][cursor] += 1
        self._reached[key] = self._reached.get(key, 0) + 1
        if self.fail_points:
            self._fail_at(loop, self._done.get(key, 0))

    def item_done(self, job: Job, loop: str, items: int) -> None:
        """Crashes, or spends time."""
        self._reached[job.id, loop] = self._done[job.id, loop] = items
        point = self.crash_at
        if point is not None and point.after is not None and items >= point.after and is_named(loop, point.name):
            self._crash()
        self._spend("item")

    def _fail_at(self, name: str, done: int | None) -> None:
        for place, point in enumerate(self.fail_points):
            if not is_named(name, point.name) or (point.after is None) != (done is None):
                continue
            if done is not None and point.after is not None and done < point.after:
                continue
            if point.times == 1:
                del self.fail_points[place]
            elif point.times is not None:
                self.fail_points[place] = point._replace(times=point.times - 1)
            raise point.error

    # --- answers --------------------------------------------------------------------------------------------------

    def crashed(self, jobs: Sequence[str], durable: Callable[[str, str], int]) -> None:
        """A process died with these jobs unfinished: what they did beyond the log is going to be done again."""
        dead = set(jobs)
        for job_id, loop in [key for key in self._reached if key[0] in dead]:
            reached = self._reached.pop((job_id, loop))
            saved = durable(job_id, loop)
            self._gaps[job_id, loop] += max(reached - saved, 0)
            self._reached[job_id, loop] = saved

    def count_runs(self, job_id: str, step: str) -> int:
        """How often the functions of this step were called."""
        return sum(count for (job, full), count in self.runs.items() if job == job_id and is_named(full, step))

    def repeated(self, job_id: str, loop: str) -> int:
        """Items handed out again."""
        counts = [taken for (job, full), taken in self._taken.items() if job == job_id and is_named(full, loop)]
        return sum(count - 1 for taken in counts for count in taken.values())

    def gap(self, loop: str) -> int:
        """Items that crashes took back, of the job that lost most."""
        lost: Counter[str] = Counter()
        for (job, full), count in self._gaps.items():
            if is_named(full, loop):
                lost[job] += count
        return max(lost.values(), default=0)


class LogWatch:
    """Reads the log of one namespace on and on: which jobs there are, and what became of them."""

    def __init__(self, broker: MemoryBroker, partitions: Sequence[TopicPartition]) -> None:
        self._reader = broker.reader()
        self._reader.assign(dict.fromkeys(partitions, 0))
        self.jobs: dict[str, Job] = {}
        self.latest: dict[str, StatusRecord] = {}
        """The newest life's end, or else its newest status."""
        self.statuses: list[StatusRecord] = []
        self.dead_letters: list[DeadLetterRecord] = []
        self._loops: dict[Loop, int] = {}
        self._readers: dict[TopicKind, Callable[[Record], None]] = {
            TopicKind.JOBS: self._job,
            TopicKind.RETRY: self._job,
            TopicKind.STATUS: self._status,
            TopicKind.DLQ: self._dead_letter,
            TopicKind.CHECKPOINTS: self._checkpoint,
        }

    def read(self) -> None:
        """Take in what became visible since the last time."""
        while True:
            batch = self._reader.fetch(1000, 0)
            for record in batch.records:
                name = parse_topic(record.topic() or "")
                if name is not None and name.kind in self._readers:
                    self._readers[name.kind](record)
            if not batch.records and not batch.ends:
                return

    def unfinished(self) -> dict[str, State]:
        """Jobs without a terminal state, and the state they are in."""
        return {
            job_id: status.state if status is not None else _unstarted(job)
            for job_id, job in self.jobs.items()
            if (status := self.latest.get(job_id)) is None or status.state not in TERMINAL
        }

    def told_unfinished(self) -> str:
        """The unfinished jobs in words."""
        found = [
            f"{job_id} ({self.jobs[job_id].type}) is {state}" + (f": {status.note}" if status and status.note else "")
            for job_id, state in self.unfinished().items()
            for status in [self.latest.get(job_id)]
        ]
        return "; ".join(found[:20]) + (f"; and {len(found) - 20} more" if len(found) > 20 else "")

    def durable_items(self, job_id: str, loop: str) -> int:
        """Finished items of a loop that the log knows of."""
        return self._loops.get((job_id, loop), 0)

    def _job(self, record: Record) -> None:
        try:
            job = decode_job(record.value() or b"")
        except RecordError:
            return  # no job: it goes to the dead letters
        self.jobs[job.id] = job

    def _status(self, record: Record) -> None:
        status = decode_status(record.value() or b"")
        self.statuses.append(status)
        known = self.latest.get(status.id)
        if known is None or status.life > known.life or known.state not in TERMINAL:
            self.latest[status.id] = status

    def _dead_letter(self, record: Record) -> None:
        self.dead_letters.append(decode_dead_letter(record.value() or b""))

    def _checkpoint(self, record: Record) -> None:
        key, value = parse_key(record.key() or b""), record.value()
        if key.kind is not KeyKind.PROGRESS or value is None:
            return
        saved = decode_checkpoint(value)
        for loop, progress in (saved.loops or {}).items():
            self._loops[saved.id, loop] = progress.items


def _unstarted(job: Job) -> State:
    """The state of a job that nobody has said anything of."""
    return State.QUEUED if job.due_at is None or job.hop else State.SCHEDULED
