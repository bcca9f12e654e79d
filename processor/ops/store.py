"""The database of a projection: opening it, what it is of, and starting it anew."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from processor.broker.base import TopicPartition
from processor.errors import ExtraMissing, SettingsError
from processor.ops import tables
from processor.ops.errors import ProjectionError
from processor.ops.folding import Search

_WRITES = "projection_writes"
_IDENTITY = ("namespace", "cluster")


def default_url(namespace: str) -> str:
    """A SQLite file in the user's state folder, one for each namespace."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return f"sqlite:///{Path(home) / 'kafka-job-processor' / f'{namespace}.projection.sqlite'}"


class Store:
    """One database. Safe to use from several threads.

    Args:
        url: as SQLAlchemy takes it: `sqlite:///file`, `postgresql://user@host/name`.
        namespace: whose log it shows.

    Raises:
        SettingsError: that is no URL of a database, or it cannot be opened.
        ExtraMissing: its driver is not installed.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self.namespace = namespace
        self.engine = _engine(url)

    def prepare(self, cluster: str, search: Search) -> bool:
        """Make the tables, or make them anew if they are of another version or other fields are searched now.

        Returns:
            Whether the projection begins at the beginning of the log.

        Raises:
            ProjectionError: it shows another namespace or cluster.
            SettingsError: the database cannot be reached.
        """
        wanted = {"version": str(tables.VERSION), "search": _digest(search)}
        try:
            with self.writing() as sql:
                known = self._facts(sql)
                self._refuse_foreign(known, cluster)
                if all(known.get(name) == value for name, value in wanted.items()):
                    return False
                self._make(sql, {**wanted, "namespace": self.namespace, "cluster": cluster})
                return True
        except OperationalError as error:
            raise _unusable(error) from error

    def wipe(self) -> None:
        """Forget everything, so that the next `prepare` begins at the beginning.

        Raises:
            SettingsError: the database cannot be reached.
        """
        try:
            with self.writing() as sql:
                tables.metadata.drop_all(sql)
        except OperationalError as error:
            raise _unusable(error) from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that writes: committed at the end, rolled back on an exception."""
        with self.engine.connect() as connection:
            sql = connection.execution_options(**{_WRITES: True})
            with sql.begin():
                yield sql

    def facts(self) -> dict[str, str]:
        """What the projection says of itself; empty before the first `prepare`."""
        with self.engine.connect() as sql:
            return self._facts(sql)

    def note(self, sql: Connection, **values: str) -> None:
        """Set some of the facts."""
        sql.execute(delete(tables.facts).where(tables.facts.c.name.in_(list(values))))
        sql.execute(insert(tables.facts), [{"name": name, "value": value} for name, value in values.items()])

    def offsets(self) -> dict[TopicPartition, int]:
        """The next offset of each partition that was read."""
        with self.engine.connect() as sql:
            rows = sql.execute(select(tables.offsets.c.topic, tables.offsets.c.partition, tables.offsets.c.next))
            return {TopicPartition(topic, partition): next_ for topic, partition, next_ in rows}

    def begin_at(self, starts: Iterable[tuple[TopicPartition, int]]) -> None:
        """Partitions that are read from now on; those that are known already stay where they are."""
        with self.writing() as sql:
            for place, offset in starts:
                where = (tables.offsets.c.topic == place.topic, tables.offsets.c.partition == place.partition)
                if sql.execute(select(tables.offsets.c.next).where(*where)).first() is None:
                    sql.execute(
                        insert(tables.offsets).values(topic=place.topic, partition=place.partition, next=offset)
                    )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _make(self, sql: Connection, facts: dict[str, str]) -> None:
        # An older version may have had other tables of these names.
        tables.metadata.drop_all(sql)
        tables.metadata.create_all(sql)
        self.note(sql, **facts, as_of="0", behind="-1", unreadable="0")

    def _facts(self, sql: Connection) -> dict[str, str]:
        if not inspect(sql).has_table(tables.facts.name):
            return {}
        rows = sql.execute(select(tables.facts.c.name, tables.facts.c.value))
        return {row.name: row.value for row in rows}

    def _refuse_foreign(self, known: dict[str, str], cluster: str) -> None:
        for name, value in zip(_IDENTITY, (self.namespace, cluster), strict=True):
            if known.get(name, value) != value:
                raise ProjectionError(
                    f"this database shows {name} {known[name]}, not {value}",
                    hint="give each namespace of each cluster a database of its own (--database); if this cluster has "
                    "taken the other's place: processor projection rebuild",
                )


def _unusable(error: OperationalError) -> SettingsError:
    return SettingsError(
        f"the projection's database cannot be used: {error.orig}",
        hint="is its address right, does its folder exist, may this user write there?",
    )


def _digest(search: Search) -> str:
    text = json.dumps({name: sorted(fields) for name, fields in sorted(search.items()) if fields})
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise SettingsError(
                f"a projection in {parsed.get_backend_name()}", hint="use sqlite:///FILE or postgresql://"
            )
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    except ModuleNotFoundError as error:
        raise ExtraMissing("postgres", "a projection in PostgreSQL") from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:  # ValueError: a port that is none
        raise SettingsError(
            f"{url!r} is no address of a database", hint="use sqlite:///FILE or postgresql://"
        ) from error
    except OSError as error:
        raise SettingsError(f"the folder of the projection cannot be made: {error}") from error
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _tune)
        event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    # Python's driver begins transactions too late (a read, or a change of the schema, would lie outside), and a writer
    # that begins as a reader is refused if somebody wrote meanwhile, instead of waiting for its turn.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _tune(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    # WAL: pages are read while the log is folded in. NORMAL: a power cut may take the last transactions whole, with
    # their offsets, so they are simply read again.
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "busy_timeout=30000",
        "temp_store=MEMORY",
        "cache_size=-65536",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
