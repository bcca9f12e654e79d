"""The states of a job and the moves between them, as data.

The list is closed. The diagram in docs/job-states.md is generated from `TRANSITIONS` and a test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a life of a job stands. No status record yet means `QUEUED`."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    WAITING = "waiting"
    IN_DOUBT = "in_doubt"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    KILLED = "killed"
    EXPIRED = "expired"
    DISCARDED = "discarded"


TERMINAL = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED, State.KILLED, State.EXPIRED, State.DISCARDED})
"""States that end a life. The first terminal state of a life wins; a redrive starts the next life in `QUEUED`."""

_OPEN_ENDS = frozenset({State.CANCELLED, State.KILLED, State.DEAD, State.DISCARDED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.SCHEDULED: frozenset({State.QUEUED, State.EXPIRED}) | _OPEN_ENDS,
    State.QUEUED: frozenset({State.RUNNING, State.WAITING, State.SUCCEEDED, State.RETRYING, State.EXPIRED})
    | _OPEN_ENDS,
    State.RUNNING: frozenset({State.QUEUED, State.WAITING, State.IN_DOUBT, State.RETRYING, State.SUCCEEDED})
    | _OPEN_ENDS,
    State.RETRYING: frozenset({State.QUEUED}) | _OPEN_ENDS,
    State.WAITING: frozenset({State.QUEUED, State.RUNNING, State.EXPIRED}) | _OPEN_ENDS,
    State.IN_DOUBT: frozenset({State.QUEUED, State.RUNNING, State.SUCCEEDED}) | _OPEN_ENDS,
    State.SUCCEEDED: frozenset(),
    State.DEAD: frozenset(),
    State.CANCELLED: frozenset(),
    State.KILLED: frozenset(),
    State.EXPIRED: frozenset(),
    State.DISCARDED: frozenset(),
}
"""Every move within one life. From `QUEUED` to an end without `RUNNING`: short jobs write only their end."""


def may_move(old: State, new: State) -> bool:
    """Whether a life may go from `old` to `new`."""
    return new in TRANSITIONS[old]
