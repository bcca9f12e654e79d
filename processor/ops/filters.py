"""The filter language of page, API and command line. Pure.

    state:dead,retrying type:order.* order_id:123
    queue:bulk since:2h error:9f2c81d04be1
    "Jane Doe"

Conditions are joined by "and", values between commas by "or". A `*` at the end of a value stands for anything. A word
without a name is looked for as an id (or its beginning), an ordering key, and a value of any declared payload field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from processor.errors import ProcessorError
from processor.ops.errors import FilterInvalid
from processor.states import State
from processor.texts import shown
from processor.wire.durations import parse_duration

COLUMNS = ("state", "type", "queue", "key", "worker", "parent")
"""Names that mean a column of the job itself."""
TIMES = ("since", "until")
NAMES = (*COLUMNS, "id", "error", *TIMES)
LONGEST = 1000
"""Characters of a filter."""
_VALUES = 50
_LONGEST_AGO = 1e11
"""Seconds, some 3000 years: no database takes numbers of any size."""
_TERM = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][\w.]{0,59}):)?(?P<value>(?:"(?:[^"\\]|\\.)*"|[^\s",]+)(?:,(?:"(?:[^"\\]|\\.)*"|[^\s",]+))*)""",
    re.ASCII | re.VERBOSE,
)
_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,"]+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition: any of the values will do."""

    name: str
    """One of `NAMES`, a declared payload field, or empty: anything that identifies a job."""
    values: tuple[str, ...]
    """A `*` at the end of one stands for anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is meant: jobs for which all conditions hold."""

    conditions: tuple[Condition, ...] = ()
    since: int | None = None
    """Last changed at this moment or later, milliseconds since the epoch."""
    until: int | None = None

    def of(self, name: str) -> tuple[str, ...]:
        """The values asked of a name; empty: none were."""
        return next((condition.values for condition in self.conditions if condition.name == name), ())


def parse(text: str, now_ms: int, fields: Sequence[str] = ()) -> Filter:
    """Read a filter.

    Args:
        text: in the language of this module.
        now_ms: for `since:2h`.
        fields: declared payload fields, beside `NAMES`.

    Raises:
        FilterInvalid: it cannot be read, or names what is not known.
    """
    if len(text) > LONGEST:
        raise FilterInvalid(f"a filter of {len(text)} characters", hint=f"at most {LONGEST}")
    conditions: list[Condition] = []
    times: dict[str, int] = {}
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None or _is_open(text, found):
            raise FilterInvalid(
                f"the filter cannot be read from {shown(text[at : at + 40])} on",
                hint='write name:value, name:value,other or "some words"',
            )
        at = found.end()
        name = found["name"] or ""
        values = tuple(_unquoted(*pair) for pair in _VALUE.findall(found["value"]))
        # Left out in silence, a value too many would change which jobs are meant.
        if len(values) > _VALUES:
            raise FilterInvalid(f"{len(values)} values of {name or 'one term'}", hint=f"at most {_VALUES}")
        if name in TIMES:
            if len(values) > 1 or name in times:
                raise FilterInvalid(f"{name} is given twice", hint=f"one moment for {name}:, for example {name}:2h")
            times[name] = _moment(name, values[0], now_ms)
            continue
        conditions.append(_condition(name, values, fields))
    return Filter(conditions=tuple(conditions), since=times.get("since"), until=times.get("until"))


def _is_open(text: str, found: re.Match[str]) -> bool:
    """Whether a term goes on where it cannot, or is a name without a value."""
    goes_on = found.end() < len(text) and not text[found.end()].isspace()
    return goes_on or (not found["name"] and found["value"].endswith(":"))


def quoted(value: str) -> str:
    """A value as the language takes it."""
    if value and re.fullmatch(r'[^\s",\\:*]+', value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(inside: str, plain: str) -> str:
    return re.sub(r"\\(.)", r"\1", inside) if inside else plain


def _condition(name: str, values: tuple[str, ...], fields: Sequence[str]) -> Condition:
    if name not in NAMES and name and name not in fields:
        known = ", ".join((*NAMES, *sorted(fields)))
        raise FilterInvalid(
            f"nothing can be filtered by {shown(name, 80)}",
            hint=f"there are: {known}; a job type declares payload fields with search=",
        )
    if name == "state":
        unknown = [value for value in values if value not in tuple(State)]
        if unknown:
            raise FilterInvalid(f"there is no state {shown(unknown[0], 60)}", hint=f"use {', '.join(State)}")
    return Condition(name=name, values=values)


def _moment(name: str, value: str, now_ms: int) -> int:
    """`2h` (so long ago), a date, or a date with a time (UTC unless it says otherwise)."""
    try:
        at = datetime.fromisoformat(value)
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        pass
    refused: ProcessorError | None = None
    try:
        ago = parse_duration(value, name=name)
        if ago < _LONGEST_AGO:
            return now_ms - round(ago * 1000)
    except ProcessorError as error:
        refused = error
    raise FilterInvalid(
        f"{name}:{shown(value, 60)} is no moment", hint="write 30m, 2h, 3d, 2026-11-28 or 2026-11-28T02:00"
    ) from refused
