"""Filters that people have saved, and which of them are alerts. The one thing in the database that is not in the log:
rebuilding leaves it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, delete, func, insert, select, update

from processor.ops.errors import FilterInvalid, NotThere
from processor.ops.queries import Row
from processor.ops.store import Store
from processor.ops.watching.decision import Wish

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
_alerts = Table(
    "filter_alerts",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("at_least", BigInteger),
    Column("hold_ms", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("standing", Text, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterAlert:
    """A saved filter that is an alert."""

    name: str
    filter: str
    wish: Wish
    by: str
    """Who made it one, as `user@host`."""
    at: int
    """When, milliseconds since the epoch."""
    standing: str
    """What is known of it from earlier looks: JSON of a `Standing`; empty: nothing."""


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
        """Keep one; one of that name gives way. If that was an alert, the new one is.

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
        """Forget one, and that it was an alert.

        Raises:
            NotThere: there is none of that name.
        """
        self._make()
        with self._store.writing() as sql:
            sql.execute(delete(_alerts).where(_alerts.c.name == name))
            if not sql.execute(delete(_saved).where(_saved.c.name == name)).rowcount:
                raise _none_called(name)

    # -- alerts ----------------------------------------------------------------------------------------------------

    def alerts(self) -> list[FilterAlert]:
        """Those that are alerts, by name."""
        self._make()
        each = _alerts.c
        query = select(_alerts, _saved.c.filter).join(_saved, _saved.c.name == each.name).order_by(each.name)
        with self._store.engine.connect() as sql:
            return [
                FilterAlert(
                    name=row["name"],
                    filter=row["filter"],
                    wish=Wish(at_least=row["at_least"], hold_ms=row["hold_ms"]),
                    by=row["by"],
                    at=row["at"],
                    standing=row["standing"],
                )
                for row in sql.execute(query).mappings()
            ]

    def watch(self, name: str, wish: Wish, by: str, at: int) -> None:
        """Make one an alert, of which nothing is known yet; what it was before gives way.

        Raises:
            NotThere: there is no filter of that name.
        """
        self._make()
        with self._store.writing() as sql:
            if sql.execute(select(_saved.c.name).where(_saved.c.name == name)).first() is None:
                raise _none_called(name)
            sql.execute(delete(_alerts).where(_alerts.c.name == name))
            values = {"at_least": wish.at_least, "hold_ms": wish.hold_ms, "by": by, "at": at, "standing": ""}
            sql.execute(insert(_alerts).values(name=name, **values))

    def unwatch(self, name: str) -> None:
        """Make one no alert any more.

        Raises:
            NotThere: it is none, or there is no filter of that name.
        """
        self._make()
        with self._store.writing() as sql:
            if not sql.execute(delete(_alerts).where(_alerts.c.name == name)).rowcount:
                raise NotThere(
                    f"no saved filter {name[:LONGEST]!r} is an alert", hint="processor alerts filters lists them"
                )

    def move(self, alert: FilterAlert, standing: str, tell: Callable[[], object]) -> bool:
        """Put a new standing in the place of the one that `alert` was read with, and tell, in one transaction.

        Args:
            alert: as it was read.
            standing: what is known now.
            tell: called if nobody else has moved it meanwhile; what it raises takes everything back.

        Returns:
            Whether nobody else has.
        """
        each, wish = _alerts.c, alert.wish
        same = (each.name == alert.name, each.at == alert.at, each.standing == alert.standing)
        known = each.at_least.is_(None) if wish.at_least is None else each.at_least == wish.at_least
        with self._store.writing() as sql:
            # Whoever comes second waits here for the first, and then finds another standing.
            moved = update(_alerts).where(*same, known).values(standing=standing)
            if not sql.execute(moved).rowcount:
                return False
            tell()
        return True

    def _make(self) -> None:
        if not self._made:
            with self._store.writing() as sql:
                _metadata.create_all(sql)
            self._made = True


def _none_called(name: str) -> NotThere:
    hint = "processor alerts filters lists them; the dashboard saves them, on its page Jobs"
    return NotThere(f"no saved filter is called {name[:LONGEST]!r}", hint=hint)
