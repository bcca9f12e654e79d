"""The retry chain: how a record that must wait walks down topics of one fixed delay each. Pure.

In a topic where every record waits equally long, the order of arrival is the order of leaving, so a forwarder need only
look at the head: a million waiting records cost it no memory. A delay that is no rung is a walk: each time the longest
rung that is not longer than what is left, and for less than the shortest rung that one, left early. So a record passes
at most a few rungs of each length, never leaves before it is due, and is late by what its last rung makes it wait
behind others: less than the shortest rung.

A head leaves at min(due, append time + rung). The append time is the broker's, so no client's clock stalls a rung.
"""

from __future__ import annotations

from processor.wire.topics import RETRY_DELAYS

_LONGEST_FIRST = sorted(RETRY_DELAYS.items(), key=lambda item: -item[1])
SHORTEST = min(RETRY_DELAYS, key=RETRY_DELAYS.__getitem__)


def rung_for(left_ms: int) -> str | None:
    """The rung (a key of `RETRY_DELAYS`) for a record that is due in `left_ms` milliseconds; None: it is due now."""
    if left_ms <= 0:
        return None
    return next((name for name, delay in _LONGEST_FIRST if delay <= left_ms), SHORTEST)


def leaves_at(appended_ms: int, rung: str, due_ms: int | None) -> int:
    """When the record at the head of a rung leaves it, milliseconds since the epoch. Without a due date: at once."""
    if due_ms is None:
        return appended_ms
    return min(due_ms, appended_ms + RETRY_DELAYS[rung])


def walk_until(due_ms: int, kill_at_ms: int | None) -> int:
    """Where a walk ends: a job whose kill date comes first is killed on time, not when it would have been due."""
    return due_ms if kill_at_ms is None else min(due_ms, kill_at_ms)


def longest_walk(left_ms: int) -> int:
    """Rungs that a delay passes if every hop leaves on time."""
    hops = 0
    while (name := rung_for(left_ms)) is not None:
        left_ms -= RETRY_DELAYS[name]
        hops += 1
    return hops
