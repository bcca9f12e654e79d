"""What the engine asks of a pool of executors: `processor.executors` implements it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt


class Ending(Enum):
    """What a pool can do about an attempt that does not listen."""

    COMES = "comes"
    """It will be posted like any other: its process was killed, its coroutine cancelled."""
    LEFT = "left"
    """Nobody can end its thread: it is left behind, and another one takes its place."""
    STUCK = "stuck"
    """It holds up all others of its pool."""


class Pool(Protocol):
    """Runs attempts of one queue with one kind of executor; posts each to the owner's inbox when it has ended."""

    slots: int

    def submit(self, attempts: list[Attempt]) -> None: ...

    def nudge(self) -> None:
        """Called every turn of the loop: wake somebody if work waits and hands are idle."""
        ...

    def recall(self) -> list[Attempt]:
        """Give back what nobody has begun, in its order."""
        ...

    def end(self, attempt: Attempt, why: str) -> Ending:
        """End an attempt that was told to stop and did not."""
        ...

    def warmed(self, wanted: int) -> int:
        """How many attempts could begin at once, after it was seen to that so many soon can."""
        ...

    def left_behind(self) -> int:
        """Attempts that could not be ended, were given up, and still run."""
        ...

    def stop(self, timeout: float) -> bool:
        """End the pool; whether everything in it ended in time."""
        ...
