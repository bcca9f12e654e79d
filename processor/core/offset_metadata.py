"""What is stored beside a committed offset: who owned the number, and what above the offset is already complete.

One line of ASCII, fields separated by `;`, numbers in base 36:

    kjp1;committed;epoch;slot;released;read mark;hint;ranges[;deaths]

The read mark is relative to the committed offset, and so is the first range; each further number counts from the one
before, so that a range costs a few bytes: `skip.length`, ranges separated by `,`. The committed offset itself is in the
text because a tool may move an offset and keep its metadata; ranges read against the wrong offset would skip jobs.

Deaths are there only while there are any: `epoch.mark`, the mark relative to the committed offset, separated by `,`.

Whatever cannot be understood reads as None: start at the offset, believe nothing. Running a complete job again is safe,
skipping an incomplete one never is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote

from processor.core.process_deaths import Death
from processor.core.window import Range

LIMIT = 4095
"""Bytes a broker stores by default (`offset.metadata.max.bytes` 4096)."""
BUDGET = 3000
"""Bytes from which on the oldest incomplete jobs are promoted, so that `LIMIT` is never met."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NUMBER = r"[0-9a-z]{1,13}"
_TEXT = re.compile(
    rf"kjp1;({_NUMBER});({_NUMBER});([A-Za-z0-9_.~%-]*);([01]);({_NUMBER});({_NUMBER})?;"
    rf"((?:{_NUMBER}\.{_NUMBER}(?:,{_NUMBER}\.{_NUMBER})*)?)"
    rf"(?:;({_NUMBER}\.{_NUMBER}(?:,{_NUMBER}\.{_NUMBER})*))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetMetadata:
    """What a flush knows of a lane partition besides its offset."""

    epoch: int
    """Durable counter of the number, of the owner that flushed."""
    slot: str
    """Name of the owner's slot."""
    read_mark: int
    """Next offset the owner would have read, or let go where a process has just died: jobs from here on were never
    started by it.
    """
    released: bool = False
    """The owner gave the number up in good order."""
    hint: int | None = None
    """Where in the checkpoint partition a restore must start; None: at its beginning."""
    ranges: tuple[Range, ...] = ()
    """Complete offsets from the committed one on: first and last, ascending, not adjacent."""
    deaths: tuple[Death, ...] = ()
    """Processes that died as owners, oldest first, while something below their marks is not done."""
    version: int = 1
    """Of this text."""


class Encoded(NamedTuple):
    """Metadata as text."""

    text: str
    dropped: int
    """How many ranges, counted from the last one, did not fit. Their jobs run again if the owner dies now."""

    @property
    def overflow(self) -> bool:
        """Whether something did not fit."""
        return self.dropped > 0


def encode(meta: OffsetMetadata, committed: int, limit: int = LIMIT) -> Encoded:
    """The text to commit beside `committed`, at most `limit` bytes; ranges that do not fit are dropped from the end.

    Raises:
        ValueError: a range lies below the offset, out of order or is empty, the read mark is below the offset, or not
            even the fields before the ranges fit (a slot name of thousands of characters).
    """
    if meta.read_mark < committed:
        raise ValueError(f"the read mark {meta.read_mark} is below the committed offset {committed}")
    hint = "" if meta.hint is None else base36(meta.hint)
    numbers = f"{base36(committed)};{base36(meta.epoch)};{quote(meta.slot, safe='')};{int(meta.released)}"
    head = f"kjp{meta.version};{numbers};{base36(meta.read_mark - committed)};{hint};"
    if len(head) > limit:
        raise ValueError(f"{len(head)} bytes before the ranges, over the limit of {limit}; use a shorter slot name")
    tail = ",".join(f"{base36(epoch)}.{base36(mark - committed)}" for epoch, mark in meta.deaths)
    tail = f";{tail}" if tail else ""
    parts: list[str] = []
    budget = limit - len(head) - len(tail) + 1  # the first range has no comma before it
    for part in _encoded_ranges(meta.ranges, committed):
        budget -= len(part) + 1
        if budget < 0:
            break
        parts.append(part)
    return Encoded(head + ",".join(parts) + tail, len(meta.ranges) - len(parts))


def fits(meta: OffsetMetadata, committed: int, budget: int = BUDGET) -> bool:
    """Whether the text stays within `budget`; if not, promote the oldest incomplete jobs."""
    return not encode(meta, committed, budget).overflow


def decode(text: str | None, committed: int) -> OffsetMetadata | None:
    """What was stored beside `committed`. None for anything missing, foreign, newer or damaged: read it all."""
    match = _TEXT.fullmatch(text) if text else None
    if match is None or int(match[1], 36) != committed:
        return None
    return OffsetMetadata(
        epoch=int(match[2], 36),
        slot=unquote(match[3]),
        released=match[4] == "1",
        read_mark=committed + int(match[5], 36),
        hint=None if match[6] is None else int(match[6], 36),
        ranges=tuple(_decoded_ranges(match[7], committed)),
        deaths=tuple(_decoded_deaths(match[8], committed)),
    )


def base36(number: int) -> str:
    """Lower-case digits, shortest form; `int(text, 36)` reads them."""
    if number < 0:
        raise ValueError(f"{number} is negative")
    text = _DIGITS[number % 36]
    while number := number // 36:
        text = _DIGITS[number % 36] + text
    return text


def _encoded_ranges(ranges: Iterable[Range], committed: int) -> Iterable[str]:
    after = committed
    for first, last in ranges:
        if first < after or last < first:
            raise ValueError(f"range {first}-{last} does not come after {after}")
        yield f"{base36(first - after)}.{base36(last - first)}"
        after = last + 1


def _decoded_deaths(text: str | None, committed: int) -> Iterable[Death]:
    for part in text.split(",") if text else ():
        epoch, mark = part.split(".")
        yield Death(int(epoch, 36), committed + int(mark, 36))


def _decoded_ranges(text: str, committed: int) -> Iterable[Range]:
    after = committed
    for part in text.split(",") if text else ():
        skip, length = part.split(".")
        first = after + int(skip, 36)
        last = first + int(length, 36)
        yield first, last
        after = last + 1
