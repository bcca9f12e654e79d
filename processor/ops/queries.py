"""What is asked of the projection. Lists are paged by their last row, never by counting: all pages cost the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    and_,
    case,
    false,
    func,
    literal,
    or_,
    select,
    union_all,
)

from processor.core.redrive import Address, parse_address
from processor.ops import tables
from processor.ops.applying import parts
from processor.ops.errors import FilterInvalid, NotThere
from processor.ops.filters import COLUMNS, Condition, Filter
from processor.ops.folding import clean
from processor.ops.store import Store
from processor.states import State

PAGE = 50
COUNTED = 10_000
"""A count is exact up to here; beyond it says "more"."""
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
_HIGHEST = "\U0010ffff"
_BRIEF = (
    *("id", "type", "queue", "key", "state", "life", "attempt", "changed_at", "enqueued_at", "due_at", "worker"),
    *("done", "total", "error_kind", "error_message", "fingerprint"),
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Part of a list."""

    rows: Sequence[Row]
    after: str
    """Where the next page begins; empty: this is the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterSet:
    """Open dead letters: those that every given condition allows. Empty: any."""

    addresses: Sequence[str] = ()
    """`partition@offset`."""
    fingerprint: str = ""
    type: str = ""
    queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How far the projection is behind the log."""

    as_of: int
    """Everything up to this moment is in it, milliseconds since the epoch; 0: it has never caught up."""
    behind: int
    """Records not yet read; -1: not known yet."""
    unreadable: int
    """Records that could not be decoded since it started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """Everything that is known of one job."""

    job: Row
    payload: str | None
    payload_size: int
    result: str | None
    moves: Sequence[Row]
    """Its statuses, oldest first, the present one last."""
    failures: Sequence[Row]
    """Oldest first."""
    fields: Mapping[str, str]
    letters: Sequence[Row]
    audit: Sequence[Row]
    orders: Sequence[Row]
    """Those that hold for it, its queue or its type."""
    children: Sequence[Row]


class Queries:
    """Questions to one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def freshness(self) -> Freshness:
        """How far it is behind."""
        facts = self._store.facts()
        return Freshness(
            as_of=int(facts.get("as_of", 0)),
            behind=int(facts.get("behind", -1)),
            unreadable=int(facts.get("unreadable", 0)),
        )

    # -- jobs ------------------------------------------------------------------------------------------------------

    def jobs(self, where: Filter, *, limit: int = PAGE, after: str = "") -> Page:
        """Jobs that are meant, newest change first.

        Raises:
            FilterInvalid: `after` is no place in the list.
        """
        table = tables.jobs.c
        query = select(*(table[name] for name in _BRIEF)).where(*_conditions(where))
        if after:
            at, _, job_id = after.partition("~")
            if not at.lstrip("-").isdecimal() or len(at) > 18:
                raise FilterInvalid(f"{after[:60]!r} is no place in the list", hint="leave after= out")
            here = (table.changed_at == int(at)) & (table.id < clean(job_id))
            query = query.where(table.changed_at <= int(at), or_(table.changed_at < int(at), here))
        rows = self._all(query.order_by(table.changed_at.desc(), table.id.desc()).limit(limit + 1))
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(rows=rows, after=f"{rows[-1]['changed_at']}~{rows[-1]['id']}" if more else "")

    def count(self, where: Filter, most: int = COUNTED) -> int:
        """How many jobs are meant; `most` + 1 if they are more."""
        inner = select(tables.jobs.c.id).where(*_conditions(where)).limit(most + 1).subquery()
        with self._store.engine.connect() as sql:
            return int(sql.execute(select(func.count()).select_from(inner)).scalar_one())

    def fields_of(self, ids: Sequence[str]) -> dict[str, str]:
        """The searchable fields of some jobs, each job's as one text."""
        table = tables.fields
        found: dict[str, list[str]] = {}
        for part in parts(ids):
            for row in self._all(select(table).where(table.c.job_id.in_(part)).order_by(table.c.name, table.c.value)):
                found.setdefault(row["job_id"], []).append(f"{row['name']} {row['value']}")
        return {job_id: ", ".join(told) for job_id, told in found.items()}

    def states(self) -> dict[str, int]:
        """How many jobs are in each state."""
        state = tables.jobs.c.state
        return {
            row["state"]: row["count"] for row in self._all(select(state, func.count().label("count")).group_by(state))
        }

    def rough_states(self, most: int = COUNTED) -> dict[str, int]:
        """The same for a page: exact up to `most`, then `most` + 1. Counting a million rows takes a second."""
        jobs = tables.jobs.c
        parts_ = [
            select(literal(state.value).label("state"), func.count().label("count")).select_from(
                select(jobs.id).where(jobs.state == state.value).limit(most + 1).subquery()
            )
            for state in State
        ]
        return {row["state"]: row["count"] for row in self._all(union_all(*parts_)) if row["count"]}

    def job(self, job_id: str) -> JobFacts:
        """One job, whole.

        Raises:
            NotThere: the projection does not know it.
        """
        job_id = clean(job_id)
        found = self._all(select(tables.jobs).where(tables.jobs.c.id == job_id))
        if not found:
            raise NotThere(
                f"job {job_id} is not known here",
                hint="is the id right? A job appears some seconds after its enqueue, and goes when the log forgets it",
            )
        job = found[0]
        body = self._all(select(tables.bodies).where(tables.bodies.c.job_id == job_id))
        targets = [f"job:{job_id}", f"queue:{job['queue']}", f"type:{job['type']}"]
        fields = self._all(select(tables.fields).where(tables.fields.c.job_id == job_id))
        return JobFacts(
            job=job,
            payload=body[0]["payload"] if body else None,
            payload_size=body[0]["payload_size"] if body else 0,
            result=body[0]["result"] if body else None,
            moves=[*self._of(tables.moves, job_id, "offset"), *([_present(job)] if job["status_life"] else [])],
            failures=self._of(tables.failures, job_id, "life", "at", "attempt"),
            fields={row["name"]: row["value"] for row in fields},
            letters=self._of(tables.letters, job_id, "at"),
            audit=self._of_audit(job_id),
            orders=self._all(select(tables.orders).where(tables.orders.c.target.in_(targets))),
            children=self.jobs(Filter(conditions=(Condition(name="parent", values=(job_id,)),))).rows,
        )

    def failure_groups(self, limit: int = 200) -> list[Row]:
        """Jobs that have failed as they stand now, by fingerprint of their error, most jobs first."""
        jobs = tables.jobs.c
        query = (
            select(
                jobs.fingerprint,
                func.count().label("jobs"),
                func.min(jobs.changed_at).label("first"),
                func.max(jobs.changed_at).label("last"),
                func.min(jobs.error_kind).label("kind"),
                func.max(jobs.error_message).label("message"),
                func.max(jobs.error_place).label("place"),
                func.min(jobs.type).label("type"),
                func.count(jobs.type.distinct()).label("types"),
                func.sum(case((jobs.state == State.DEAD.value, 1), else_=0)).label("dead"),
            )
            .where(tables.HAS_FAILED)
            .group_by(jobs.fingerprint)
            .order_by(func.count().desc(), jobs.fingerprint)
            .limit(limit)
        )
        return self._all(query)

    def types(self) -> list[str]:
        """Job types that jobs have."""
        return [row["type"] for row in self._all(select(tables.jobs.c.type).distinct().order_by(tables.jobs.c.type))]

    # -- letters, orders, audit ------------------------------------------------------------------------------------

    def letters(
        self, *, state: str = "", fingerprint: str = "", type_: str = "", limit: int = PAGE, after: str = ""
    ) -> Page:
        """Dead letters, newest first."""
        table = tables.letters.c
        query = select(tables.letters)
        for column, value in ((table.state, state), (table.fingerprint, fingerprint), (table.type, type_)):
            query = query.where(column == clean(value)) if value else query
        return self._addressed(query, tables.letters, limit, after)

    def letter_set(self, wanted: LetterSet, most: int) -> list[Row]:
        """The open letters of a set, oldest first; those named by address also if they were discarded."""
        table = tables.letters.c
        query = select(tables.letters)
        for name in ("fingerprint", "type", "queue"):
            value = clean(getattr(wanted, name))
            query = query.where(table[name] == value) if value else query
        if not wanted.addresses:
            query = query.where(table.state == "open").order_by(table.at, table.partition, table.offset).limit(most)
            return self._all(query)
        named = [address for name in wanted.addresses if (address := parse_address(name)) is not None]
        rows: list[Row] = []
        for part in parts(named, 200):
            places = ((table.partition == at.partition) & (table.offset == at.offset) for at in part)
            rows += self._all(query.where(table.state != "redriven", or_(*places)))
        return sorted(rows, key=lambda row: (row["at"], row["partition"], row["offset"]))[:most]

    def letter_count(self, wanted: LetterSet, state: str) -> int:
        """How many letters of this state are meant."""
        table = tables.letters.c
        query = select(func.count()).select_from(tables.letters).where(table.state == clean(state))
        for name in ("fingerprint", "type", "queue"):
            value = clean(getattr(wanted, name))
            query = query.where(table[name] == value) if value else query
        with self._store.engine.connect() as sql:
            return int(sql.execute(query).scalar_one())

    def letter_groups(self) -> list[Row]:
        """Open dead letters by fingerprint, most first."""
        letters = tables.letters.c
        query = (
            select(
                letters.fingerprint,
                func.count().label("letters"),
                func.max(letters.at).label("last"),
                func.max(letters.error).label("error"),
                func.min(letters.type).label("type"),
            )
            .where(letters.state == "open")
            .group_by(letters.fingerprint)
            .order_by(func.count().desc())
            .limit(200)
        )
        return self._all(query)

    def letter(self, address: Address) -> Row:
        """One dead letter.

        Raises:
            NotThere: there is none.
        """
        table = tables.letters.c
        where = (table.partition == address.partition, table.offset == address.offset)
        found = self._all(select(tables.letters).where(*where))
        if not found:
            raise NotThere(f"there is no dead letter {address}", hint="it may have been deleted by retention")
        return found[0]

    def audit(self, *, limit: int = PAGE, after: str = "") -> Page:
        """What operators did, newest first."""
        return self._addressed(select(tables.audit), tables.audit, limit, after)

    def pauses(self) -> dict[str, Row]:
        """Orders that let a queue or job type rest, by target."""
        return {row["target"]: row for row in self._all(select(tables.orders).where(tables.orders.c.action == "pause"))}

    # -- inside ----------------------------------------------------------------------------------------------------

    def _addressed(self, query: Select[Any], table: Table, limit: int, after: str) -> Page:
        """A list of what lies at addresses, newest first."""
        at, partition, offset = table.c.at, table.c.partition, table.c.offset
        if after:
            time, _, place = after.partition("~")
            address = parse_address(place)
            if address is None or not time.lstrip("-").isdecimal() or len(time) > 18:
                raise FilterInvalid(f"{after[:60]!r} is no place in the list", hint="leave after= out")
            same = and_(partition == address.partition, offset < address.offset)
            here = and_(at == int(time), or_(partition < address.partition, same))
            query = query.where(or_(at < int(time), here))
        rows = self._all(query.order_by(at.desc(), partition.desc(), offset.desc()).limit(limit + 1))
        more, rows = len(rows) > limit, rows[:limit]
        last = rows[-1] if rows else {}
        return Page(rows=rows, after=f"{last['at']}~{last['partition']}@{last['offset']}" if more else "")

    def _of(self, table: Table, job_id: str, *order: str) -> list[Row]:
        return self._all(select(table).where(table.c.job_id == job_id).order_by(*(table.c[name] for name in order)))

    def _of_audit(self, job_id: str) -> list[Row]:
        table = tables.audit
        about = or_(table.c.job_id == job_id, table.c.subject == f"job:{job_id}")
        return self._all(select(table).where(about).order_by(table.c.at, table.c.partition, table.c.offset))

    def _all(self, query: Select[Any] | CompoundSelect[Any]) -> list[Row]:
        with self._store.engine.connect() as sql:
            return [dict(row) for row in sql.execute(query).mappings()]


def _present(job: Row) -> Row:
    return {
        "job_id": job["id"],
        "offset": job["status_offset"],
        "life": job["status_life"],
        "state": job["status_state"],
        "at": job["status_began"],
        **{name: job[name] for name in ("attempt", "worker", "note", "error_kind", "error_message", "fingerprint")},
    }


def _conditions(where: Filter) -> list[ColumnElement[bool]]:
    jobs = tables.jobs.c
    found = [_condition(condition) for condition in where.conditions]
    if where.since is not None:
        found.append(jobs.changed_at >= where.since)
    if where.until is not None:
        found.append(jobs.changed_at < where.until)
    return found


def _condition(condition: Condition) -> ColumnElement[bool]:
    jobs, values = tables.jobs.c, tuple(map(clean, condition.values))
    if condition.name in COLUMNS:
        return _any(jobs[condition.name], values)
    if condition.name == "id":
        return or_(*(_begins(jobs.id, value.rstrip("*")) for value in values))
    if condition.name == "error":
        return and_(tables.HAS_FAILED, _error(values))
    fields = tables.fields.c
    inner = select(fields.job_id).where(_any(fields.value, values))
    if condition.name:
        return jobs.id.in_(inner.where(fields.name == condition.name))
    whole = [value for value in values if value.rstrip("*")]
    ids = [_begins(jobs.id, value.rstrip("*")) for value in whole if len(value) >= 4]
    return or_(jobs.id.in_(inner), _any(jobs.key, values), *ids)


def _error(values: Sequence[str]) -> ColumnElement[bool]:
    """By fingerprint, or by the class of the exception. Each alone is a stretch of the index."""
    jobs = tables.jobs.c
    prints = [value for value in values if _FINGERPRINT.fullmatch(value)]
    kinds = [name for value in values if value not in prints for name in (value, f"builtins.{value}")]
    if not kinds:
        return _any(jobs.fingerprint, prints)
    return or_(_any(jobs.fingerprint, prints), _any(jobs.error_kind, kinds)) if prints else _any(jobs.error_kind, kinds)


def _any(column: ColumnElement[Any], values: Sequence[str]) -> ColumnElement[bool]:
    exact = [value for value in values if not value.endswith("*")]
    begins = [_begins(column, value[:-1]) for value in values if value.endswith("*")]
    return or_(false(), *([column.in_(exact)] if exact else []), *begins)


def _begins(column: ColumnElement[Any], start: str) -> ColumnElement[bool]:
    # As a stretch of the index: LIKE does not use it in every database and collation.
    return and_(column >= start, column < start + _HIGHEST) if start else column.is_not(None)
