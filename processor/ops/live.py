"""What pages that stay open ask again and again: small questions, each answered by an index or a table of few rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from processor.dead_reasons import DeadReason
from processor.ops import tables
from processor.ops.applying import parts
from processor.ops.folding import clean
from processor.ops.planning import of_queues
from processor.ops.queries import Row
from processor.ops.store import Store
from processor.ops.tallies import GOOD, MINUTE
from processor.states import State

_COLUMNS = (
    *("id", "type", "queue", "state", "life", "attempt", "done", "total", "note", "worker", "changed_at", "due_at"),
    *("status_offset", "error_kind", "error_message"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Jobs that ended, minute by minute, oldest first. The last minute is not over."""

    at: Sequence[int]
    """Beginnings of the minutes, seconds since the epoch."""
    succeeded: Sequence[int]
    failed: Sequence[int]
    """Dead, killed or expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at the projection has seen."""

    place: str
    """Another one with each record that was read; empty before the first look."""
    changes: Mapping[str, int]
    """How often something of each queue has changed; under the empty name, what concerns all."""
    jobs: Mapping[str, Row]
    """Those that were asked for and are known."""

    def place_for(self, queues: frozenset[str] | None) -> str:
        """Another one whenever something changes that somebody sees who may see these queues; None: all."""
        if queues is None or not self.place:
            return self.place
        return f"{len(queues)}q{sum(self.changes.get(queue, 0) for queue in ('', *queues))}"


class Live:
    """Questions to one store, by somebody who may see all queues or some.

    Args:
        store: the projection.
        queues: whose jobs may be seen; None: all.
    """

    def __init__(self, store: Store, queues: frozenset[str] | None = None) -> None:
        self._store = store
        self._queues = queues

    def look(self, ids: Sequence[str]) -> Look:
        """How far the projection is, what has changed of each queue, and some jobs as they stand."""
        jobs, next_ = tables.jobs.c, tables.offsets.c.next
        rows: list[Row] = []
        with self._store.engine.connect() as sql:
            place = sql.execute(select(func.coalesce(func.sum(next_), 0))).scalar_one()
            changes = {row.queue: int(row.amount) for row in sql.execute(select(tables.changes))}
            for part in parts([clean(job_id) for job_id in ids]):
                found = sql.execute(select(*(jobs[name] for name in _COLUMNS)).where(jobs.id.in_(part)))
                rows += [dict(row) for row in found.mappings()]
        return Look(place=str(place), changes=changes, jobs={row["id"]: row for row in rows})

    def rates(self, now_ms: int, minutes: int = 60) -> Rates:
        """What ended in the last minutes. A job that is sent back is no longer counted where it failed.

        Args:
            now_ms: milliseconds since the epoch.
            minutes: how many.
        """
        ended, last = tables.ended.c, now_ms // MINUTE
        wanted = range(last - minutes + 1, last + 1)
        query = (
            select(ended.minute, ended.state, func.sum(ended.amount))
            .where(ended.minute >= wanted[0], ended.minute <= last, *of_queues(ended.queue, self._queues))
            .group_by(ended.minute, ended.state)
        )
        good, bad = Counter[int](), Counter[int]()
        with self._store.engine.connect() as sql:
            for minute, state, amount in sql.execute(query):
                (good if state in GOOD else bad)[minute] += int(amount)
        return Rates(
            at=[minute * 60 for minute in wanted],
            succeeded=[good[minute] for minute in wanted],
            failed=[bad[minute] for minute in wanted],
        )

    def oldest(self, queues: Sequence[str]) -> Mapping[str, int]:
        """Since when the job that has waited longest in each queue waits, milliseconds since the epoch."""
        jobs, found = tables.jobs.c, {}
        with self._store.engine.connect() as sql:
            for queue in queues:
                where = (jobs.queue == clean(queue), jobs.state == State.QUEUED.value)
                at = sql.execute(select(func.min(jobs.changed_at)).where(*where)).scalar_one()
                if at is not None:
                    found[queue] = int(at)
        return found

    def quarantined(self, limit: int) -> list[Row]:
        """Open dead letters of jobs that ended their workers' processes, newest first."""
        letters = tables.letters.c
        where = [letters.state == "open", letters.reason == DeadReason.CRASH_LOOP.value]
        where += of_queues(letters.queue.concat(""), self._queues)
        with self._store.engine.connect() as sql:
            query = select(tables.letters).where(*where).order_by(letters.at.desc()).limit(limit)
            return [dict(row) for row in sql.execute(query).mappings()]
