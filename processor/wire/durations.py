"""Lengths of time as people write them: `30s`, `5m`, `1h30m`, or a plain number of seconds."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from processor.errors import DefinitionError, ProcessorError

Duration = str | float | timedelta
"""What every duration of the public surface accepts."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def parse_duration(value: Duration, *, name: str = "duration", error: type[ProcessorError] = DefinitionError) -> float:
    """Seconds of `"500ms"`, `"30s"`, `"5m"`, `"1h30m"`, `"7d"`, a timedelta, or a number of seconds.

    Args:
        value: never negative.
        name: what the duration is for; the message names it.
        error: what to raise: `SettingsError` for settings, `DefinitionError` for code.

    Raises:
        DefinitionError: (or `error`) nothing that reads as a length of time.
    """
    seconds = _seconds(value)
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        raise error(
            f"{name}: {value!r} is no length of time",
            hint='write "500ms", "30s", "5m", "1h30m", "7d", or a number of seconds',
        )
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return float("inf")
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    if _WHOLE.fullmatch(text):
        return sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
    return None


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back: `90` -> `1m30s`, `0.25` -> `250ms`."""
    left = round(seconds * 1000)
    if left == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts)


def moment(milliseconds: int | None) -> str:
    """Milliseconds since the epoch as UTC, to the second."""
    if milliseconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(milliseconds)


_STEPS = ((1, "s"), (60, "m"), (3600, "h"), (86_400, "d"))


def span(seconds: float) -> str:
    """A length of time in its largest unit; two of them only where one would hide half of it."""
    whole = max(0, int(seconds))
    size, unit = next((step for step in reversed(_STEPS) if whole >= step[0] * (2 if step[0] > 1 else 1)), _STEPS[0])
    return f"{whole // size}{unit}"
