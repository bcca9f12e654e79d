"""The handler's side of an attempt that runs in the worker's own process, in a thread or on an event loop.

What it reports waits in the attempt's mailbox; the attempt is posted to the owner when there is something new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from processor.context.port import Forgotten, Reported
from processor.engine.attempt import Sync
from processor.errors import JobLost, UnknownJobType

if TYPE_CHECKING:
    from processor.broker.base import OutRecord
    from processor.clock import Clock
    from processor.context.port import ContextLimits, Observer
    from processor.engine.attempt import Attempt
    from processor.engine.registry import RunnableJob
    from processor.job import Progress, Step


class LocalPort:
    """An attempt, as its handler's context sees it. Implements `processor.context.port.AttemptPort`."""

    __slots__ = ("_attempt", "_shared", "job", "mailbox")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._shared = attempt.shared
        self.job = attempt.job
        self.mailbox = attempt.mailbox

    # --- what it is told -----------------------------------------------------------------------------------------

    @property
    def runnable(self) -> RunnableJob:
        # As `Attempt.runnable`, without one call more: it is asked twice for each job.
        job_type = self._attempt.job_type
        if job_type is None:
            raise UnknownJobType(f"no job type named {self.job.type!r}")
        return job_type

    @property
    def clock(self) -> Clock:
        return self._shared.clock

    @property
    def limits(self) -> ContextLimits:
        return self._shared.limits

    @property
    def observer(self) -> Observer | None:
        return self._shared.observer

    @property
    def patience(self) -> float:
        return self._shared.patience

    @property
    def resumed(self) -> Progress | None:
        known = self._attempt.known
        return None if known is None else known.resumed

    @property
    def steps(self) -> Mapping[str, Step]:
        known = self._attempt.known
        return {} if known is None else known.steps

    @property
    def ends_at(self) -> int | None:
        return self._attempt.ends_at

    @property
    def fencing_token(self) -> tuple[int, int, int]:
        return (self.job.life, self.job.hop, self._attempt.number.epoch)

    @property
    def interrupted(self) -> bool:
        return self.mailbox.interrupted

    def check(self) -> None:
        self.mailbox.check(self.job.id)

    # --- what it reports -----------------------------------------------------------------------------------------

    def note(self, progress: Progress) -> None:
        self.mailbox.latest = progress

    def save(self, progress: Progress) -> None:
        mailbox = self.mailbox
        mailbox.latest = progress
        mailbox.wants_save = True
        self._tell()

    def save_step(self, step: Step) -> None:
        self._report(step)

    def forget_steps(self, names: Sequence[str]) -> None:
        if names:
            self._report(Forgotten(names))

    def spawn(self, record: OutRecord, child_id: str) -> None:
        self._report(record)

    def progressed(self, done: float | None, total: float | None, note: str | None) -> None:
        self.mailbox.progressed = (done, total, note)

    def heartbeat(self) -> None:
        if self.mailbox.beat_at is not None:
            self.mailbox.beat_at = self._shared.clock.monotonic()

    def sync(self) -> None:
        """Wait until all that was saved is durable.

        Raises:
            JobLost: it never will be: the number moved away.
            JobYielded: the worker stops; what was saved goes out with its last flush.
        """
        self.check()
        done = self._shared.signal()
        self._shared.inbox.post(Sync(self._attempt, done))
        done.wait(None)
        if self.mailbox.lost:
            raise JobLost(self.job.id)

    async def async_sync(self) -> None:
        """As `sync`, for the event loop."""
        self.check()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._shared.inbox.post(Sync(self._attempt, None, loop, future))
        await future
        if self.mailbox.lost:
            raise JobLost(self.job.id)

    def _report(self, value: Reported) -> None:
        self.mailbox.report(value)
        self._tell()

    def _tell(self) -> None:
        """The owner is to look: something is new. It is a sign of life as well."""
        mailbox = self.mailbox
        if mailbox.beat_at is not None:
            mailbox.beat_at = self._shared.clock.monotonic()
        if not mailbox.posted:
            mailbox.posted = True
            self._shared.inbox.post(self._attempt)
