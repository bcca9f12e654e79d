"""The engine's side of one attempt, as the context sees it. The worker implements it; tests do with a list.

The context decides *what* is worth saving and *when* it is consistent; the port decides when it is written. So nothing
here waits for the log except `sync` and `async_sync`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from processor.broker.base import OutRecord
from processor.clock import Clock
from processor.errors import TerminalError
from processor.job import Job, Progress, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLimits:
    """How much one job may put into the log at once, in bytes of JSON."""

    checkpoint_max_bytes: int = 256 * 1024
    """Cursor and state together; also each single step's result."""
    result_max_bytes: int = 256 * 1024
    """What the handler returns."""
    payload_max_bytes: int = 512 * 1024
    """The payload of a child."""
    ahead_max_records: int = 1000
    """Steps and children that may be on their way to the log; at more the handler waits until they are there."""
    ahead_max_bytes: int = 4 * 1024 * 1024


class StepInDoubt(BaseException):
    """A `once` that the log saw start and not end: it may have happened. The worker parks the job `in_doubt`.

    Derives from BaseException so that a handler's `except Exception` cannot turn doubt into a second try.
    """

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step!r} was started and its end was never written: it may have happened")
        self.step = step


class StepFailed(TerminalError):
    """A `once` that the log saw fail. It must not run twice, so the recorded failure is raised instead."""

    def __init__(self, step: str, error: str) -> None:
        super().__init__(f"step {step!r} failed in an earlier attempt and must not run twice: {error}")
        self.step = step
        self.error = error


class Observer(Protocol):
    """Looks on from inside a handler, in its thread: the Testbed counts runs and items with it, and crashes at one."""

    def step_begins(self, job: Job, step: str) -> None:
        """The function of a step is called now. `step` is its scoped name."""
        ...

    def step_ran(self, job: Job, step: str) -> None:
        """It has returned; nothing of that was reported yet."""
        ...

    def item_taken(self, job: Job, loop: str, cursor: str) -> None:
        """An item is handed to the handler. `loop` is scoped, `cursor` JSON."""
        ...

    def item_done(self, job: Job, loop: str, items: int) -> None:
        """The next one was asked for; `items` are done, over all attempts."""
        ...


class Forgotten(NamedTuple):
    """Steps that an attempt needs no more: their item is done."""

    names: Sequence[str]


Reported = Step | OutRecord | Forgotten
"""What an attempt reports, in its order: a step, a child's record, steps to forget."""


class AttemptPort(Protocol):
    """One attempt. Called from the handler's thread, or from the event loop's thread for async handlers."""

    @property
    def job(self) -> Job:
        """`job.attempt` attempts were made before this one."""
        ...

    @property
    def fencing_token(self) -> tuple[int, int, int]:
        """(life, hop, epoch): grows with every owner."""
        ...

    @property
    def resumed(self) -> Progress | None:
        """What the log held when this attempt began."""
        ...

    @property
    def steps(self) -> Mapping[str, Step]:
        """Steps the log held when this attempt began, by scoped name."""
        ...

    @property
    def clock(self) -> Clock: ...
    @property
    def limits(self) -> ContextLimits: ...
    @property
    def ends_at(self) -> int | None:
        """When this attempt is told to stop at the latest, milliseconds since the epoch; None: never."""
        ...

    @property
    def interrupted(self) -> bool:
        """Cheap flag, looked at by every checkpoint, step, item and heartbeat; if set, they call `check`."""
        ...

    def check(self) -> None:
        """Return, or raise JobYielded or JobLost if the worker wants the attempt to stop."""
        ...

    def note(self, progress: Progress) -> None:
        """The newest consistent progress. Not written now, but on exception, stop, revoke and park."""
        ...

    def save(self, progress: Progress) -> None:
        """`note`, and durable with one of the next flushes; the newest wins."""
        ...

    def save_step(self, step: Step) -> None:
        """Write-behind, in the order of the calls."""
        ...

    def forget_steps(self, names: Sequence[str]) -> None:
        """Steps of finished items. Tombstoned only after, or with, the progress noted last (which says so)."""
        ...

    def spawn(self, record: OutRecord, child_id: str) -> None:
        """A child's record: leaves with this job's next flush."""
        ...

    def sync(self) -> None:
        """Block until all that was saved is durable; raises JobLost or JobYielded if the attempt is to stop instead.

        What was saved before a JobYielded may still go out with the worker's last flush.
        """
        ...

    async def async_sync(self) -> None:
        """`sync` for the event loop."""
        ...

    def heartbeat(self) -> None:
        """The handler is alive, though it saves nothing."""
        ...

    def progressed(self, done: float, total: float | None, note: str | None) -> None:
        """For the status record, write-behind."""
        ...
