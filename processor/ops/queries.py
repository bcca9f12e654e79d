"""What is asked of the projection. Lists are paged by their last row, never by counting: all pages cost the same."""

from __future__ import annotations

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
    func,
    or_,
    select,
    union_all,
)

from processor.core.audit import BULK
from processor.core.control import QUEUE, TYPE
from processor.core.redrive import Address, parse_address
from processor.ops import tables
from processor.ops.applying import parts
from processor.ops.errors import FilterInvalid, NotThere
from processor.ops.filters import Condition, Filter
from processor.ops.folding import clean
from processor.ops.planning import alike, branches, newest, of_queues, parse_place, place_of
from processor.ops.store import Store
from processor.states import State

PAGE = 50
COUNTED = 10_000
"""A count is exact up to here; beyond it says "more"."""
_BRIEF = (
    *("id", "type", "queue", "key", "state", "life", "attempt", "changed_at", "enqueued_at", "due_at", "worker"),
    *("done", "total", "error_kind", "error_message", "fingerprint"),
)
_LETTER_SET = ("fingerprint", "type", "queue")

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
    """Questions to one store, by somebody who may see all queues or some.

    Args:
        store: the projection.
        queues: whose jobs may be seen; None: all.
    """

    def __init__(self, store: Store, queues: frozenset[str] | None = None) -> None:
        self._store = store
        self._queues = queues

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
        with self._store.engine.connect() as sql:
            rows = newest(sql, where, _BRIEF, queues=self._queues, after=parse_place(after), limit=limit + 1)
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(rows=rows, after=place_of(rows[-1]) if more else "")

    def count(self, where: Filter, most: int = COUNTED) -> int:
        """How many jobs are meant; `most` + 1 if they are more."""
        known = alike(where, self._queues)
        with self._store.engine.connect() as sql:
            if known is not None:
                total = select(func.coalesce(func.sum(tables.tallies.c.amount), 0)).where(*known)
                return min(int(sql.execute(total).scalar_one()), most + 1)
            found = [select(tables.jobs.c.id).where(*branch) for branch in branches(sql, where, self._queues)]
            if not found:
                return 0
            each = union_all(*(select(part.limit(most + 1).subquery()) for part in found)).limit(most + 1)
            return int(sql.execute(select(func.count()).select_from(each.subquery())).scalar_one())

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
        each = tables.tallies.c
        query = select(each.state, func.sum(each.amount).label("count")).where(*of_queues(each.queue, self._queues))
        return {row["state"]: int(row["count"]) for row in self._all(query.group_by(each.state))}

    def job(self, job_id: str) -> JobFacts:
        """One job, whole.

        Raises:
            NotThere: the projection does not know it.
        """
        job_id = clean(job_id)
        # Of another's queue is as if it were not there: whoever tries ids learns nothing.
        own = of_queues(tables.jobs.c.queue.concat(""), self._queues)
        found = self._all(select(tables.jobs).where(tables.jobs.c.id == job_id, *own))
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
        each, jobs, other = tables.tallies.c, tables.jobs.c, tables.jobs.alias("other").c
        seen = [each.fingerprint != "", *of_queues(each.queue, self._queues)]
        groups = (
            select(
                each.fingerprint,
                func.sum(each.amount).label("jobs"),
                func.min(each.error_kind).label("kind"),
                func.min(each.type).label("type"),
                func.count(each.type.distinct()).label("types"),
                func.sum(case((each.state == State.DEAD.value, each.amount), else_=0)).label("dead"),
            )
            .where(*seen)
            .group_by(each.fingerprint)
            .order_by(func.sum(each.amount).desc(), each.fingerprint)
            .limit(limit)
            .subquery("groups")
        )
        like = select(other.id).where(other.fingerprint == groups.c.fingerprint, other.fingerprint != "")
        like = like.where(*of_queues(other.queue.concat(""), self._queues)).limit(1)
        oldest = like.with_only_columns(other.changed_at).order_by(other.changed_at, other.id)
        newest = like.order_by(other.changed_at.desc(), other.id.desc())
        query = select(
            groups,
            oldest.correlate(groups).scalar_subquery().label("first"),
            jobs.changed_at.label("last"),
            jobs.error_message.label("message"),
            jobs.error_place.label("place"),
        ).join_from(groups, tables.jobs, jobs.id == newest.correlate(groups).scalar_subquery())
        rows = self._all(query.order_by(groups.c.jobs.desc(), groups.c.fingerprint))
        return [{**row, **{name: int(row[name]) for name in ("jobs", "types", "dead")}} for row in rows]

    def types(self) -> list[str]:
        """Job types that jobs have."""
        each = tables.tallies.c
        query = select(each.type).where(*of_queues(each.queue, self._queues)).distinct().order_by(each.type)
        return [row["type"] for row in self._all(query)]

    # -- letters, orders, audit ------------------------------------------------------------------------------------

    def letters(
        self, *, state: str = "", fingerprint: str = "", type_: str = "", limit: int = PAGE, after: str = ""
    ) -> Page:
        """Dead letters, newest first."""
        table = tables.letters.c
        query = select(tables.letters).where(*of_queues(table.queue.concat(""), self._queues))
        for column, value in ((table.state, state), (table.fingerprint, fingerprint), (table.type, type_)):
            query = query.where(column == clean(value)) if value else query
        return self._addressed(query, tables.letters, limit, after)

    def letter_set(self, wanted: LetterSet, most: int) -> list[Row]:
        """The open letters of a set, oldest first; those named by address also if they were discarded."""
        table = tables.letters.c
        query = select(tables.letters).where(*of_queues(table.queue.concat(""), self._queues))
        for name in _LETTER_SET:
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
        each = tables.letter_tallies.c
        query = select(func.coalesce(func.sum(each.amount), 0)).where(*of_queues(each.queue, self._queues))
        for name, value in (("state", state), *((name, getattr(wanted, name)) for name in _LETTER_SET)):
            query = query.where(each[name] == clean(value)) if value else query
        with self._store.engine.connect() as sql:
            return int(sql.execute(query).scalar_one())

    def letter_groups(self) -> list[Row]:
        """Open dead letters by fingerprint, most first."""
        each, letters, other = tables.letter_tallies.c, tables.letters.c, tables.letters.alias("other").c
        groups = (
            select(each.fingerprint, func.sum(each.amount).label("letters"), func.min(each.type).label("type"))
            .where(each.state == "open", *of_queues(each.queue, self._queues))
            .group_by(each.fingerprint)
            .order_by(func.sum(each.amount).desc(), each.fingerprint)
            .limit(200)
            .subquery("groups")
        )
        newest = (
            select(other.offset)
            .where(other.fingerprint == groups.c.fingerprint, other.state == "open")
            .where(*of_queues(other.queue.concat(""), self._queues))
            .order_by(other.at.desc(), other.partition.desc(), other.offset.desc())
            .limit(1)
            .correlate(groups)
        )
        place = newest.with_only_columns(other.partition)
        same = (
            letters.partition == place.scalar_subquery(),
            letters.offset == newest.scalar_subquery(),
        )
        query = select(groups, letters.at.label("last"), letters.error).join_from(groups, tables.letters, and_(*same))
        rows = self._all(query.order_by(groups.c.letters.desc(), groups.c.fingerprint))
        return [{**row, "letters": int(row["letters"])} for row in rows]

    def letter(self, address: Address) -> Row:
        """One dead letter.

        Raises:
            NotThere: there is none.
        """
        table = tables.letters.c
        where = (table.partition == address.partition, table.offset == address.offset)
        found = self._all(select(tables.letters).where(*where, *of_queues(table.queue.concat(""), self._queues)))
        if not found:
            raise NotThere(f"there is no dead letter {address}", hint="it may have been deleted by retention")
        return found[0]

    def audit(self, *, limit: int = PAGE, after: str = "", bulk: str = "") -> Page:
        """What operators did, newest first: of some queues, what concerns these, their jobs and the types of those.
        `bulk`: only what was part of this bulk action.
        """
        query = select(tables.audit)
        if bulk:
            query = query.where(*_of_bulk(bulk))
        if self._queues is not None:
            query = query.where(self._concerns(self._queues))
        return self._addressed(query, tables.audit, limit, after)

    def bulk_count(self, bulk: str) -> int:
        """Jobs to which a bulk action was done."""
        each = tables.audit.c
        done = select(func.count(each.job_id.distinct())).where(*_of_bulk(bulk), each.action != BULK)
        with self._store.engine.connect() as sql:
            return int(sql.execute(done).scalar_one())

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
            # The first condition is where the index begins.
            query = query.where(at <= int(time), or_(at < int(time), here))
        rows = self._all(query.order_by(at.desc(), partition.desc(), offset.desc()).limit(limit + 1))
        more, rows = len(rows) > limit, rows[:limit]
        last = rows[-1] if rows else {}
        return Page(rows=rows, after=f"{last['at']}~{last['partition']}@{last['offset']}" if more else "")

    def _concerns(self, queues: frozenset[str]) -> ColumnElement[bool]:
        jobs, audit = tables.jobs.c, tables.audit.c
        own = select(jobs.id).where(jobs.queue.concat("").in_(sorted(queues))).correlate(tables.audit)
        subjects = [*(f"{QUEUE}{name}" for name in sorted(queues)), *(f"{TYPE}{name}" for name in self.types())]
        # Of a job that was forgotten meanwhile nobody knows the queue.
        return or_(
            audit.subject.in_(subjects),
            own.where(jobs.id == audit.job_id).exists(),
            own.where(jobs.id == func.substr(audit.subject, 5), func.substr(audit.subject, 1, 4) == "job:").exists(),
        )

    def _of(self, table: Table, job_id: str, *order: str) -> list[Row]:
        return self._all(select(table).where(table.c.job_id == job_id).order_by(*(table.c[name] for name in order)))

    def _of_audit(self, job_id: str) -> list[Row]:
        table = tables.audit
        about = or_(table.c.job_id == job_id, table.c.subject == f"job:{job_id}")
        return self._all(select(table).where(about).order_by(table.c.at, table.c.partition, table.c.offset))

    def _all(self, query: Select[Any] | CompoundSelect[Any]) -> list[Row]:
        with self._store.engine.connect() as sql:
            return [dict(row) for row in sql.execute(query).mappings()]


def _of_bulk(bulk: str) -> list[ColumnElement[bool]]:
    # The index holds only those of any.
    return [tables.audit.c.bulk == clean(bulk), tables.audit.c.bulk != ""]


def _present(job: Row) -> Row:
    return {
        "job_id": job["id"],
        "offset": job["status_offset"],
        "life": job["status_life"],
        "state": job["status_state"],
        "at": job["status_began"],
        **{name: job[name] for name in ("attempt", "worker", "note", "error_kind", "error_message", "fingerprint")},
    }
