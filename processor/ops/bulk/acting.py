"""Doing one action to a page of jobs, in the name of one bulk; and what of it stands in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from processor.admin.bulk_orders import Asked, Given, cancel_jobs, go_on_jobs
from processor.admin.orders import Operator
from processor.admin.reading import partitions_of, read_to_end
from processor.admin.redrive import Order, discard_letters, redrive_letters
from processor.broker.base import Broker, TopicPartition
from processor.clock import Clock
from processor.core.audit import BULK
from processor.core.redrive import LetterState, Redrive
from processor.errors import RecordError
from processor.job import Place
from processor.ops import tables
from processor.ops.actions import letter_row
from processor.ops.bulk.plan import Part, Plan
from processor.ops.queries import Row
from processor.ops.store import Store
from processor.states import State
from processor.wire.codec import decode_audit
from processor.wire.records import AuditRecord, StatusRecord
from processor.wire.topics import TopicKind, audit_topic, parse_topic

Begin = Mapping[TopicPartition, int]


@dataclass(slots=True, kw_only=True)
class Done:
    """What became of a page."""

    done: int = 0
    skipped: int = 0
    """Somebody else has settled them meanwhile."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Ids of jobs to which it could not be done, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """Carries out one plan."""

    broker: Broker
    store: Store
    clock: Clock
    plan: Plan
    bulk: str
    """Its id."""
    by: str
    reason: str

    def audited(self) -> Iterator[AuditRecord]:
        """What it has done so far, as the audit log has it."""
        topic = audit_topic(self.store.namespace)
        places = partitions_of(self.broker, [topic])
        begin = dict(zip(places, self.plan.until.get(topic, ()), strict=False))
        for record in read_to_end(self.broker, places, begin):
            try:
                audit = decode_audit(record.value() or b"")
            except RecordError:
                continue
            if audit.bulk == self.bulk and audit.action != BULK:
                yield audit

    def act(self, part: Part, but: Collection[str] = ()) -> Done:
        """Do it to the jobs of a page, except some.

        Raises:
            DeadLetterError: another operator redrives letters at the same time.
            BrokerError: Kafka does not answer; doing it again, except to what is audited, goes on where it stopped.
        """
        rows = [row for row in part.rows if row["id"] not in but]
        if not rows:
            return Done()
        if self.plan.action in ("redrive", "discard"):
            return self._letters(rows, part.read)
        order = cancel_jobs if self.plan.action == "cancel" else go_on_jobs
        return self._ordered(rows, order)

    def _ordered(self, rows: Sequence[Row], order: Callable[[Broker, str, Sequence[Asked], Operator], Given]) -> Done:
        who = Operator(reason=self.reason, by=self.by, clock=self.clock, bulk=self.bulk)
        given = order(self.broker, self.store.namespace, [_asked(row) for row in rows], who)
        return Done(done=len(given.done), refused=given.refused)

    def _letters(self, rows: Sequence[Row], read: Begin) -> Done:
        table = tables.letters
        chosen: dict[str, Row] = {}
        with self.store.engine.connect() as sql:
            query = select(table).where(table.c.job_id.in_([row["id"] for row in rows]))
            for letter in sql.execute(query.order_by(table.c.life, table.c.at)).mappings():
                # Its newest letter tells how the job stands.
                chosen[letter["job_id"]] = dict(letter)
        letters = [letter_row(letter) for letter in chosen.values() if letter["state"] == LetterState.OPEN.value]
        there = {letter.id for letter in letters}
        refused = [(row["id"], "it has no open dead letter") for row in rows if row["id"] not in there]
        topic = audit_topic(self.store.namespace)
        seen = {place: offset for place, offset in read.items() if place.topic == topic}
        order = Order(by=self.by, reason=self.reason, clock=self.clock, bulk=self.bulk, seen=seen)
        namespace = self.store.namespace
        if self.plan.action == "redrive":
            result = redrive_letters(self.broker, namespace, letters, Redrive(from_zero=self.plan.from_zero), order)
        else:
            result = discard_letters(self.broker, namespace, letters, order)
        refused += [(row.id, str(error)) for row, error in result.refused]
        return Done(done=result.done, skipped=result.skipped, refused=refused)


def _asked(row: Row) -> Asked:
    chain = parse_topic(row["lay_topic"])
    place = Place(row["lay_topic"], row["lay_partition"], row["lay_offset"])
    lies = place if chain is not None and chain.kind is TopicKind.RETRY else None
    status = StatusRecord(
        *(row["id"], row["life"], row["type"], row["queue"], State(row["state"])),
        *(row["changed_at"], row["attempt"], row["worker"]),
        number=row["number"],
    )
    if row["status_life"] == row["life"] or status.state is State.SCHEDULED:
        return Asked(row["id"], status, lies)
    # What waits in its lane has no status; a dead letter of this life is the end of it.
    return Asked(row["id"], status if status.state is State.DEAD else None, lies)
