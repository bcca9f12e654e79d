"""What handlers raise on purpose, and what tells them to stop. Users import them from `processor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class TerminalError(Exception):
    """Raised by a handler: trying again is useless."""


class RetryableError(Exception):
    """Raised by a handler: try again, `after` seconds (or a text such as "5m") from now if given."""

    def __init__(self, message: str = "", *, after: float | str | None = None) -> None:
        super().__init__(message)
        self.after = after


class ProcessEnded(BaseException):
    """Ends a simulated process as SIGKILL ends a real one: the one thing that goes through every wall."""


class ProcessStopped(SystemExit):
    """Somebody wants this process to end before it has begun; not a `sys.exit` of the user's module."""


class JobInterrupted(BaseException):
    """Tells a handler to stop. Derives from BaseException so that `except Exception` in a handler cannot eat it."""


class JobYielded(JobInterrupted):
    """The worker gives the job up in good order (stop, revoke): progress is saved, another worker goes on."""


class JobLost(JobInterrupted):
    """The worker no longer owns the job: nothing it does from here on is kept."""


class Waits(Protocol):
    """An attempt, as whoever waits in its handler sees it."""

    awaits: str


class RunningHere:
    """The attempt whose handler runs in this context. One object for many attempts, one after the other: a slot of an
    event loop would otherwise change its context with each of them.
    """

    __slots__ = ("attempt", "stop_if_asked")

    def __init__(self) -> None:
        self.attempt: Waits | None = None
        self.stop_if_asked: Callable[[], None] | None = None


RUNNING_HERE: ContextVar[RunningHere] = ContextVar("running_here")


def runs_here(stop_if_asked: Callable[[], None], attempt: Waits) -> None:
    """A handler begins in this context; `stop_if_asked` raises if it is to stop."""
    here = RUNNING_HERE.get(None)
    if here is None:
        here = RunningHere()
        RUNNING_HERE.set(here)
    here.attempt = attempt
    here.stop_if_asked = stop_if_asked


@contextmanager
def waits_for(job_id: str) -> Iterator[None]:
    """A handler that waits here for the end of a job says so to its worker; outside of handlers nothing."""
    here = RUNNING_HERE.get(None)
    attempt = None if here is None else here.attempt
    if attempt is None:
        yield
        return
    attempt.awaits = job_id
    try:
        yield
    finally:
        attempt.awaits = ""


def stop_if_asked() -> None:
    """Let a handler that waits here be stopped; outside of handlers nothing.

    Raises:
        JobInterrupted: the worker wants it to stop.
    """
    here = RUNNING_HERE.get(None)
    if here is not None and here.stop_if_asked is not None:
        here.stop_if_asked()
