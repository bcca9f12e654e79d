"""Sending the jobs of a replay: each once, whatever becomes of the command.

How it goes, numbered:

1. A producer with the transactional id of this replay: whoever ran it before, dead or alive, is fenced, and what it
   left open is aborted.
2. Only then is read what was sent already: nobody else can send a job of this replay from here on.
3. The first time the audit topic is told which offsets the replay is about.
4. What is left goes out in batches, each in one transaction: first what creates (status and job of the new life), and
   once that is acknowledged what announces (the audit record that names the jobs).
5. After an abort or a disturbed connection the producer is built anew, and 2 is done again for what is left.
6. Once nothing is left, the audit topic is told.

So a command that is killed and run again finds a job either named and on its way, or neither. Should a torn transaction
show a job without its name, the second copy has the same id and life, and workers drop it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from processor.admin.reading import read_to_end
from processor.admin.replay.plan import Plan, job_in, replays_of
from processor.admin.replay.saved import Saved
from processor.admin.transactions import TRIES, Order, TransactionWriter, parts
from processor.broker.base import Broker, Failure, OutRecord, TopicPartition
from processor.core.audit import noted
from processor.core.replay.history import Chosen
from processor.core.replay.journal import Replay, begun_record, done_record, sent_record
from processor.core.replay.lives import replayed, sent
from processor.errors import (
    AbortRequired,
    ProcessorError,
    ProducerFatal,
    ProducerFenced,
    RecordError,
    ReplayError,
    RetriableBrokerError,
)
from processor.job import Job, Lane, Place
from processor.wire.records import AuditRecord
from processor.wire.topics import jobs_topic

BATCH = 500
"""Jobs of one transaction at most."""
BATCH_BYTES = 8_000_000
LOADED = 5000
"""Jobs that are read at a time at most."""
LOADED_BYTES = 32_000_000


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How it went."""

    sent: int = 0
    before: int = 0
    """Jobs that earlier runs had sent."""
    gone: int = 0
    """Jobs whose record was deleted since they were chosen."""
    refused: list[tuple[Chosen, ProcessorError]] = field(default_factory=list)


class Item(NamedTuple):
    """One job of a batch."""

    job: Chosen
    records: Sequence[OutRecord]
    size: int


def run_replay(broker: Broker, plan: Plan, order: Order) -> Outcome:
    """Send what a plan has left to send.

    Args:
        broker: of both namespaces.
        plan: as `plan_replay` made it.
        order: who wants it, why, and how fast.

    Raises:
        ReplayError: the same replay goes on elsewhere; what is done is done.
        BrokerError: Kafka does not answer or refuses; running it again goes on where this stopped.
    """
    return _Sender(broker, plan, order).run()


class _Sender:
    """Carries out one plan."""

    def __init__(self, broker: Broker, plan: Plan, order: Order) -> None:
        self._broker, self._plan, self._order = broker, plan, order
        self._spec = plan.frozen.spec
        self._writer = TransactionWriter(broker, f"{self._spec.target}.replay.{plan.name}", order.clock)
        self._replay: Replay = plan.replay
        self._outcome = Outcome()
        self._tries = 0

    def run(self) -> Outcome:
        """Steps 1 to 6 of the module."""
        outcome = self._outcome
        try:
            self._look()
            left = replace(self._plan, replay=self._replay).left
            outcome.before = len(self._plan.choice.jobs) - len(left)
            self._begin()
            self._send_all(left)
            if not outcome.refused:
                self._end()
        except ProducerFenced as error:
            raise ReplayError(
                f"replay {self._plan.name} goes on elsewhere, or this run stood still for too long",
                hint="what was sent is not sent twice; run it again if nobody else does",
            ) from error
        except BaseException:
            self._writer.abort()
            raise
        finally:
            self._writer.abandon()
        return outcome

    def _look(self) -> None:
        """Fence, then read how far the replay has come."""
        self._writer.rebuild()
        self._replay = replays_of(self._broker, self._spec.target).of(self._plan.name)
        if self._replay.frozen not in (None, self._plan.frozen):
            raise ReplayError(
                f"replay {self._plan.name} was begun elsewhere meanwhile", hint="run it again: it goes on with that one"
            )

    def _begin(self) -> None:
        while self._replay.frozen is None:
            record = begun_record(self._plan.name, self._plan.frozen, *self._signed())
            if self._mark(record):
                return

    def _end(self) -> None:
        while self._replay.done is None:
            count = self._outcome.before + self._outcome.sent
            if self._mark(done_record(self._plan.name, count, *self._signed())):
                return

    def _mark(self, record: AuditRecord) -> bool:
        """Write one audit record; False: whether it is there is known only now, see `_look`."""
        if not self._writer.ready:
            self._look()
            return False
        failures = self._write([], [noted(self._spec.target, record)])
        if failures:
            raise failures[0].error
        return failures is not None

    def _signed(self) -> tuple[int, str, str]:
        return self._order.clock.now_ms(), self._order.by, self._order.reason

    # -- jobs ------------------------------------------------------------------------------------------------------

    def _send_all(self, left: Sequence[Chosen]) -> None:
        order, began = self._order, self._order.clock.monotonic()
        saved = Saved(self._broker, self._spec, left)
        for part in parts(left, LOADED, LOADED_BYTES):
            items = self._prepared(part, saved)
            order.done(len(part) - len(items))
            for batch in parts(items, order.batch(BATCH), BATCH_BYTES):
                self._send(batch)
                order.done(len(batch))
                order.pace(began, self._outcome.sent)

    def _prepared(self, part: Sequence[Chosen], saved: Saved) -> list[Item]:
        """What is to be written for these jobs; notes those of which nothing can be."""
        found = self._records(part)
        self._outcome.gone += len(part) - len(found)
        carried = saved.load(part, found)
        items, now, order = [], self._order.clock.now_ms(), self._order
        for chosen in part:
            if chosen.name not in found:
                continue
            job = replayed(found[chosen.name], chosen, self._spec, self._plan.name, carried.get(chosen.name), now)
            fault = self._fault(job)
            if fault is not None:
                self._outcome.refused.append((chosen, fault))
                continue
            records = sent(job, self._spec, order.by, order.reason)
            items.append(Item(chosen, records, sum(len(out.value or b"") for out in records)))
        return items

    def _records(self, part: Sequence[Chosen]) -> dict[str, Job]:
        """The newest records of these jobs, by name; those that were deleted are left out."""
        wanted = {job.place: job.name for job in part}
        starts: dict[TopicPartition, int] = {}
        stops: dict[TopicPartition, int] = {}
        for place in wanted:
            where = TopicPartition(place.topic, place.partition)
            starts[where] = min(place.offset, starts.get(where, place.offset))
            stops[where] = max(place.offset + 1, stops.get(where, 0))
        found: dict[str, Job] = {}
        for record in read_to_end(self._broker, list(starts), starts, stops):
            place = Place(record.topic() or "", record.partition() or 0, record.offset() or 0)
            name = wanted.get(place)
            if name is None:
                continue
            try:
                found[name] = job_in(record)
            except RecordError:
                # It was a job when it was chosen; an offset never changes what it holds.
                continue
        return found

    def _fault(self, job: Job) -> ReplayError | None:
        """Why a job has no place in its lane."""
        topic = jobs_topic(self._spec.target, job.queue, Lane(self._spec.lane))
        partitions = self._plan.lanes[topic]
        if job.number is None or job.number < partitions:
            return None
        return ReplayError(
            f"job {job.id} belongs to partition {job.number} of queue {job.queue}, and {topic} has {partitions}",
            hint="were the queue's topics deleted and made anew? Give them as many partitions as before",
        )

    def _send(self, items: list[Item]) -> None:
        """One batch, until it is committed or what cannot be sent of it is known."""
        self._tries = 0
        while items:
            if not self._writer.ready:
                self._look()
                left = [item for item in items if item.job.name not in self._replay.sent]
                self._outcome.sent += len(items) - len(left)
                items = left
                continue
            named = sent_record(self._plan.name, self._spec, (item.job for item in items), *self._signed())
            failures = self._write([out for item in items for out in item.records], [noted(self._spec.target, named)])
            if failures is None:
                continue
            if not failures:
                self._outcome.sent += len(items)
                return
            errors = _culprits(items, failures)
            self._outcome.refused += [(item.job, errors[item.job.name]) for item in items if item.job.name in errors]
            items = [item for item in items if item.job.name not in errors]

    def _write(self, creates: Sequence[OutRecord], announces: Sequence[OutRecord]) -> Sequence[Failure] | None:
        """What was refused of a transaction; None: it has to be looked at what became of it."""
        try:
            return self._writer.write(creates, announces)
        except ProducerFenced:
            raise
        except (AbortRequired, ProducerFatal, RetriableBrokerError):
            self._tries += 1
            if self._tries == TRIES:
                raise
            self._writer.abandon()
            return None


def _culprits(items: Sequence[Item], failures: Sequence[Failure]) -> dict[str, ProcessorError]:
    """Whose records were refused, and why."""
    errors = {id(failure.record): failure.error for failure in failures}
    found: dict[str, ProcessorError] = {
        item.job.name: errors[id(out)] for item in items for out in item.records if id(out) in errors
    }
    if not found:
        raise failures[0].error
    return found
