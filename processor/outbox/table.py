"""The table of jobs that wait to be sent, and storing one in a transaction of the caller's.

To make the table with tools of your own (alembic, say): `from processor.outbox.table import metadata`.
"""

from __future__ import annotations

import inspect
import time
from typing import Any

from processor.errors import DefinitionError, ExtraMissing
from processor.job import Job, Lane
from processor.wire.codec import encode

try:
    from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text, insert
except ModuleNotFoundError as error:
    raise ExtraMissing("outbox", "the outbox") from error

metadata = MetaData()
jobs = Table(
    "processor_outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("namespace", String(60), nullable=False),
    Column("job_id", String(255), nullable=False),
    Column("lane", String(10), nullable=False),
    Column("until", String(10), nullable=True),
    Column("job", LargeBinary, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("refused", Text, nullable=True),
    Index("processor_outbox_waiting", "namespace", "id"),
)
"""A row is deleted when its job is in the log. `until`: how long its idempotency key keeps others out, if it has one.
`refused`: why it will never be sent, as the broker or the codec says.
"""


def store(session: Any, namespace: str, job: Job, lane: Lane, until: str | None = None) -> None:
    """Store a job in the transaction of a SQLAlchemy `Session` or `Connection`. Nothing is committed.

    Raises:
        DefinitionError: `session` is none of these.
    """
    if inspect.iscoroutinefunction(_execute_of(session)):
        raise DefinitionError(
            f"session={type(session).__name__} is for async code",
            hint="write await job_type.aenqueue(..., session=...)",
        )
    _execute_of(session)(_insert(namespace, job, lane, until))


async def store_async(session: Any, namespace: str, job: Job, lane: Lane, until: str | None = None) -> None:
    """`store`, also for an `AsyncSession` or `AsyncConnection`.

    Raises:
        DefinitionError: `session` is none of these.
    """
    done = _execute_of(session)(_insert(namespace, job, lane, until))
    if inspect.isawaitable(done):
        await done


def _insert(namespace: str, job: Job, lane: Lane, until: str | None) -> Any:
    return insert(jobs).values(
        namespace=namespace,
        job_id=job.id,
        lane=str(lane),
        until=until,
        job=encode(job),
        stored_at=time.time_ns() // 1_000_000,
    )


def _execute_of(session: Any) -> Any:
    execute = getattr(session, "execute", None)
    if execute is None or not any(base.__module__.startswith("sqlalchemy") for base in type(session).__mro__):
        raise DefinitionError(
            f"session={session!r} cannot store a job",
            hint="give a SQLAlchemy Session or Connection, or an AsyncSession with aenqueue",
        )
    return execute
