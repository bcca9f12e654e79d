"""Counts that are kept, not counted: each moves in the transaction that changes what it counts.

A count is a row by what its jobs have in common, and goes when it is 0, so a projection that was built anew has the
same rows as one that has grown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite

from processor.ops import tables
from processor.states import State

JOBS = ("fingerprint", "error_kind", "queue", "type", "state")
"""What jobs of one count have in common; error and fingerprint are empty for those that have not failed."""
ENDED = ("minute", "queue", "state")
GOOD = (State.SUCCEEDED.value,)
BAD = (State.DEAD.value, State.KILLED.value, State.EXPIRED.value)
"""Ends of a job, as `ENDED` counts them. Whoever cancels or discards one has not seen it fail."""
MINUTE = 60_000
LETTERS = ("fingerprint", "queue", "type", "state")


class Tally:
    """Changes of the counts of one table, gathered for one transaction."""

    def __init__(self, table: Table, names: tuple[str, ...]) -> None:
        self._table = table
        self._names = names
        self._changes: Counter[tuple[Any, ...]] = Counter()

    @classmethod
    def of_jobs(cls) -> Tally:
        """Of `tables.jobs`."""
        return cls(tables.tallies, JOBS)

    @classmethod
    def of_ended(cls) -> Tally:
        """Of those of `tables.jobs` that are in the states `GOOD` and `BAD`."""
        return cls(tables.ended, ENDED)

    @classmethod
    def of_letters(cls) -> Tally:
        """Of `tables.letters`."""
        return cls(tables.letter_tallies, LETTERS)

    @classmethod
    def of_changes(cls) -> Tally:
        """Of `tables.changes`."""
        return cls(tables.changes, ("queue",))

    def note(self, row: Mapping[str, Any], change: int) -> None:
        """So many more (or fewer) that are like this row."""
        self._changes[tuple(row[name] for name in self._names)] += change

    def note_end(self, row: Mapping[str, Any], change: int) -> None:
        """The same of a job, by its `queue`, `state` and `changed_at`, if it has ended."""
        if row["state"] in GOOD or row["state"] in BAD:
            self.note({**row, "minute": row["changed_at"] // MINUTE}, change)

    def write(self, sql: Connection) -> None:
        """Move the counts, in one order everywhere."""
        changed = sorted((values, change) for values, change in self._changes.items() if change)
        self._changes.clear()
        if not changed:
            return
        # Both databases have the same words for it, but SQLAlchemy has them twice.
        insert: Any = sqlite.insert if sql.dialect.name == "sqlite" else postgresql.insert
        put = insert(self._table)
        put = put.on_conflict_do_update(
            index_elements=self._names, set_={"amount": self._table.c.amount + put.excluded.amount}
        )
        sql.execute(put, [{**dict(zip(self._names, v, strict=True)), "amount": change} for v, change in changed])
        fewer = [{f"this_{n}": v for n, v in zip(self._names, values, strict=True)} for values, c in changed if c < 0]
        if fewer:
            same = [self._table.c[name] == bindparam(f"this_{name}") for name in self._names]
            sql.execute(delete(self._table).where(*same, self._table.c.amount == 0), fewer)
