"""What handlers raise on purpose, and what tells them to stop. Users import them from `processor`."""

from __future__ import annotations


class TerminalError(Exception):
    """Raised by a handler: trying again is useless."""


class RetryableError(Exception):
    """Raised by a handler: try again, `after` seconds (or a text such as "5m") from now if given."""

    def __init__(self, message: str = "", *, after: float | str | None = None) -> None:
        super().__init__(message)
        self.after = after


class ProcessEnded(BaseException):
    """Ends a simulated process as SIGKILL ends a real one: the one thing that goes through every wall."""


class JobInterrupted(BaseException):
    """Tells a handler to stop. Derives from BaseException so that `except Exception` in a handler cannot eat it."""


class JobYielded(JobInterrupted):
    """The worker gives the job up in good order (stop, revoke): progress is saved, another worker goes on."""


class JobLost(JobInterrupted):
    """The worker no longer owns the job: nothing it does from here on is kept."""
