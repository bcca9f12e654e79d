"""Filters that people have saved. The one thing in the database that is not in the log: rebuilding leaves it alone."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, delete, func, insert, select

from processor.ops.errors import FilterInvalid, NotThere
from processor.ops.queries import Row
from processor.ops.store import Store

MOST = 100
LONGEST = 60
_metadata = MetaData()
_saved = Table(
    "saved_filters",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("filter", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)


class Kept:
    """The saved filters of one dashboard, shared by all who use it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made = False

    def all(self) -> Sequence[Row]:
        """All of them by name: `name`, `filter`, `by`, `at` in milliseconds since the epoch."""
        self._make()
        with self._store.engine.connect() as sql:
            return [dict(row) for row in sql.execute(select(_saved).order_by(_saved.c.name)).mappings()]

    def save(self, name: str, text: str, by: str, at: int) -> None:
        """Keep one; one of that name gives way.

        Raises:
            FilterInvalid: it has no name that could be shown, or there are too many.
        """
        if not name.strip() or len(name) > LONGEST or not name.isprintable():
            raise FilterInvalid("how is it called?", hint=f"give a name of at most {LONGEST} characters")
        self._make()
        with self._store.writing() as sql:
            sql.execute(delete(_saved).where(_saved.c.name == name.strip()))
            if sql.execute(select(func.count()).select_from(_saved)).scalar_one() >= MOST:
                raise FilterInvalid(f"{MOST} filters are saved already", hint="delete one that nobody needs")
            sql.execute(insert(_saved).values(name=name.strip(), filter=text, by=by, at=at))

    def delete(self, name: str) -> None:
        """Forget one.

        Raises:
            NotThere: there is none of that name.
        """
        self._make()
        with self._store.writing() as sql:
            if not sql.execute(delete(_saved).where(_saved.c.name == name)).rowcount:
                raise NotThere(f"no saved filter is called {name[:LONGEST]!r}")

    def _make(self) -> None:
        if not self._made:
            with self._store.writing() as sql:
                _metadata.create_all(sql)
            self._made = True
