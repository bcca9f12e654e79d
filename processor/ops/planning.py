"""From a filter to SQL that reads no more rows than a page shows.

A list is newest first. An index that begins with one value and goes on with the time yields such a list as it lies
there; with two values it does not, and a database sorts all it finds, which may be a million rows. So a filter becomes
*branches*, each of which is one stretch of one index, and the newest rows of all branches together are the page:

1. What names few jobs at most (an id's beginning, a payload field, words): those, if they are few indeed.
2. Else error, job type, queue or state, one branch for each combination that there is: `tallies` knows which, and how
   many jobs each way of asking would walk over. The shortest way is taken.
3. Unless that is long, and a key, a parent or a worker is named: those have an index of their own, with the state.
4. Else everything, by time.

All other conditions are written so that no index serves them: the database has no choice left to get wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    and_,
    false,
    func,
    or_,
    select,
    union,
    union_all,
)

from processor.ops import tables
from processor.ops.errors import FilterInvalid
from processor.ops.filters import COLUMNS, Condition, Filter
from processor.ops.folding import clean

FEW = 2000
"""Rows that may be sorted for a page."""
BRANCHES = 40
"""Stretches that are read for one page, of what `tallies` knows."""
SEEKS = 400
"""The same, of keys, parents and workers: somebody has named these. SQLite takes 500."""
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
_HIGHEST = "\U0010ffff"
_OWN = ("parent", "key", "worker")
"""Columns with an index of their own."""
_ALIKE = ("type", "queue", "state", "error")
"""What `tallies` knows."""
_LEADS = {"fingerprint": "error", "type": "type", "queue": "queue", "state": "state"}
"""Column of `tallies` -> name in a filter."""

Where = list[ColumnElement[bool]]
Column = Callable[[str], ColumnElement[Any]]


def branches(sql: Connection, where: Filter, queues: frozenset[str] | None = None) -> list[Where]:
    """Which jobs are meant, as conditions of which each alone is a stretch of an index; empty: there are none.

    Args:
        sql: what there is, is asked of it.
        where: the filter.
        queues: whose jobs may be seen; None: all.
    """
    for condition in where.conditions:
        few = _few(sql, condition)
        if few is not None:
            return [[few, *_others(where, condition, queues)]]
    by, amount = _shortest(sql, where, queues)
    if amount > FEW:
        for condition in where.conditions:
            if condition.name in _OWN and _exact(condition):
                return _by_own(sql, where, condition, queues)
    return _by_tallies(sql, where, queues, by)


def place_of(row: Mapping[str, Any]) -> str:
    """Where a row is in the list of the newest: what comes after it is asked for by this."""
    return f"{row['changed_at']}~{row['id']}"


def parse_place(text: str) -> tuple[int, str] | None:
    """A place as `place_of` wrote it; None of an empty text.

    Raises:
        FilterInvalid: it is none.
    """
    if not text:
        return None
    at, _, job_id = text.partition("~")
    if not at.lstrip("-").isdecimal() or len(at) > 18:
        raise FilterInvalid(f"{text[:60]!r} is no place in the list", hint="leave after= out")
    return int(at), clean(job_id)


def newest(
    sql: Connection,
    where: Filter,
    columns: Sequence[str],
    *,
    queues: frozenset[str] | None = None,
    after: tuple[int, str] | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """The newest jobs that are meant, as far as they lie behind a place of the list."""
    jobs = tables.jobs.c
    behind: Where = []
    if after is not None:
        at, job_id = after
        # The first condition is where the index begins.
        behind = [jobs.changed_at <= at, or_(jobs.changed_at < at, (jobs.changed_at == at) & (jobs.id < job_id))]
    found = [
        select(*(jobs[name] for name in columns))
        .where(*branch, *behind)
        .order_by(jobs.changed_at.desc(), jobs.id.desc())
        .limit(limit)
        for branch in branches(sql, where, queues)
    ]
    if not found:
        return []
    query: Select[Any] | CompoundSelect[Any] = found[0]
    if len(found) > 1:
        each = union_all(*(select(part.subquery()) for part in found)).subquery()
        query = select(each).order_by(each.c.changed_at.desc(), each.c.id.desc()).limit(limit)
    return [dict(row) for row in sql.execute(query).mappings()]


def alike(where: Filter, queues: frozenset[str] | None) -> Where | None:
    """The filter as conditions of `tallies`; None: it asks for more than those know."""
    if where.since is not None or where.until is not None or any(c.name not in _ALIKE for c in where.conditions):
        return None
    return [*_of_tallies(where), *of_queues(tables.tallies.c.queue, queues)]


def of_queues(column: ColumnElement[str], queues: frozenset[str] | None) -> Where:
    """Only what belongs to these queues; None: all."""
    return [] if queues is None else [column.in_(sorted(queues))]


def _by_own(sql: Connection, where: Filter, own: Condition, queues: frozenset[str] | None) -> list[Where]:
    jobs, state = tables.jobs.c, tables.tallies.c.state
    states = sql.execute(select(state).where(*_of_tallies(where, "state")).distinct()).scalars().all()
    values = list(dict.fromkeys(map(clean, own.values)))
    if len(values) * len(states) > SEEKS:
        return [_all(where, queues)]
    rest = _others(where, own, queues)
    return [[jobs[own.name] == value, jobs.state == each, *rest] for value in values for each in states]


def _shortest(sql: Connection, where: Filter, queues: frozenset[str] | None) -> tuple[Sequence[str], float]:
    """By which columns to ask, and over how many jobs that walks at most; by none: over all."""
    names = {condition.name for condition in where.conditions}
    ways = [by for by in (("fingerprint",), ("type", "state"), ("queue", "state")) if _LEADS[by[0]] in names]
    if queues is not None and ("queue", "state") not in ways:
        ways.append(("queue", "state"))
    if "state" in names and not ways:
        ways = [("state",)]
    found: tuple[Sequence[str], float] = ((), inf)
    for by in ways:
        column = tables.tallies.c
        known = _of_tallies(where, *(_LEADS[name] for name in by))
        known += of_queues(column.queue, queues) if "queue" in by else []
        amount = int(sql.execute(select(func.coalesce(func.sum(column.amount), 0)).where(*known)).scalar_one())
        found = min(found, (by, amount), key=lambda way: way[1])
    return found


def _by_tallies(sql: Connection, where: Filter, queues: frozenset[str] | None, by: Sequence[str]) -> list[Where]:
    if not by:
        return [_all(where, queues)]
    column = tables.tallies.c
    known = [*_of_tallies(where), *of_queues(column.queue, queues)]
    found = sql.execute(select(*(column[name] for name in by)).where(*known).distinct().limit(BRANCHES + 1)).all()
    if len(found) > BRANCHES:
        # What is so varied is found soon by walking back in time.
        return [_all(where, queues)]
    rest = _all(where, queues)
    has = [tables.HAS_FAILED] if "fingerprint" in by else []
    return [[*(tables.jobs.c[n] == v for n, v in zip(by, values, strict=True)), *has, *rest] for values in found]


def _of_tallies(where: Filter, *names: str) -> Where:
    """What the filter asks of `tallies`; with names only the conditions of these."""
    column = tables.tallies.c
    found: Where = []
    for condition in where.conditions:
        if names and condition.name not in names:
            continue
        values = tuple(map(clean, condition.values))
        if condition.name == "error":
            found += [column.fingerprint != "", _error(lambda name: column[name], values)]
        elif condition.name in _ALIKE:
            found.append(_any(column[condition.name], values))
    return found


def _few(sql: Connection, condition: Condition) -> ColumnElement[bool] | None:
    """The condition as a list of ids, if it names few."""
    if condition.name in _OWN and not _exact(condition):
        column = tables.jobs.c[condition.name]
        meant: Any = select(tables.jobs.c.id).where(column != "", _any(column, tuple(map(clean, condition.values))))
    elif condition.name in (*COLUMNS, "error"):
        return None
    else:
        meant = _ids(condition)
    count = select(func.count()).select_from(meant.limit(FEW + 1).subquery())
    return tables.jobs.c.id.in_(meant) if sql.execute(count).scalar_one() <= FEW else None


def _ids(condition: Condition) -> Any:
    """Jobs that an id, a payload field or mere words name."""
    jobs, fields = tables.jobs.c, tables.fields.c
    values = tuple(map(clean, condition.values))
    starts = [value.rstrip("*") for value in values]
    if condition.name == "id":
        return select(jobs.id).where(or_(*(_begins(jobs.id, start) for start in starts)))
    found = select(fields.job_id).where(_any(fields.value, values))
    if condition.name:
        return found.where(fields.name == condition.name)
    ids = [_begins(jobs.id, start) for start in starts if len(start) >= 4]
    keyed = select(jobs.id).where(jobs.key.is_not(None), _any(jobs.key, values))
    begun: list[Select[Any]] = [select(jobs.id).where(or_(*ids))] if ids else []
    return union(found, keyed, *begun)


def _all(where: Filter, queues: frozenset[str] | None) -> Where:
    return _others(where, None, queues)


def _others(where: Filter, served: Condition | None, queues: frozenset[str] | None) -> Where:
    """Every condition but the one that an index serves, none of them of use for an index; and the times."""
    jobs = tables.jobs.c
    found = [_plain(condition) for condition in where.conditions if condition is not served]
    found += of_queues(jobs.queue.concat(""), queues)
    if where.since is not None:
        found.append(jobs.changed_at >= where.since)
    if where.until is not None:
        found.append(jobs.changed_at < where.until)
    return found


def _plain(condition: Condition) -> ColumnElement[bool]:
    jobs, values = tables.jobs.c, tuple(map(clean, condition.values))
    if condition.name in COLUMNS:
        return _any(jobs[condition.name].concat(""), values)
    if condition.name == "error":
        return and_(jobs.fingerprint.concat("") != "", _error(lambda name: jobs[name].concat(""), values))
    own_id = jobs.id.concat("")
    starts = [value.rstrip("*") for value in values]
    if condition.name == "id":
        return or_(*(_begins(own_id, start) for start in starts))
    fields = tables.fields.c
    # Asked of each job: those that the value names are many.
    inner = select(fields.job_id).where(fields.job_id == jobs.id, _any(fields.value.concat(""), values))
    if condition.name:
        return inner.where(fields.name == condition.name).exists()
    ids = [_begins(own_id, start) for start in starts if len(start) >= 4]
    return or_(inner.exists(), _any(jobs.key.concat(""), values), *ids)


def _error(column: Column, values: Sequence[str]) -> ColumnElement[bool]:
    """By fingerprint, or by the class of the exception."""
    prints = [value for value in values if _FINGERPRINT.fullmatch(value)]
    kinds = [name for value in values if value not in prints for name in (value, f"builtins.{value}")]
    return or_(_any(column("fingerprint"), prints), _any(column("error_kind"), kinds))


def _exact(condition: Condition) -> bool:
    return not any(value.endswith("*") for value in condition.values)


def _any(column: ColumnElement[Any], values: Sequence[str]) -> ColumnElement[bool]:
    exact = [value for value in values if not value.endswith("*")]
    begins = [_begins(column, value[:-1]) for value in values if value.endswith("*")]
    return or_(false(), *([column.in_(exact)] if exact else []), *begins)


def _begins(column: ColumnElement[Any], start: str) -> ColumnElement[bool]:
    # As a stretch of the index: LIKE does not use it in every database and collation.
    return and_(column >= start, column < start + _HIGHEST) if start else column.is_not(None)
