"""An `AttemptPort` that keeps a log of one job, and dies where a test wants it to.

What the port holds is what a worker would hold; `log` is what Kafka would hold. `flush` moves one to the other as a
worker does it: steps in order, the newest progress, and steps are forgotten only with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from processor.broker.base import OutRecord
from processor.clock import ManualClock
from processor.context import ContextLimits
from processor.errors import JobYielded, ProcessEnded
from processor.job import Job, Progress, Step

JOB = Job("job-1", "import.file", 1, "default", b"", 0)


class Crash(ProcessEnded):
    """The process is gone: nothing more is flushed."""


@dataclass
class Log:
    """What the log holds of one job."""

    progress: Progress | None = None
    steps: dict[str, Step] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    """Names of steps in the order they were written."""


class RecordingPort:
    """One attempt over a log."""

    def __init__(
        self,
        log: Log | None = None,
        *,
        job: Job = JOB,
        clock: ManualClock | None = None,
        limits: ContextLimits | None = None,
        on_call: Callable[[str], None] | None = None,
    ) -> None:
        self.log = log if log is not None else Log()
        self.job = job
        self.fencing_token = (1, 0, 1)
        self.resumed: Progress | None = self.log.progress
        self.steps: Mapping[str, Step] = dict(self.log.steps)
        self.clock = clock or ManualClock()
        self.limits = limits or ContextLimits()
        self.interrupted = False
        self.noted: Progress | None = None
        self.saves = 0
        self.notes = 0
        self.beats = 0
        self.reports: list[tuple[float, float | None, str | None]] = []
        self.children: list[tuple[str, OutRecord]] = []
        self._new_steps: list[Step] = []
        self._forgotten: list[str] = []
        self._on_call = on_call or (lambda call: None)

    @property
    def ends_at(self) -> int | None:
        return self.job.kill_at

    def check(self) -> None:
        raise JobYielded(self.job.id)

    def note(self, progress: Progress) -> None:
        self.notes += 1
        self.noted = progress
        self._on_call("note")

    def save(self, progress: Progress) -> None:
        self.saves += 1
        self.noted = progress
        self._on_call("save")

    def save_step(self, step: Step) -> None:
        self._new_steps.append(step)
        self._on_call("save_step")

    def forget_steps(self, names: Sequence[str]) -> None:
        self._forgotten.extend(names)
        self._on_call("forget_steps")

    def spawn(self, record: OutRecord, child_id: str) -> None:
        self.children.append((child_id, record))

    def sync(self) -> None:
        if self.interrupted:
            self.check()
        self.flush()
        self._on_call("sync")

    async def async_sync(self) -> None:
        self.sync()

    def heartbeat(self) -> None:
        self.beats += 1

    def progressed(self, done: float, total: float | None, note: str | None) -> None:
        self.reports.append((done, total, note))

    def flush(self) -> None:
        """Everything handed over becomes durable, in one write."""
        for step in self._new_steps:
            self.log.steps[step.name] = step
            self.log.writes.append(step.name)
        self._new_steps.clear()
        if self.noted is not None:
            self.log.progress = self.noted
            for name in self._forgotten:
                self.log.steps.pop(name, None)
            self._forgotten.clear()
