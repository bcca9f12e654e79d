"""What an alert can be about: the closed list. docs/alerts.md tells users what each means."""

from __future__ import annotations

from enum import StrEnum


class AlertKind(StrEnum):
    """The kind of an alert, by which rules choose."""

    KILLED = "killed"
    KILL_DATE_NEAR = "kill_date_near"
    HELD = "held"
    CRASH_LOOP = "crash_loop"
    CRITICAL_DEAD = "critical_dead"
    SCHEDULE_MISSED = "schedule_missed"
    BACKLOG = "backlog"
    WAITS_LONG = "waits_long"
    UNDELIVERED = "undelivered"
    """A recipient refused alerts and was given up."""
    FILTER = "filter"
    """A saved filter that is an alert matches: so many jobs, or new ones."""
    FILTER_OVER = "filter_over"
    FILTER_UNREADABLE = "filter_unreadable"
    TEST = "test"
    """Sent by `processor alerts test`."""
