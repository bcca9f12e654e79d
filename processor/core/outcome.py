"""How an attempt can end. An executor reports one of these; the completer turns it into records."""

from __future__ import annotations

from typing import NamedTuple

from processor.dead_reasons import DeadReason
from processor.job import ErrorInfo
from processor.states import State


class Succeeded(NamedTuple):
    """The handler returned; `result` is its JSON."""

    result: bytes | None = None


_NOTHING_RETURNED = Succeeded()


def succeeded(result: bytes | None) -> Succeeded:
    """The outcome of a handler that returned. One for all that return nothing: making it costs as much as they do."""
    return _NOTHING_RETURNED if result is None else Succeeded(result)


class Failed(NamedTuple):
    """The handler raised, or could not be started. `reason` is a `DeadReason`, or the code of an error."""

    error: ErrorInfo
    reason: str = DeadReason.DEAD
    tried: bool = True
    """It is the end of an attempt; else none was begun."""


class Retried(NamedTuple):
    """The handler raised, and its policy says that it is tried again, not before `delay` seconds from now."""

    error: ErrorInfo
    delay: float


class Discarded(NamedTuple):
    """The handler raised, and its policy says that nobody need hear of it."""

    error: ErrorInfo


class Ended(NamedTuple):
    """Somebody or something else than its handler ended the job: `cancelled`, `killed` or `expired`, and why."""

    state: State
    reason: str
    began: bool = False
    """An attempt was under way; else it was ended before its next one."""


class Yielded(NamedTuple):
    """The handler stopped because it was asked to. Burns no attempt; its progress is saved, its offset stays open."""


class Lost(NamedTuple):
    """The number moved away while the handler ran: nothing of it counts."""


class Parked(NamedTuple):
    """The job waits without a slot: for a deploy (`WAITING`) or for a person (`IN_DOUBT`)."""

    state: State
    reason: str
    until: int | None = None
    """When it is looked at again at the latest, milliseconds since the epoch; None: when an operator says so."""
    error: ErrorInfo | None = None
    """Of the attempt that ended so, if it failed."""


class Crashed(NamedTuple):
    """The child process that ran the handler died."""

    detail: str


class Stop(NamedTuple):
    """Why an attempt is to end before its handler does."""

    kind: str
    """`timeout`, `stall`, `killed` or `cancelled`."""
    reason: str
    at: float
    """When it was told so (monotonic seconds)."""
    forced: bool = False
    """It did not listen: it is being ended by force."""


Outcome = Succeeded | Failed | Retried | Discarded | Ended | Yielded | Lost | Parked | Crashed


def name_of(outcome: Outcome) -> str:
    """An end, as the metric has it."""
    if isinstance(outcome, Ended):
        return outcome.state.value
    return "discarded" if isinstance(outcome, Discarded) else "dead" if isinstance(outcome, Failed) else "succeeded"
