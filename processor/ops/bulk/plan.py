"""Which jobs a bulk action means. The set is fixed when the plan is made, however long carrying it out takes.

A plan says how far the projection had read every partition of the log. A job is in the set if the filter means it *and*
what it is by was read by then: what arrives or changes later lies behind that, so it can only leave the set, never come
in. A job that has left it has changed since somebody looked, and is left alone. Offsets mean the same in every
projection of a log, so the set is the same in another dashboard's database, and in one that was built anew.

The set is walked newest first, page by page from the last row of the page before (a keyset): all pages cost the same,
and no list of ids is kept anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from processor.broker.base import TopicPartition
from processor.broker.partitioner import partition_for
from processor.ops.filters import LONGEST, parse
from processor.ops.planning import newest, parse_place, place_of
from processor.ops.queries import Row
from processor.ops.store import Store
from processor.wire.topics import dlq_topic, status_topic

QUEUE = "processor-bulk"
"""The queue of the jobs that carry plans out. They are never part of a plan."""
_COLUMNS = (
    *("id", "type", "queue", "state", "life", "attempt", "worker", "number", "changed_at", "enqueued_at"),
    *("status_life", "status_state", "status_at", "status_offset", "record_rank"),
    *("lay_topic", "lay_partition", "lay_offset"),
)

Action = Literal["redrive", "discard", "cancel", "retry"]
ACTIONS: Mapping[Action, str] = {
    "redrive": "send their dead letters back",
    "discard": "note that their dead letters need nothing more",
    "cancel": "cancel them",
    "retry": "let them go on now",
}
"""What can be done to many jobs, and what it is in words."""
Offset = Annotated[int, Field(ge=0, lt=2**63)]


class Plan(BaseModel):
    """One action, and the jobs that it means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    q: str = Field(max_length=LONGEST)
    """The filter."""
    at: int = Field(ge=0, lt=2**53)
    """When it was read, milliseconds since the epoch: `since:2h` is counted from here."""
    until: dict[str, list[Offset]] = Field(max_length=10_000)
    """Topic -> next offset of each partition that the projection had read."""
    count: int = Field(ge=0, lt=2**53)
    """Jobs of the set."""
    digest: str = Field(pattern="^[0-9a-f]{32}$")
    """Fingerprint of the set: of ids and lives, in the order of the walk."""
    queues: list[str] | None = Field(default=None, max_length=1000)
    """Only jobs of these; None: of all."""
    from_zero: bool = False
    """Of a redrive: begin at the beginning, not at the checkpoint."""

    @property
    def name(self) -> str:
        """The same plan has the same name."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A page of the set."""

    rows: Sequence[Row]
    place: str
    """Where the next one begins."""
    read: Mapping[TopicPartition, int]
    """How far the projection had read the log before the page was."""


class JobSet:
    """The jobs of a plan, as a store has them.

    Args:
        store: any projection of the log.
        plan: which.
        fields: payload fields that filters may name.

    Raises:
        FilterInvalid: its filter cannot be read.
    """

    def __init__(self, store: Store, plan: Plan, fields: Sequence[str]) -> None:
        self._store = store
        self._plan = plan
        self._where = parse(plan.q, plan.at, fields)
        self._queues = None if plan.queues is None else frozenset(plan.queues)
        self._status, self._dlq = status_topic(store.namespace), dlq_topic(store.namespace)

    def is_there(self) -> bool:
        """Whether the projection has read all that the plan goes by."""
        return self._covers(self._read())

    def parts(self, after: str = "", size: int = 500) -> Iterator[Part | None]:
        """The pages from a place on, none of them empty. None: the projection is not there (yet, or any more: it is
        being built anew); ask again.
        """
        while True:
            read = self._read()
            rows = self._newest(after, size) if self._covers(read) else []
            if not self._covers(read) or not self.is_there():
                yield None
                continue
            if rows:
                after = place_of(rows[-1])
                chosen = [row for row in rows if self._stood(row)]
                if chosen:
                    yield Part(rows=chosen, place=after, read=read)
            if len(rows) < size:
                return

    def _read(self) -> Mapping[TopicPartition, int]:
        # One that is built anew has no tables for a moment.
        return self._store.offsets() if self._store.facts() else {}

    def _newest(self, after: str, size: int) -> list[dict[str, Any]]:
        place = parse_place(after)
        with self._store.engine.connect() as sql:
            return newest(sql, self._where, _COLUMNS, queues=self._queues, after=place, limit=size)

    def _covers(self, read: Mapping[TopicPartition, int]) -> bool:
        return all(
            read.get(TopicPartition(topic, number), -1) >= offset
            for topic, offsets in self._plan.until.items()
            for number, offset in enumerate(offsets)
        )

    def _stood(self, row: Row) -> bool:
        """Whether the job is now what it was then: by the record that says so."""
        if row["queue"] == QUEUE:
            return False
        if row["status_life"] == row["life"]:
            partitions = len(self._plan.until.get(self._status, ()))
            number = partition_for(row["id"].encode(), partitions) if partitions else 0
            return self._was_read(self._status, number, row["status_offset"])
        if self._was_read(row["lay_topic"] or self._dlq, row["lay_partition"], row["lay_offset"]):
            return True
        # A job on its way down the retry chain is written anew again and again, and is the same.
        hops = (row["record_rank"] >> 2) & 0x3FFF_FFFF
        return hops > 0 and bool(row["enqueued_at"] <= self._plan.at)

    def _was_read(self, topic: str, partition: int, offset: int) -> bool:
        read = self._plan.until.get(topic, ())
        return partition < len(read) and bool(offset < read[partition])


def make_plan(
    store: Store,
    action: Action,
    q: str,
    now_ms: int,
    *,
    fields: Sequence[str] = (),
    queues: frozenset[str] | None = None,
    from_zero: bool = False,
) -> Plan:
    """Fix the set of jobs that a filter means now. Changes nothing.

    Raises:
        FilterInvalid: the filter cannot be read.
    """
    until: dict[str, list[int]] = {}
    for place, offset in sorted(store.offsets().items()):
        known = until.setdefault(place.topic, [])
        known += [0] * (place.partition + 1 - len(known))
        known[place.partition] = offset
    plan = Plan(
        action=action,
        q=q,
        at=now_ms,
        until=until,
        count=0,
        digest="0" * 32,
        queues=None if queues is None else sorted(queues),
        from_zero=from_zero,
    )
    seen, digest = 0, hashlib.blake2b(digest_size=16)
    for part in JobSet(store, plan, fields).parts(size=5000):
        for row in () if part is None else part.rows:
            seen += 1
            digest.update(f"{row['id']}\n{row['life']}\n".encode())
    return plan.model_copy(update={"count": seen, "digest": digest.hexdigest()})
