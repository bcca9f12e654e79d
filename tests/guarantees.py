"""What the package promises, as objects that watch a history and say what was broken.

One set for all suites: unit tests feed it by hand, the simulation, the integration and the chaos tests from real runs.
Events are reported in the order in which they happened; what happened at once in one flush, in any order. A test of a
feature that gives up a promise leaves that guarantee out, by name, and so says which.

A job's life is the unit: a redrive from zero may run everything again, in the next life.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from processor.states import TERMINAL, State


class Violation(NamedTuple):
    """A promise that was broken."""

    guarantee: str
    job_id: str
    """Or the number, where no single job is to blame."""
    detail: str


class LifeOf(NamedTuple):
    """A life of a job."""

    id: str
    life: int = 1


class Partition(NamedTuple):
    """A lane partition."""

    topic: str
    number: int


class Produced(NamedTuple):
    """The log acknowledged a job: from a client, or from a flush (child, redrive)."""

    job: LifeOf
    key: str | None = None
    parent: str | None = None
    partition: Partition | None = None
    offset: int = -1


class Started(NamedTuple):
    """A handler was entered."""

    job: LifeOf
    worker: str
    position: int = 0
    """How far the handler was told it had come: items of a loop, or any number that grows with the cursor."""


class Saved(NamedTuple):
    """A checkpoint became durable."""

    job: LifeOf
    position: int


class Effect(NamedTuple):
    """The body of a step ran: the ledger's entry."""

    job: LifeOf
    step: str
    once: bool = False
    """`ctx.once`: never twice, whatever happens."""


class StepSaved(NamedTuple):
    """The log saw a step finish, together with the children that were spawned before."""

    job: LifeOf
    step: str
    children: tuple[str, ...] = ()


class Waits(NamedTuple):
    """A job is parked until its children end; it lends them its key."""

    job: LifeOf


class Stopped(NamedTuple):
    """An attempt is over, the life is not: retried, yielded, or its result refused."""

    job: LifeOf


class Crashed(NamedTuple):
    """A worker ended without a word, or lost its numbers: whatever ran there counts as not done."""

    worker: str


class Ended(NamedTuple):
    """A status record became visible."""

    job: LifeOf
    state: State


class Moved(NamedTuple):
    """A job's record became durable elsewhere: promoted, in a retry topic, dead-lettered."""

    job: LifeOf


class Committed(NamedTuple):
    """An offset was committed for a lane partition: everything below it is done."""

    partition: Partition
    offset: int


class Claimed(NamedTuple):
    """An assignment's first flush."""

    number: int
    epoch: int
    worker: str


Event = Started | Saved | Effect | StepSaved | Waits | Stopped | Crashed | Ended | Moved | Committed | Claimed


class Guarantee:
    """A promise. Watches, and says at the end what was broken."""

    def __init__(self) -> None:
        self.broken: list[Violation] = []

    @property
    def name(self) -> str:
        return type(self).__name__

    def on_produce(self, produced: Produced) -> None:
        """A job was acknowledged."""

    def on_process(self, event: Event) -> None:
        """Something happened to a job."""

    def verify(self) -> list[Violation]:
        """Everything that was broken. Call it once all work is done."""
        return self.broken

    def blame(self, job_id: str, detail: str) -> None:
        """Note a broken promise."""
        self.broken.append(Violation(self.name, job_id, detail))


class NoLoss(Guarantee):
    """Every acknowledged job ends in exactly one terminal state. The same end may be told twice."""

    def __init__(self) -> None:
        super().__init__()
        self._produced: dict[LifeOf, None] = {}
        self._ends: dict[LifeOf, list[State]] = defaultdict(list)

    def on_produce(self, produced: Produced) -> None:
        self._produced[produced.job] = None

    def on_process(self, event: Event) -> None:
        if isinstance(event, Ended) and event.state in TERMINAL and event.state not in self._ends[event.job]:
            self._ends[event.job].append(event.state)

    def verify(self) -> list[Violation]:
        found = [Violation(self.name, job.id, "never ended") for job in self._produced if not self._ends.get(job)]
        for job, states in self._ends.items():
            if job not in self._produced:
                found.append(Violation(self.name, job.id, "ended, but was never produced"))
            if len(states) > 1:
                found.append(Violation(self.name, job.id, f"ended more than once: {', '.join(states)}"))
        return self.broken + found


class NoDoubledEffect(Guarantee):
    """A step that the log saw finish never runs again; one it did not see runs again only after an interruption."""

    def __init__(self) -> None:
        super().__init__()
        self._ran: set[tuple[LifeOf, str]] = set()
        self._saved: set[tuple[LifeOf, str]] = set()
        self._excused: set[tuple[LifeOf, str]] = set()
        self._where: dict[LifeOf, str] = {}

    def on_process(self, event: Event) -> None:
        if isinstance(event, Started):
            self._where[event.job] = event.worker
        elif isinstance(event, StepSaved):
            self._saved.add((event.job, event.step))
        elif isinstance(event, Stopped):
            self._excuse({event.job})
        elif isinstance(event, Crashed):
            self._excuse({job for job, worker in self._where.items() if worker == event.worker})
        elif isinstance(event, Effect):
            self._on_effect(event)

    def _excuse(self, jobs: set[LifeOf]) -> None:
        self._excused |= {ran for ran in self._ran - self._saved if ran[0] in jobs}

    def _on_effect(self, event: Effect) -> None:
        effect = (event.job, event.step)
        if effect in self._saved:
            self.blame(event.job.id, f"step {event.step} ran again after the log saw it finish")
        elif effect in self._ran and (event.once or effect not in self._excused):
            self.blame(event.job.id, f"step {event.step} ran twice")
        self._ran.add(effect)
        self._excused.discard(effect)


class NoRegress(Guarantee):
    """A job resumes at its last durable checkpoint or later, and durable checkpoints only grow."""

    def __init__(self) -> None:
        super().__init__()
        self._durable: dict[LifeOf, int] = {}

    def on_process(self, event: Event) -> None:
        if not isinstance(event, Started | Saved):
            return
        durable = self._durable.get(event.job, 0)
        if event.position < durable:
            what = "resumed at" if isinstance(event, Started) else "saved"
            self.blame(event.job.id, f"{what} {event.position}, but {durable} was durable")
        elif isinstance(event, Saved):
            self._durable[event.job] = event.position


class KeyOrdered(Guarantee):
    """Jobs of one key run one at a time, in the order they were produced.

    Aware of rewinds: after a crash the unfinished ones, and those whose end was not durable, may run again from the
    first on. A job that waits for its children steps aside for them, and for nobody else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._info: dict[LifeOf, Produced] = {}
        self._lines: dict[str, list[LifeOf]] = defaultdict(list)
        self._ended: set[LifeOf] = set()
        self._running: dict[LifeOf, str] = {}
        self._waiting: set[LifeOf] = set()

    def on_produce(self, produced: Produced) -> None:
        if produced.key is not None and produced.job not in self._info:
            self._info[produced.job] = produced
            self._lines[produced.key].append(produced.job)

    def on_process(self, event: Event) -> None:
        if isinstance(event, Crashed):
            self._running = {job: worker for job, worker in self._running.items() if worker != event.worker}
        elif isinstance(event, Started):
            self._on_start(event)
        elif isinstance(event, Waits):
            self._running.pop(event.job, None)
            self._waiting.add(event.job)
        elif isinstance(event, Stopped):
            self._running.pop(event.job, None)
        elif isinstance(event, Ended) and event.state in TERMINAL:
            self._running.pop(event.job, None)
            self._waiting.discard(event.job)
            self._ended.add(event.job)

    def _on_start(self, event: Started) -> None:
        info = self._info.get(event.job)
        if info is None or info.key is None:
            return
        self._waiting.discard(event.job)
        line = self._lines[info.key]
        for other in line:
            if other in self._running and other != event.job:
                self.blame(event.job.id, f"started while {other.id} of the same key was running")
        if not self._lenders(info):
            for earlier in line[: line.index(event.job)]:
                if earlier not in self._ended:
                    self.blame(event.job.id, f"started before {earlier.id} of the same key had ended")
        self._running[event.job] = event.worker

    def _lenders(self, info: Produced) -> list[LifeOf]:
        """Waiting parents of the same key."""
        return [job for job in self._waiting if job.id == info.parent and self._info[job].key == info.key]


class ChildrenExist(Guarantee):
    """A finished step's children are in the log: they left in the same flush."""

    def __init__(self) -> None:
        super().__init__()
        self._produced: set[str] = set()
        self._promised: list[StepSaved] = []

    def on_produce(self, produced: Produced) -> None:
        self._produced.add(produced.job.id)

    def on_process(self, event: Event) -> None:
        if isinstance(event, StepSaved):
            self._promised.append(event)

    def verify(self) -> list[Violation]:
        return self.broken + [
            Violation(self.name, child, f"missing, though step {step.step} of {step.job.id} has finished")
            for step in self._promised
            for child in step.children
            if child not in self._produced
        ]


class CommitsBehindUnfinished(Guarantee):
    """A committed offset never passes a job that is neither ended nor durable elsewhere, and never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Partition, dict[int, LifeOf]] = defaultdict(dict)
        self._place: dict[LifeOf, list[tuple[Partition, int]]] = defaultdict(list)
        self._committed: dict[Partition, int] = {}

    def on_produce(self, produced: Produced) -> None:
        if produced.partition is not None:
            self._open[produced.partition][produced.offset] = produced.job
            self._place[produced.job].append((produced.partition, produced.offset))

    def on_process(self, event: Event) -> None:
        if isinstance(event, Moved) or (isinstance(event, Ended) and event.state in TERMINAL):
            for partition, offset in self._place.pop(event.job, ()):
                self._open[partition].pop(offset, None)
        elif isinstance(event, Committed):
            self._on_commit(event)

    def _on_commit(self, event: Committed) -> None:
        for offset, job in sorted(self._open[event.partition].items()):
            if offset < event.offset:
                self.blame(job.id, f"offset {event.offset} was committed past it, at {offset} of {event.partition}")
        last = self._committed.get(event.partition, 0)
        if event.offset < last:
            self.blame(str(event.partition.number), f"{event.partition} went back from {last} to {event.offset}")
        self._committed[event.partition] = max(last, event.offset)


class EpochGrows(Guarantee):
    """Each claim of a number has a higher epoch than every one before, whoever made it."""

    def __init__(self) -> None:
        super().__init__()
        self._epochs: dict[int, int] = {}

    def on_process(self, event: Event) -> None:
        if isinstance(event, Claimed):
            last = self._epochs.get(event.number, 0)
            if event.epoch <= last:
                self.blame(str(event.number), f"{event.worker} claimed epoch {event.epoch} after {last}")
            self._epochs[event.number] = max(last, event.epoch)


EVERY: tuple[type[Guarantee], ...] = (
    NoLoss,
    NoDoubledEffect,
    NoRegress,
    KeyOrdered,
    ChildrenExist,
    CommitsBehindUnfinished,
    EpochGrows,
)


class Watch:
    """Several guarantees over one history. Not thread-safe: report events under a lock if threads do."""

    def __init__(self, kinds: Iterable[type[Guarantee]] = EVERY, *, without: Iterable[type[Guarantee]] = ()) -> None:
        left_out = set(without)
        self._guarantees = [kind() for kind in kinds if kind not in left_out]

    def on_produce(self, produced: Produced) -> None:
        """A job was acknowledged."""
        for guarantee in self._guarantees:
            guarantee.on_produce(produced)

    def on_process(self, event: Event) -> None:
        """Something happened to a job."""
        for guarantee in self._guarantees:
            guarantee.on_process(event)

    def verify(self) -> list[Violation]:
        """Everything that was broken."""
        return [violation for guarantee in self._guarantees for violation in guarantee.verify()]
