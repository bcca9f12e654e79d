"""A batch of records, written into the projection with the offsets behind it: all in one SQL transaction, or nothing.

One batch, numbered:

1. Move the offsets, each only from where this reader found it. That is the fence: of two projectors of one database the
   second finds another offset, and its transaction ends with nothing written. One batch at a time, whatever partitions
   it is of: two that know the same job would each write it without what the other saw.
2. Load the rows of the jobs that the batch is about, fold the records in, write them back; move the counts.
3. Write letters, orders and audit records; say anew what became of the letters that they are about.

A process that is killed anywhere leaves either the whole batch with its offsets, or neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Dialect, Table, bindparam, delete, insert, or_, select, update

from processor.broker.base import TopicPartition
from processor.core.control import JOB, QUEUE
from processor.core.redrive import Address, Settled
from processor.job import Job, Place
from processor.ops import tables
from processor.ops.folding import (
    JOB_COLUMNS,
    PAYLOAD,
    AuditSeen,
    JobRow,
    JobSeen,
    LetterSeen,
    OrderSeen,
    Search,
    Seen,
    StatusSeen,
    clean,
    failure_columns,
    fold_job,
    fold_letter,
    fold_status,
    fuller,
    letter_columns,
    move_columns,
    says_again,
    searchable,
)
from processor.ops.tallies import Tally
from processor.wire.records import AuditRecord, ControlRecord

_PART = 500
"""Values of one IN list: every database takes so many."""

T = TypeVar("T")
Steps = Mapping[TopicPartition, tuple[int, int]]
"""From where to where a batch moves the offset of each partition."""


class Overtaken(Exception):
    """Another projector of the same database has moved an offset meanwhile: nothing of the batch was written."""


class Batch:
    """One batch on its way into the database."""

    def __init__(self, connection: Connection, search: Search) -> None:
        self._sql = connection
        self._search = search
        self._rows: dict[str, JobRow] = {}
        self._known: set[str] = set()
        self._payloads: dict[str, Job] = {}
        self._results: dict[str, str | None] = {}
        self._moves: list[dict[str, Any]] = []
        self._failures: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._job_tally = Tally.of_jobs()
        self._ended_tally = Tally.of_ended()
        self._letter_tally = Tally.of_letters()
        self._touched: set[str] = set()
        """Queues of which something has changed; empty: perhaps of all."""

    def write(self, batch: Sequence[Seen], steps: Steps) -> None:
        """Steps 1 to 3 of the module.

        Raises:
            Overtaken: somebody else projects into this database.
        """
        self._move(steps)
        self._load(batch)
        for seen in batch:
            self._fold(seen)
        self._write_jobs()
        self._write_bodies()
        self._insert(tables.moves, self._moves)
        self._write_failures()
        self._write_orders([seen for seen in batch if isinstance(seen, OrderSeen)])
        self._write_letters(
            [seen for seen in batch if isinstance(seen, LetterSeen)],
            [seen for seen in batch if isinstance(seen, AuditSeen)],
        )
        self._write_changes(batch)

    # -- 1: offsets ------------------------------------------------------------------------------------------------

    def _move(self, steps: Steps) -> None:
        if steps:
            alone(self._sql)
        for place, (before, after) in sorted(steps.items()):
            known = tables.offsets.c
            moved = self._sql.execute(
                update(tables.offsets)
                .where(known.topic == place.topic, known.partition == place.partition, known.next == before)
                .values(next=after)
            )
            if moved.rowcount != 1:
                raise Overtaken(f"{place.topic}-{place.partition} is no longer at {before}")

    # -- 2: jobs ---------------------------------------------------------------------------------------------------

    def _load(self, batch: Iterable[Seen]) -> None:
        wanted = {id_ for seen in batch if (id_ := _job_id(seen))}
        columns = [tables.jobs.c[name] for name in JOB_COLUMNS]
        for part in parts(sorted(wanted)):
            for row in self._sql.execute(select(*columns).where(tables.jobs.c.id.in_(part))):
                self._rows[row[0]] = known = JobRow.loaded(row)
                self._count(known, -1)
                self._touched.add(known.record.queue)
        self._known = set(self._rows)
        for job_id in wanted - self._known:
            self._rows[job_id] = JobRow(job_id)

    def _fold(self, seen: Seen) -> None:
        if isinstance(seen, JobSeen):
            self._job(seen.job, seen.place, in_chain=seen.in_chain, copy_for=seen.copy_for)
        elif isinstance(seen, StatusSeen):
            row = self._rows[clean(seen.status.id)]
            before = move_columns(row) if row.status.status_life and not says_again(row, seen.status) else None
            if fold_status(row, seen.status, seen.offset):
                if before is not None:
                    self._moves.append(before)
                result = seen.status.result
                self._results[row.id] = None if result is None else clean(result.decode("utf-8", "replace"))
        elif isinstance(seen, LetterSeen) and seen.job is not None:
            place = Place("", seen.address.partition, seen.address.offset)
            self._job(seen.job, place, in_letter=True)
            fold_letter(self._rows[clean(seen.job.id)], seen)
            self._failed(seen.job.id, seen.job.life, seen.letter.failures or ())

    def _job(
        self, job: Job, place: Place, *, in_chain: bool = False, in_letter: bool = False, copy_for: int = -1
    ) -> None:
        row = self._rows[clean(job.id)]
        if fold_job(row, job, place, in_chain=in_chain, in_letter=in_letter, copy_for=copy_for):
            self._payloads[row.id] = job
        if job.carried is not None:
            self._failed(job.id, job.life, job.carried.failures)

    def _failed(self, job_id: str, life: int, failures: Iterable[Any]) -> None:
        for failure in failures:
            columns = failure_columns(job_id, life, failure)
            key = _failure_key(columns)
            known = self._failures.get(key)
            self._failures[key] = columns if known is None else fuller(known, columns)

    def _write_jobs(self) -> None:
        for row in self._rows.values():
            row.settle()
            self._count(row, +1)
            self._touched.add(row.record.queue)
        rows = {job_id: row.columns() for job_id, row in self._rows.items()}
        self._insert(tables.jobs, [columns for job_id, columns in rows.items() if job_id not in self._known])
        changed = [{**columns, "this": job_id} for job_id, columns in rows.items() if job_id in self._known]
        if changed:
            self._sql.execute(update(tables.jobs).where(tables.jobs.c.id == bindparam("this")), changed)
        self._job_tally.write(self._sql)
        self._ended_tally.write(self._sql)

    def _count(self, row: JobRow, change: int) -> None:
        alike = row.alike()
        self._job_tally.note(alike, change)
        self._ended_tally.note_end(alike, change)

    def _write_bodies(self) -> None:
        wanted = sorted(self._payloads.keys() | self._results.keys())
        known: dict[str, dict[str, Any]] = {}
        table = tables.bodies
        for part in parts([job_id for job_id in wanted if job_id in self._known]):
            for row in self._sql.execute(select(table).where(table.c.job_id.in_(part))).mappings():
                known[row["job_id"]] = dict(row)
            self._sql.execute(delete(table).where(table.c.job_id.in_(part)))
        found = []
        for job_id in wanted:
            body = known.get(job_id, {"job_id": job_id, "payload": None, "payload_size": 0, "result": None})
            if job_id in self._payloads:
                payload = self._payloads[job_id].payload
                text = None if len(payload) > PAYLOAD else clean(payload.decode("utf-8", "replace"))
                body |= {"payload": text, "payload_size": len(payload)}
            if job_id in self._results:
                body["result"] = self._results[job_id]
            if body["payload"] is not None or body["payload_size"] or body["result"] is not None:
                found.append(body)
        self._insert(table, found)
        self._write_fields()

    def _write_fields(self) -> None:
        old = [job_id for job_id, job in self._payloads.items() if job_id in self._known and job.type in self._search]
        for part in parts(old):
            self._sql.execute(delete(tables.fields).where(tables.fields.c.job_id.in_(part)))
        found = [
            {"job_id": job_id, "name": name, "value": value}
            for job_id, job in self._payloads.items()
            for name, value in searchable(job, self._search)
        ]
        self._insert(tables.fields, found)

    def _write_failures(self) -> None:
        table = tables.failures
        ids = sorted({columns["job_id"] for columns in self._failures.values()})
        old: list[dict[str, Any]] = []
        for part in parts(ids):
            for row in self._sql.execute(select(table).where(table.c.job_id.in_(part))).mappings():
                known = dict(row)
                key = _failure_key(known)
                if key in self._failures:
                    self._failures[key] = fuller(known, self._failures[key])
                    old.append({f"this_{name}": known[name] for name in ("job_id", "life", "attempt", "at")})
        if old:
            where = [table.c[name] == bindparam(f"this_{name}") for name in ("job_id", "life", "attempt", "at")]
            self._sql.execute(delete(table).where(*where), old)
        self._insert(table, list(self._failures.values()))

    # -- 3: letters, orders, audit ---------------------------------------------------------------------------------

    def _write_orders(self, seen: Sequence[OrderSeen]) -> None:
        latest = {clean(each.target): each.order for each in seen}
        for part in parts(sorted(latest)):
            self._sql.execute(delete(tables.orders).where(tables.orders.c.target.in_(part)))
        rows = [_order_columns(target, order) for target, order in latest.items() if order is not None]
        self._insert(tables.orders, rows)

    def _write_letters(self, letters: Sequence[LetterSeen], audits: Sequence[AuditSeen]) -> None:
        fresh = [letter_columns(each) for each in letters]
        self._insert(tables.letters, fresh)
        for row in fresh:
            self._letter_tally.note(row, +1)
            self._touched.add(row["queue"])
        self._insert(tables.audit, [_audit_columns(each) for each in audits])
        ids = {each.record.job_id for each in audits} | {each.job.id for each in letters if each.job is not None}
        subjects = {each.record.subject for each in audits} | {str(each.address) for each in letters}
        if ids or subjects:
            self._judge(sorted(map(clean, ids - {""})), sorted(map(clean, subjects)))
        self._letter_tally.write(self._sql)

    def _judge(self, ids: Sequence[str], subjects: Sequence[str]) -> None:
        """What became of the letters of these jobs and addresses, by the same rule as everywhere else."""
        settled = Settled()
        for row in self._audit_of(ids, subjects):
            settled.note(AuditRecord(**{name: row[name] for name in AuditRecord._fields}))
        rows = self._letters_of(ids, subjects)
        for row in rows:
            if row["life"]:
                settled.saw(row["job_id"], row["life"])
        for row in rows:
            address = Address(row["partition"], row["offset"])
            by = settled.by(address, row["job_id"], row["life"])
            now = {
                "state": settled.state(address, row["job_id"], row["life"]).value,
                "settled_by": by.by if by else "",
                "settled_at": by.at if by else None,
                "settled_reason": by.reason if by else "",
            }
            if all(row[name] == value for name, value in now.items()):
                continue
            self._letter_tally.note(row, -1)
            self._letter_tally.note({**row, **now}, +1)
            self._touched.add(row["queue"])
            self._sql.execute(
                update(tables.letters)
                .where(tables.letters.c.partition == address.partition, tables.letters.c.offset == address.offset)
                .values(**now)
            )

    def _write_changes(self, batch: Iterable[Seen]) -> None:
        subjects = {seen.target for seen in batch if isinstance(seen, OrderSeen)}
        for seen in batch:
            if isinstance(seen, AuditSeen):
                subjects.add(f"{JOB}{seen.record.job_id}" if seen.record.job_id else seen.record.subject)
        self._touched |= {clean(name.removeprefix(QUEUE)) for name in subjects if name.startswith(QUEUE)}
        jobs = {clean(name.removeprefix(JOB)) for name in subjects if name.startswith(JOB)}
        found: dict[str, str] = {}
        for part in parts(sorted(jobs)):
            query = select(tables.jobs.c.id, tables.jobs.c.queue).where(tables.jobs.c.id.in_(part))
            found |= {row.id: row.queue for row in self._sql.execute(query)}
        self._touched |= {found.get(job_id, "") for job_id in jobs}
        if any(not name.startswith((QUEUE, JOB)) for name in subjects):
            self._touched.add("")
        tally = Tally.of_changes()
        for queue in self._touched:
            tally.note({"queue": queue}, +1)
        tally.write(self._sql)

    def _audit_of(self, ids: Sequence[str], subjects: Sequence[str]) -> list[Mapping[str, Any]]:
        table = tables.audit
        found: dict[tuple[int, int], Mapping[str, Any]] = {}
        for column, values in ((table.c.job_id, ids), (table.c.subject, subjects)):
            for part in parts(values):
                for row in self._sql.execute(select(table).where(column.in_(part))).mappings():
                    found[row["partition"], row["offset"]] = dict(row)
        return [found[at] for at in sorted(found)]

    def _letters_of(self, ids: Sequence[str], subjects: Sequence[str]) -> list[Mapping[str, Any]]:
        table = tables.letters
        found: dict[tuple[int, int], Mapping[str, Any]] = {}
        places = [tuple(map(int, subject.split("@"))) for subject in subjects if _is_address(subject)]
        wheres: list[ColumnElement[bool]] = [table.c.job_id.in_(part) for part in parts(ids)]
        wheres += [
            or_(*((table.c.partition == partition) & (table.c.offset == offset) for partition, offset in part))
            for part in parts(places, 100)
        ]
        for where in wheres:
            for row in self._sql.execute(select(table).where(where)).mappings():
                found[row["partition"], row["offset"]] = dict(row)
        return list(found.values())

    def _insert(self, table: Table, rows: list[dict[str, Any]]) -> None:
        if rows:
            text, names = _insertion(table, self._sql.dialect)
            # Past SQLAlchemy's own handling of each value, which takes as long as the database: these are texts and
            # numbers as both drivers take them.
            values = [tuple(row[name] for name in names) for row in rows] if names else rows
            self._sql.exec_driver_sql(text, values)


@lru_cache(maxsize=100)
def _insertion(table: Table, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
    """The statement that inserts a row, and the order of its values; no order: they go by name."""
    compiled = insert(table).compile(dialect=dialect, column_keys=table.c.keys())
    return str(compiled), tuple(compiled.positiontup or ())


def alone(sql: Connection) -> None:
    """Wait until nobody else changes jobs and counts, and hold the others off. SQLite has one writer anyway."""
    sql.execute(select(tables.facts.c.value).where(tables.facts.c.name == "version").with_for_update())


def parts(values: Sequence[T], size: int = _PART) -> Iterator[Sequence[T]]:
    """Values in parts that one statement takes."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _job_id(seen: Seen) -> str:
    if isinstance(seen, JobSeen):
        return str(clean(seen.job.id))
    if isinstance(seen, StatusSeen):
        return str(clean(seen.status.id))
    return str(clean(seen.job.id)) if isinstance(seen, LetterSeen) and seen.job is not None else ""


def _failure_key(columns: Mapping[str, Any]) -> tuple[Any, ...]:
    return columns["job_id"], columns["life"], columns["attempt"], columns["at"]


def _order_columns(target: str, order: ControlRecord) -> dict[str, Any]:
    return {
        "target": target,
        "action": clean(order.action),
        "at": order.at,
        "by": clean(order.by),
        "reason": clean(order.reason),
        "life": order.life,
    }


def _audit_columns(seen: AuditSeen) -> dict[str, Any]:
    fields = {name: clean(value) for name, value in seen.record._asdict().items()}
    return {"partition": seen.address.partition, "offset": seen.address.offset, **fields}


def _is_address(subject: str) -> bool:
    left, _, right = subject.partition("@")
    return left.isdecimal() and right.isdecimal() and len(left) < 10 and len(right) < 19
