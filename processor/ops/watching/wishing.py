"""Making a saved filter an alert, and no alert any more, with a line in the audit topic: for page, API and command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from processor.app import App
from processor.client.orders import send
from processor.core.audit import UNWATCH_FILTER, WATCH_FILTER, noted
from processor.ops.errors import FilterInvalid
from processor.ops.kept import Kept
from processor.ops.queries import COUNTED
from processor.ops.watching.decision import Wish, standing_of
from processor.wire.durations import format_duration, parse_duration
from processor.wire.records import AuditRecord

LONGEST_HOLD = 30 * 86_400.0
"""Seconds."""
TIMEOUT = 30.0


def wish_of(at_least: int | None, hold: str) -> Wish:
    """What somebody asked for.

    Args:
        at_least: jobs; None: each new one.
        hold: for how long, as `5m`; empty: not at all.

    Raises:
        FilterInvalid: it cannot be meant.
    """
    seconds = parse_duration(hold or "0s", name="for", error=FilterInvalid)
    if seconds > LONGEST_HOLD:
        raise FilterInvalid(f"for {hold[:40]} is longer than 30 days", hint="give 30d or less")
    if at_least is None and seconds:
        raise FilterInvalid("each new job is told at once", hint="leave out for how long, or say at least how many")
    if at_least is not None and not 1 <= at_least <= COUNTED:
        raise FilterInvalid(f"at least {at_least} jobs", hint=f"give a number from 1 to {COUNTED}")
    return Wish(at_least=at_least, hold_ms=round(seconds * 1000))


def wished(wish: Wish) -> str:
    """In words."""
    if wish.at_least is None:
        return "each new job"
    jobs = f"at least {wish.at_least:,} job{'' if wish.at_least == 1 else 's'}"
    return f"{jobs} for {format_duration(wish.hold_ms / 1000)}" if wish.hold_ms else jobs


def told_filters(kept: Kept) -> list[Mapping[str, Any]]:
    """The saved filters, as `Kept.all`, with `alert`: of one that is an alert `at_least` (None: each new job), `for`,
    both in `text`, whether it is `open`, why it cannot be read (`problem`), `by` and `at`; else None.
    """
    alerts = {alert.name: alert for alert in kept.alerts()}
    rows: list[Mapping[str, Any]] = []
    for row in kept.all():
        told, alert = None, alerts.get(row["name"])
        if alert is not None:
            standing = standing_of(alert.standing, alert.filter)
            told = {
                "at_least": alert.wish.at_least,
                "for": format_duration(alert.wish.hold_ms / 1000),
                "text": wished(alert.wish),
                "open": standing.is_open,
                "problem": standing.problem,
                "by": alert.by,
                "at": alert.at,
            }
        rows.append({**row, "alert": told})
    return rows


def watch(app: App, kept: Kept, name: str, wish: Wish, *, by: str, at: int) -> None:
    """Make a saved filter an alert; one that it is already gives way.

    Args:
        app: whose audit topic it is noted in.
        kept: where the filter is.
        name: its name.
        wish: when it is told.
        by: `user@host`.
        at: milliseconds since the epoch.

    Raises:
        NotThere: no filter has that name.
        BrokerError: it is an alert now, and was not noted.
    """
    kept.watch(name, wish, by, at)
    note(app, WATCH_FILTER, name, by=by, at=at, detail=wished(wish))


def unwatch(app: App, kept: Kept, name: str, *, by: str, at: int) -> None:
    """Make a saved filter no alert any more. Raises as `watch`."""
    kept.unwatch(name)
    note(app, UNWATCH_FILTER, name, by=by, at=at)


def note(app: App, action: str, name: str, *, by: str, at: int, detail: str = "") -> None:
    """Say in the audit topic what was done to a saved filter.

    Raises:
        BrokerError: Kafka did not confirm it.
    """
    producer = app.broker().producer()
    try:
        record = AuditRecord(action, f"filter:{name}", at, by, detail=detail)
        send(producer, [noted(app.namespace, record)], TIMEOUT, f"the audit record of filter {name}")
    finally:
        producer.close()
