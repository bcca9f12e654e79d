"""How long a job may still take, as `job list` and `job show` tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from processor.cli.wording import span, until
from processor.states import TERMINAL, State
from processor.wire.durations import format_duration

if TYPE_CHECKING:
    from processor.policies import JobOptions


def ends_in(kill_at: int | None, ends_at: int | None, now_ms: int) -> str | None:
    """The time that is left for a list: `12m`, `now`; None if there is no limit."""
    first = min((at for at in (kill_at, ends_at) if at is not None), default=None)
    if first is None:
        return None
    return span((first - now_ms) / 1000) if first > now_ms else "now"


def limits_of(options: JobOptions | None, facts: dict[str, Any]) -> dict[str, Any]:
    """The limits of its type that matter in its state, in seconds; and when it expires, if it has not begun.

    Args:
        options: of its type; None: not known here.
        facts: of the job, as `job show --json` tells them.
    """
    limits: dict[str, Any] = {"attempt_timeout": None, "stall_timeout": None, "expires_at": None}
    if options is None or facts["state"] in TERMINAL:
        return limits
    if facts["state"] == State.RUNNING:
        limits["attempt_timeout"], limits["stall_timeout"] = options.attempt_timeout, options.stall_timeout
    waits = facts["state"] in (State.QUEUED, State.SCHEDULED)
    if waits and options.queue_timeout is not None and not facts["attempt"]:
        due = max(facts["at"], facts["due_at"] or 0)
        limits["expires_at"] = due + round(options.queue_timeout * 1000)
    return limits


def told_limits(facts: dict[str, Any], now_ms: int) -> dict[str, str]:
    """The same for people, by the name of the line."""
    limits, told = facts["limits"], {}
    if limits["expires_at"] is not None:
        told["expires"] = f"{until(limits['expires_at'], now_ms)}, unless it has begun"
    ends_at, kill_at = facts["ends_at"], facts["kill_at"]
    if ends_at is not None and ends_at != kill_at:
        timeout = limits["attempt_timeout"]
        told["attempt ends"] = until(ends_at, now_ms) + (
            "" if timeout is None else f": attempt_timeout {format_duration(timeout)}"
        )
    if limits["stall_timeout"] is not None:
        silence = format_duration(limits["stall_timeout"])
        told["stalls"] = f"after {silence} without anything saved and without a heartbeat"
    if kill_at is not None:
        told["kill date"] = until(kill_at, now_ms)
    return told
