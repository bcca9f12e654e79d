"""What pages that stay open ask again and again: small questions, each answered by an index or a table of few rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from processor.ops import tables
from processor.ops.applying import parts
from processor.ops.folding import clean
from processor.ops.queries import Row
from processor.ops.store import Store

_COLUMNS = (
    *("id", "type", "queue", "state", "life", "attempt", "done", "total", "note", "worker", "changed_at", "due_at"),
    *("status_offset", "error_kind", "error_message"),
)


class Live:
    """Questions to one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def look(self, ids: Sequence[str]) -> tuple[str, list[Row]]:
        """How far the projection is, as a text that is another one with each record; and some jobs as they stand."""
        jobs, next_ = tables.jobs.c, tables.offsets.c.next
        rows: list[Row] = []
        with self._store.engine.connect() as sql:
            place = sql.execute(select(func.coalesce(func.sum(next_), 0))).scalar_one()
            for part in parts([clean(job_id) for job_id in ids]):
                found = sql.execute(select(*(jobs[name] for name in _COLUMNS)).where(jobs.id.in_(part)))
                rows += [dict(row) for row in found.mappings()]
        return str(place), rows
