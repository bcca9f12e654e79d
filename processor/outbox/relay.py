"""Sends what was committed to the outbox, once per row.

In this order, so that nothing is lost: read rows and lock them, send their jobs and wait until all in-sync replicas
have them, delete the rows, commit. A relay that dies in between leaves rows that were sent: they are sent again, and
since the records say `derived`, the workers run each job once (within the dedupe window; 24 h unless changed).

Several relays may run. On PostgreSQL one of them sends at a time, the others are there if it goes: two that took rows
side by side would send the jobs of one ordering key in any order. Elsewhere two may send the same rows, in their order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Engine, create_engine, delete, func, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from processor import events
from processor.client.backlog import PASS
from processor.errors import EnqueueError, EnqueueUnconfirmed, ExtraMissing, ProcessorError, RecordError, SettingsError
from processor.job import Job, Lane
from processor.outbox.table import jobs, metadata
from processor.texts import message_of
from processor.wire.codec import decode_job

if TYPE_CHECKING:
    from processor.client.sender import Client

log = events.logger(__name__)

BATCH = 500
"""Rows of one transaction."""
LOOK_EVERY = 0.5
"""Seconds between two looks at an outbox that was empty."""
AGAIN = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds to wait after the database or Kafka did not answer, ever longer."""


class Waiting(NamedTuple):
    """What an outbox holds."""

    rows: int
    oldest_at: int | None
    """When the oldest of them was stored, milliseconds since the epoch."""
    refused: int
    """Rows beside these that will not be sent."""


class Done(NamedTuple):
    """What became of rows."""

    sent: int
    refused: int
    """Rows that can never be sent: they are kept, with the reason."""


class Ready(NamedTuple):
    """A row, decoded."""

    id: int
    job: Job
    lane: Lane
    until: str | None


def open_database(url: str) -> Engine:
    """The database of an outbox.

    Raises:
        SettingsError: that is no URL of a database.
        ExtraMissing: its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite" and parsed.database and not Path(parsed.database).exists():
            raise SettingsError(f"there is no file {parsed.database}", hint="the outbox is in your own database")
        return create_engine(parsed, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ExtraMissing("postgres", f"a database of the kind {url.partition(':')[0]}") from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:  # ValueError: a port that is none
        raise SettingsError(
            "that is no address of a database", hint="--database sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error


def create(engine: Engine) -> None:
    """Make the table, unless it is there.

    Raises:
        SettingsError: the database does not let us.
    """
    try:
        metadata.create_all(engine)
    except SQLAlchemyError as error:
        raise _unusable(error) from error


class Relay:
    """Sends the rows of one namespace."""

    def __init__(self, engine: Engine, client: Client) -> None:
        self._engine = engine
        self._client = client

    def waiting(self) -> Waiting:
        """What is there now.

        Raises:
            SettingsError: the database cannot be read, or has no outbox.
        """
        mine = jobs.c.namespace == self._client.namespace
        try:
            with self._engine.connect() as sql:
                count, oldest = sql.execute(
                    select(func.count(), func.min(jobs.c.stored_at)).where(mine, jobs.c.refused.is_(None))
                ).one()
                refused = sql.execute(select(func.count()).where(mine, jobs.c.refused.is_not(None))).scalar_one()
        except SQLAlchemyError as error:
            raise _unusable(error) from error
        return Waiting(count, oldest, refused)

    def refused(self, limit: int = 50) -> list[tuple[str, int, str]]:
        """Rows that will not be sent: job id, when it was stored, why.

        Raises as `waiting`.
        """
        found = select(jobs.c.job_id, jobs.c.stored_at, jobs.c.refused)
        found = found.where(jobs.c.namespace == self._client.namespace, jobs.c.refused.is_not(None))
        try:
            with self._engine.connect() as sql:
                return [
                    (row.job_id, row.stored_at, row.refused)
                    for row in sql.execute(found.order_by(jobs.c.id).limit(limit))
                ]
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def retry_refused(self) -> int:
        """Let them be tried once more, after the cause is mended; how many.

        Raises as `waiting`.
        """
        mine = (jobs.c.namespace == self._client.namespace, jobs.c.refused.is_not(None))
        try:
            with self._engine.begin() as sql:
                return sql.execute(update(jobs).where(*mine).values(refused=None)).rowcount
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def send_some(self) -> Done:
        """Send the oldest rows, one transaction; what became of them (none: there are none, or another relay sends).

        Raises:
            EnqueueUnconfirmed: Kafka did not confirm all; the rows stay, sending them again is harmless.
            SettingsError: the database cannot be used, or has no outbox.
        """
        try:
            with self._engine.begin() as sql:
                rows = self._locked(sql)
                return self._send(sql, rows) if rows else Done(0, 0)
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def _locked(self, sql: Connection) -> Sequence[Any]:
        if sql.dialect.name == "postgresql":
            name = f"processor_outbox {self._client.namespace}".encode()
            lock = int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)
            if not sql.execute(select(func.pg_try_advisory_xact_lock(lock))).scalar_one():
                return ()  # another relay is sending; the lock goes with its transaction, or its connection
        wanted = select(jobs.c.id, jobs.c.lane, jobs.c.until, jobs.c.job)
        wanted = wanted.where(jobs.c.namespace == self._client.namespace, jobs.c.refused.is_(None))
        return sql.execute(wanted.order_by(jobs.c.id).limit(BATCH).with_for_update(skip_locked=True)).all()

    def _send(self, sql: Connection, rows: Sequence[Any]) -> Done:
        fine, refused = _decoded(rows)
        try:
            self._client.send_many(((row.job, row.lane, True, row.until) for row in fine), PASS)
        except EnqueueUnconfirmed:
            raise
        except EnqueueError:
            # One of them can never be sent: the others are not to wait for it.
            fine, more = self._one_by_one(fine)
            refused += more
        for row_id, why in refused:
            log.error("outbox.refused", extra={"row": row_id, "error": why})
            sql.execute(update(jobs).where(jobs.c.id == row_id).values(refused=why.replace("\0", "\\0")))
        if fine:
            sql.execute(delete(jobs).where(jobs.c.id.in_([row.id for row in fine])))
        return Done(len(fine), len(refused))

    def _one_by_one(self, rows: list[Ready]) -> tuple[list[Ready], list[tuple[int, str]]]:
        sent, refused = [], []
        for row in rows:
            try:
                self._client.send(row.job, row.lane, derived=True, until=row.until)
                sent.append(row)
            except EnqueueUnconfirmed:
                raise
            except EnqueueError as error:
                refused.append((row.id, message_of(error, 1000)))
        return sent, refused

    def drain(self, tick: Callable[[int], object] = lambda _: None) -> Done:
        """Send until nothing waits; what became of the rows that this relay sent. Raises as `send_some`.

        Args:
            tick: is called after each transaction with the number of rows that are through so far.
        """
        total = Done(0, 0)
        pause = threading.Event()
        while any(done := self.send_some()) or self.waiting().rows:
            if not any(done):
                pause.wait(LOOK_EVERY)  # another relay is at them
            total = Done(total.sent + done.sent, total.refused + done.refused)
            tick(sum(total))
        return total

    def run(self, stop: threading.Event) -> None:
        """Send what comes until `stop`; neither an outage of the database nor one of Kafka ends it."""
        failures = 0
        while not stop.is_set():
            try:
                done = self.send_some()
                failures = 0
                if done.sent:
                    log.info("outbox.sent", extra={"jobs": done.sent})
                wait = 0.0 if any(done) else LOOK_EVERY
            except ProcessorError as error:
                wait = AGAIN[min(failures, len(AGAIN) - 1)]
                failures += 1
                log.warning("outbox.waits", extra={"error": str(error), "again_in": wait})
            stop.wait(wait)


def _decoded(rows: Sequence[Any]) -> tuple[list[Ready], list[tuple[int, str]]]:
    fine, refused = [], []
    for row in rows:
        try:
            fine.append(Ready(row.id, decode_job(row.job), Lane(row.lane), row.until))
        except (RecordError, ValueError) as error:
            refused.append((row.id, message_of(error, 1000)))
    return fine, refused


def _unusable(error: Exception) -> SettingsError:
    said = str(getattr(error, "orig", None) or error).partition("\n")[0]
    return SettingsError(
        f"the outbox's database cannot be used: {said}",
        hint="is --database right? processor outbox create makes the table, if it is missing",
    )
