"""What the handler of an attempt and the worker have to say to each other.

The handler's side reports, the worker's side takes what is new and says that it wants the attempt to stop. They are two
threads, or a child process has its own mailbox and a thread carries the reports over. They share no lock: reports go
into a deque, or replace one reference.

Order matters in one place: a step may be forgotten only if the progress that marks its item done is written in the same
flush or was written before. So whoever takes reads the reports first and the progress last: then the progress is never
older than what was forgotten.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from processor.broker.base import OutRecord
from processor.errors import JobLost, JobYielded
from processor.job import Step

if TYPE_CHECKING:
    from processor.context.port import Reported
    from processor.core.outcome import Stop
    from processor.job import Progress


class Reports(NamedTuple):
    """What was reported since the last time, each kind in its order."""

    steps: list[Step]
    children: list[OutRecord]
    forgotten: list[str]
    """Names of steps that are needed no more."""


class Mailbox:
    """Between one handler and its worker. Defaults live on the class: an attempt of a short job sets hardly any."""

    # From the worker.
    interrupted = False
    """It wants the attempt to end."""
    lost = False
    """The number is gone."""
    stop: Stop | None = None
    """It is not to go on elsewhere either, or not at once: why."""
    ends_at = -1
    """Milliseconds since the epoch, 0: never, -1: nobody has asked yet. Told once, so that it does not waver."""

    # From the handler's side.
    told = False
    """The handler has heard that it is to end: what it returns after that is no success, it may have left things out.
    """
    awaits = ""
    """The job whose end the handler waits for; empty: for none."""
    latest: Progress | None = None
    """Newest consistent progress."""
    wants_save = False
    """The newest progress is to be written."""
    reports: deque[Reported] | None = None
    """What is new, in its order; None: nothing was ever reported."""
    posted = False
    """The worker has been told that there is something new, and has not looked yet."""
    progressed: tuple[float | None, float | None, str | None] | None = None
    """For the status: how much is done, of how much, and a note."""
    beat_at: float | None = None
    """When the handler last saved something or said that it is alive (monotonic seconds; 0: not yet). None: its
    job type has no stall timeout, so nobody asks.
    """

    stack = ""
    """Where the handler was when it was ended by force, as a traceback."""

    def interrupt(self) -> None:
        """The handler is to save and end."""
        self.interrupted = True

    def lose(self) -> None:
        """The number is gone: whatever the handler still does counts for nobody."""
        self.lost = self.interrupted = True

    def check(self, job_id: str) -> None:
        """Raise if the worker wants the attempt of this job to stop.

        Raises:
            JobLost: the number is gone; nothing counts any more.
            JobYielded: save and stop; another worker goes on.
        """
        if self.lost:
            raise JobLost(job_id)
        if self.interrupted:
            self.told = True
            raise JobYielded(job_id)

    def report(self, value: Reported) -> None:
        """Something new, besides progress."""
        reports = self.reports
        if reports is None:
            reports = self.reports = deque()
        reports.append(value)

    def take(self) -> Reports:
        """What was reported since the last time."""
        steps: list[Step] = []
        children: list[OutRecord] = []
        forgotten: list[str] = []
        reports = self.reports
        while reports:
            value = reports.popleft()
            if isinstance(value, Step):
                steps.append(value)
            elif isinstance(value, OutRecord):
                children.append(value)
            else:
                forgotten.extend(value.names)
        return Reports(steps, children, forgotten)
