"""When an alert about a filter is told. Pure: the clock and what the filter matches are passed in.

A wish is one of two:

- **at least so many, for so long**: it opens when that many jobs have matched for `hold_ms` without a break, and closes
  when fewer have for as long. Both are told once, so a number that goes up and down within that time tells nothing.
- **each new job**: every job that comes to match is told once in each of its lives; those that match when the wish is
  made are known already.

Looks that lie further apart than `GAP` say nothing about the time between them: the waiting begins again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

GAP = 60_000
"""Milliseconds."""
GRACE = 600_000
"""Milliseconds by which a job may come later than one that changed after it: transactions stay open, clocks differ."""
REMEMBERED = 1_000
"""Lives of jobs that are known to have been told."""
PAGE = 200
"""Jobs of one look, the newest."""


class Change(StrEnum):
    """What is told."""

    OPENED = "opened"
    CLOSED = "closed"
    NEW = "new"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """When somebody wants to hear of a filter."""

    at_least: int | None
    """Jobs that match; None: each new one is told."""
    hold_ms: int = 0
    """For how long, milliseconds; 0 where each new one is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of an alert from earlier looks. Kept as JSON."""

    filter: str
    """The text that it is of: of another one nothing is known."""
    is_open: bool = False
    turned_at: int | None = None
    """Since when it has been the other way, milliseconds since the epoch; None: it is as it was told."""
    looked_at: int = 0
    """When that was seen last."""
    problem: str = ""
    """Why the filter cannot be read; empty: it can."""
    begun: bool = False
    """Whether there was a look for new jobs."""
    floor: int = 0
    """Jobs that changed before this moment are not new."""
    known: tuple[str, ...] = ()
    """Lives of jobs that were told, the newest first."""

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A job that matches."""

    job_id: str
    life: int
    changed_at: int
    """Milliseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from a look."""

    standing: Standing
    change: Change | None = None
    """What is to be told; None: nothing."""
    new: tuple[str, ...] = ()
    """Ids of the jobs that are new."""


def standing_of(text: str, filter_text: str) -> Standing:
    """What was kept, if it is of this filter and can be read; else the standing of an alert that is made now."""
    try:
        values = json.loads(text)
        found = Standing(**{**values, "known": tuple(values.get("known", ()))})
    except (ValueError, TypeError, AttributeError):
        return Standing(filter=filter_text)
    return found if found.filter == filter_text else Standing(filter=filter_text)


def counted(before: Standing, wish: Wish, matches: int, now_ms: int) -> Verdict:
    """After a look of a wish for so many: `matches` jobs, or at least as many as are wished for."""
    assert wish.at_least is not None
    before = replace(before, problem="")
    is_above = matches >= wish.at_least
    if is_above == before.is_open:
        return Verdict(standing=replace(before, turned_at=None, looked_at=0))
    seen = before.turned_at is not None and now_ms - before.looked_at <= GAP
    since = before.turned_at if seen and before.turned_at is not None else now_ms
    if now_ms - since < wish.hold_ms:
        return Verdict(standing=replace(before, turned_at=since, looked_at=now_ms))
    after = replace(before, is_open=is_above, turned_at=None, looked_at=0)
    return Verdict(standing=after, change=Change.OPENED if is_above else Change.CLOSED)


def listed(before: Standing, fits: Sequence[Fit]) -> Verdict:
    """After a look of a wish for each new job: the `PAGE` newest that match, newest change first."""
    before = replace(before, problem="")
    young = [fit for fit in fits if fit.changed_at >= before.floor]
    lives = {f"{fit.life}/{fit.job_id}": fit.job_id for fit in young}
    known = set(before.known)
    fresh = [life for life in lives if life not in known]
    floor = before.floor
    if fits:
        # Of a full page nobody knows what lies below it: what rises into it later is not new.
        floor = max(floor, fits[0].changed_at - GRACE, fits[-1].changed_at if len(fits) >= PAGE else 0)
    kept = tuple([*fresh, *before.known][:REMEMBERED])
    after = replace(before, begun=True, floor=floor, known=kept)
    if not before.begun or not fresh:
        return Verdict(standing=after)
    return Verdict(standing=after, change=Change.NEW, new=tuple(lives[life] for life in fresh))


def unreadable(before: Standing, problem: str) -> Verdict:
    """After a look at a filter that cannot be read any more: told once, until it can."""
    after = replace(before, problem=problem, turned_at=None, looked_at=0)
    return Verdict(standing=after, change=None if before.problem else Change.UNREADABLE)
