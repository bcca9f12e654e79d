"""How moments, spans and numbers are written for people."""

from __future__ import annotations

from datetime import UTC, datetime

_STEPS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def moment(milliseconds: int | None) -> str:
    """Milliseconds since the epoch in UTC, to the second."""
    at = _at(milliseconds)
    return "-" if milliseconds is None else str(milliseconds) if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(milliseconds: int | None) -> str:
    """The same for machines."""
    at = _at(milliseconds)
    return "" if at is None else at.isoformat(timespec="milliseconds")


def span(seconds: float) -> str:
    """A length of time in its largest unit; a smaller one only where one of it would hide half."""
    whole = max(0, int(seconds))
    size, unit = next((step for step in _STEPS if whole >= step[0] * (2 if step[0] > 1 else 1)), _STEPS[-1])
    return count(whole // size, unit)


def ago(milliseconds: int | None, now_ms: int) -> str:
    """How long ago; clocks differ, so the future is now."""
    if milliseconds is None:
        return "-"
    return "just now" if now_ms - milliseconds < 1000 else f"{span((now_ms - milliseconds) / 1000)} ago"


def count(amount: int, noun: str, plural: str = "") -> str:
    """`1 attempt`, `3 attempts`."""
    return f"{number(amount)} {noun if amount == 1 else plural or noun + 's'}"


def number(value: float) -> str:
    """A number with its thousands apart, without a needless `.0`."""
    return f"{int(value):,}".replace(",", "\u202f") if float(value).is_integer() else f"{value:g}"


def short(kind: str) -> str:
    """The name of an exception without its module."""
    return kind.rpartition(".")[2]


def first_line(text: str, limit: int = 300) -> str:
    """The first line of a message, cut."""
    line = text.strip().partition("\n")[0].rstrip(".")
    return line if len(line) <= limit else f"{line[:limit]}…"


def _at(milliseconds: int | None) -> datetime | None:
    try:
        return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
