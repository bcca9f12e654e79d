"""The tables of the projection.

There are no migrations. Everything here can be read again from the log, so a table of another version is dropped and
filled anew: that is tested with every change of the schema, which a chain of migrations never is.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import TEXT

VERSION = 8
"""Of these tables. Any change of them raises it; the next start then fills them anew."""

metadata = MetaData()


def _big(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=False, default=0, autoincrement=False)


_TEXT = Text().with_variant(TEXT(collation="C"), "postgresql")
"""Ordered by its characters in every database: lists are paged and beginnings are found by that order."""


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, _TEXT, primary_key=key, nullable=False, default="")


facts = Table("facts", metadata, _text("name", key=True), _text("value"))
"""What the projection is of, and how fresh."""

offsets = Table("offsets", metadata, _text("topic", key=True), _big("partition", key=True), _big("next"))
"""The next offset of each partition; changes in the same transaction as what the records before it mean."""

jobs = Table(
    "jobs",
    metadata,
    _text("id", key=True),
    _text("type"),
    _text("queue"),
    Column("key", _TEXT),
    Column("number", BigInteger),
    Column("parent", _TEXT),
    _big("version"),
    _big("enqueued_at"),
    Column("kill_at", BigInteger),
    # The newest record of the job itself, in a lane, in the retry chain or in a dead letter.
    _big("record_life"),
    _big("record_rank"),
    _text("waits"),
    _text("lay_topic"),
    _big("lay_partition"),
    _big("lay_offset"),
    _big("copy_for"),
    # The status that counts.
    _big("status_life"),
    _text("status_state"),
    _big("status_at"),
    _big("status_began"),
    _big("status_offset"),
    _big("attempt"),
    _text("worker"),
    Column("done", Float),
    Column("total", Float),
    _text("note"),
    Column("due_at", BigInteger),
    _text("error_kind"),
    _text("error_message"),
    _text("error_place"),
    _text("fingerprint"),
    # The newest dead letter.
    _big("letter_life"),
    _big("letter_at"),
    # What follows from all three.
    _text("state"),
    _big("life"),
    _big("changed_at"),
)
"""One row a job, as its newest life stands."""

HAS_FAILED = jobs.c.fingerprint != ""
"""Most jobs have not: an index of those that have is small, and a query that says so uses it."""

# A list is newest first, so each index ends with the time: what begins with equal values is read in order, and only as
# far as the page goes. A question without a state is asked once for each state that there is: see `ops.planning`.
_NEWEST = (jobs.c.changed_at, jobs.c.id)
Index("jobs_by_time", *_NEWEST)
Index("jobs_by_state", jobs.c.state, *_NEWEST)
Index("jobs_by_fingerprint", jobs.c.fingerprint, *_NEWEST, sqlite_where=HAS_FAILED, postgresql_where=HAS_FAILED)
for _name in ("type", "queue", "worker"):
    Index(f"jobs_by_{_name}_state", jobs.c[_name], jobs.c.state, *_NEWEST)
for _name in ("key", "parent"):
    _has = jobs.c[_name].is_not(None)
    Index(f"jobs_by_{_name}_state", jobs.c[_name], jobs.c.state, *_NEWEST, sqlite_where=_has, postgresql_where=_has)

tallies = Table(
    "tallies",
    metadata,
    _text("fingerprint", key=True),
    _text("error_kind", key=True),
    _text("queue", key=True),
    _text("type", key=True),
    _text("state", key=True),
    _big("amount"),
)
"""How many jobs are alike, moved in the transaction that changes the jobs: counting a million rows takes a second."""

ended = Table(
    "ended", metadata, _big("minute", key=True), _text("queue", key=True), _text("state", key=True), _big("amount")
)
"""How many jobs ended in each minute since the epoch, as far as they still stand so."""

bodies = Table(
    "bodies", metadata, _text("job_id", key=True), Column("payload", Text), _big("payload_size"), Column("result", Text)
)
"""What a list does not show. A payload longer than `folding.PAYLOAD` is left in the log, where the job's place says."""

fields = Table("fields", metadata, _text("job_id"), _text("name"), _text("value"))
"""Payload fields that job types declare with `search=`."""
Index("fields_by_value", fields.c.value, fields.c.name, fields.c.job_id)
Index("fields_by_job", fields.c.job_id)

moves = Table(
    "moves",
    metadata,
    _text("job_id", key=True),
    _big("offset", key=True),
    _big("life"),
    _text("state"),
    _big("at"),
    _big("attempt"),
    _text("worker"),
    _text("note"),
    _text("error_kind"),
    _text("error_message"),
    _text("fingerprint"),
)
"""Earlier statuses of a job, as far as the log still had them."""

failures = Table(
    "failures",
    metadata,
    _text("job_id", key=True),
    _big("life", key=True),
    _big("attempt", key=True),
    _big("at", key=True),
    _text("kind"),
    _text("message"),
    _text("traceback"),
    _text("fingerprint"),
    _text("worker"),
)
"""Failed attempts, from the records of the retry chain and from dead letters."""

letters = Table(
    "letters",
    metadata,
    _big("partition", key=True),
    _big("offset", key=True),
    _text("job_id"),
    _big("life"),
    _text("type"),
    _text("queue"),
    _text("reason"),
    _big("at"),
    _text("worker"),
    _text("error"),
    _text("fingerprint"),
    _big("attempts"),
    _big("size"),
    _text("state"),
    _text("settled_by"),
    Column("settled_at", BigInteger),
    _text("settled_reason"),
)
"""Dead letters, and what became of them."""
_ADDRESS = (letters.c.at, letters.c.partition, letters.c.offset)
Index("letters_by_time", *_ADDRESS)
Index("letters_by_state", letters.c.state, *_ADDRESS)
Index("letters_by_job", letters.c.job_id)
Index("letters_by_reason", letters.c.reason, letters.c.state, *_ADDRESS)
for _name in ("fingerprint", "type"):
    Index(f"letters_by_{_name}", letters.c[_name], *_ADDRESS)
    Index(f"letters_by_{_name}_state", letters.c[_name], letters.c.state, *_ADDRESS)

letter_tallies = Table(
    "letter_tallies",
    metadata,
    _text("fingerprint", key=True),
    _text("queue", key=True),
    _text("type", key=True),
    _text("state", key=True),
    _big("amount"),
)
"""How many letters are alike, as `tallies` for jobs."""

changes = Table("changes", metadata, _text("queue", key=True), _big("amount"))
"""How many batches have changed something of each queue, so that whoever may see some queues hears of these alone.
Under the empty name: what concerns all, or nobody knows which.
"""

orders = Table(
    "orders",
    metadata,
    _text("target", key=True),
    _text("action"),
    _big("at"),
    _text("by"),
    _text("reason"),
    _big("life"),
)
"""Pauses, cancels and retries that hold."""
Index("orders_by_action", orders.c.action)

audit = Table(
    "audit",
    metadata,
    _big("partition", key=True),
    _big("offset", key=True),
    _text("action"),
    _text("subject"),
    _big("at"),
    _text("by"),
    _text("reason"),
    _text("job_id"),
    _big("life"),
    _text("detail"),
    _text("bulk"),
)
"""What operators did."""
Index("audit_by_time", audit.c.at, audit.c.partition, audit.c.offset)
Index("audit_by_job", audit.c.job_id)
Index("audit_by_subject", audit.c.subject)
Index(
    "audit_by_bulk",
    *(audit.c[name] for name in ("bulk", "at", "partition", "offset")),
    sqlite_where=audit.c.bulk != "",
    postgresql_where=audit.c.bulk != "",
)
