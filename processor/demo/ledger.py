"""The outside world of the demo: a SQLite file beside Kafka, as a payment service or a mail server would be.

It honours idempotency keys: an effect with a key that it has seen changes nothing. Beside the effects it counts every
*application*, so that what was done again after a crash is not hidden by the keys.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, job TEXT NOT NULL, step TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS applications (job TEXT NOT NULL, step TEXT NOT NULL, process INTEGER NOT NULL);
"""
_BUSY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCount:
    """What the ledger holds."""

    effects: int
    """Rows that took effect."""
    doubled: int
    """Steps of a job that took effect more than once, in spite of their key."""
    applications: int
    """How often an effect was asked for; more than `effects` by what ran again."""
    once_runs: int
    """Runs of the step that must not run twice."""


class Ledger:
    """One process' view of the file. Thread-safe: each thread has its connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def create(self) -> None:
        """Make the file, with a log ahead of it, so that readers and writers do not wait for each other."""
        connection = self._connection()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)

    def apply(self, key: str, job: str, step: str) -> None:
        """Ask for an effect. It happens once per key, however often it is asked for."""
        with self._writing() as connection:
            connection.execute("INSERT INTO applications VALUES (?, ?, ?)", (job, step, os.getpid()))
            connection.execute("INSERT OR IGNORE INTO effects VALUES (?, ?, ?)", (key, job, step))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes meanwhile. A process frozen in here cannot hold the file's lock while it sleeps."""
        with self._writing():
            yield

    def count(self, once_step: str) -> LedgerCount:
        """What happened, in numbers."""
        connection = self._connection()

        def number(sql: str, *values: str) -> int:
            return int(connection.execute(sql, values).fetchone()[0])

        return LedgerCount(
            effects=number("SELECT count(*) FROM effects"),
            doubled=number(
                "SELECT coalesce(sum(times - 1), 0) FROM (SELECT count(*) AS times FROM effects GROUP BY job, step)"
            ),
            applications=number("SELECT count(*) FROM applications"),
            once_runs=number("SELECT count(*) FROM applications WHERE step = ?", once_step),
        )

    def applications_of(self, job: str) -> int:
        """How often effects of one job were asked for."""
        found = self._connection().execute("SELECT count(*) FROM applications WHERE job = ?", (job,)).fetchone()
        return int(found[0])

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = connection
        return connection
