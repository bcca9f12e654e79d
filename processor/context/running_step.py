"""The step whose function runs: children that it starts are its own, and so is its span if the attempt is traced."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from types import TracebackType

from processor.tracing import inside


class RunningStep:
    """A step that is run, and not found: `with` it around its function."""

    __slots__ = ("_span", "_token", "full", "spawned")

    def __init__(self, full: str) -> None:
        self.full = full
        """Its scoped name."""
        self.spawned: dict[str, int] = {}
        """Children that its function started, by job type, to count their index."""
        self._span: AbstractContextManager[None] | None = None
        self._token: Token[RunningStep | None]

    def __enter__(self) -> None:
        self._token = running_step.set(self)
        spans = inside()
        if spans is not None:
            self._span = spans.step(self.full)
            self._span.__enter__()

    # A class and no generator: that would add frames to the traceback, and fingerprints of errors are made of those.
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        running_step.reset(self._token)
        if self._span is not None:
            self._span.__exit__(kind, error, at)


running_step: ContextVar[RunningStep | None] = ContextVar("running_step", default=None)
"""What a step spawns is its own, for it is skipped as a whole on a resume. A context variable, since an async handler
may run several at a time.
"""
