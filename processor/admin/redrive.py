"""Sending dead letters back, or discarding them: many at once, each exactly once, whatever becomes of the command.

How it goes, numbered:

1. A producer with the namespace's one transactional id for this: whoever held it before, dead or alive, is fenced, and
   what it left open is aborted.
2. Only then is read what is settled already: nobody else can settle a letter from here on.
3. The letters that still are as they were chosen go out in batches, each in one transaction: first what creates (status
   and job of the next life), and once that is acknowledged what announces (the audit records that settle them).
4. After an abort or a disturbed connection the producer is built anew, and 2 is done again for what is left.

So a command that is killed and run again finds a letter either settled with its job on the way, or open with nothing
sent. Of two operators at once the one who began first is told that the other went on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from processor.admin.dead_letters import LetterRow, read_letters, settled_letters
from processor.admin.transactions import TRIES, TransactionWriter, parts
from processor.admin.transactions import Order as Order
from processor.broker.base import Broker, Failure, OutRecord
from processor.core.audit import DISCARD, REDRIVE, noted
from processor.core.redrive import Address, LetterState, Redrive, job_of, next_life, number_of, sent_back
from processor.errors import (
    AbortRequired,
    DeadLetterError,
    ProcessorError,
    ProducerFatal,
    ProducerFenced,
    RetriableBrokerError,
)
from processor.job import Job, Lane
from processor.wire.records import AuditRecord, DeadLetterRecord
from processor.wire.topics import jobs_topic, parse_topic

BATCH = 100
"""Letters of one transaction at most."""
BATCH_BYTES = 8_000_000
LOADED = 1000
"""Letters that are read at a time at most."""
LOADED_BYTES = 32_000_000


@dataclass(slots=True, kw_only=True)
class Settlement:
    """How it went."""

    done: int = 0
    skipped: int = 0
    """Settled by somebody else since they were chosen."""
    refused: list[tuple[LetterRow, ProcessorError]] = field(default_factory=list)


class Item(NamedTuple):
    """One letter of a batch."""

    row: LetterRow
    creates: list[OutRecord]
    audit: OutRecord
    job: Job | None = None
    """The next life, of a redrive."""
    detail: str = ""
    """How it goes on, in words."""


Prepared = Item | tuple[LetterRow, ProcessorError]
"""What is to be written for a letter, or why nothing can be."""


def redrive_letters(
    broker: Broker, namespace: str, rows: Sequence[LetterRow], how: Redrive, order: Order
) -> Settlement:
    """Send letters back to their queues: each begins the next life of its job.

    Args:
        broker: where they lie.
        namespace: whose letters.
        rows: as they were listed; what has changed since is skipped.
        how: from the checkpoint or from zero, with which payload.
        order: who wants it, why, and how fast.

    Raises:
        DeadLetterError: another operator began to redrive or discard letters meanwhile; what is done is done.
        BrokerError: Kafka does not answer or refuses; running it again goes on where this stopped.
    """
    prepare = _preparing(broker, namespace, rows, how, order)
    return _Settler(broker, namespace, order).settle(rows, prepare)


def plan_redrive(
    broker: Broker, namespace: str, rows: Sequence[LetterRow], how: Redrive, order: Order
) -> Iterator[Prepared]:
    """What `redrive_letters` would send now, and what it would refuse. Sends nothing."""
    prepare = _preparing(broker, namespace, rows, how, order)
    for part in parts(rows, LOADED, LOADED_BYTES):
        yield from prepare(part)


def discard_letters(broker: Broker, namespace: str, rows: Sequence[LetterRow], order: Order) -> Settlement:
    """Note that these letters need nothing more. They stay where they are; a later redrive by address is possible.

    Raises as `redrive_letters`.
    """

    def made(part: Sequence[LetterRow]) -> Iterator[Prepared]:
        for row in part:
            facts = (str(row.address), order.clock.now_ms(), order.by, order.reason, row.id, row.life)
            yield Item(row, [], noted(namespace, AuditRecord(DISCARD, *facts, bulk=order.bulk)))

    return _Settler(broker, namespace, order).settle(rows, made)


def _preparing(
    broker: Broker, namespace: str, rows: Sequence[LetterRow], how: Redrive, order: Order
) -> Callable[[Sequence[LetterRow]], Iterator[Prepared]]:
    """Makes items of some of the rows; the lanes are looked up once."""
    named = {jobs_topic(namespace, row.queue, Lane.DUE) for row in rows if row.life}
    # A foreign record may name a queue that no topic can be called after: asking Kafka for it would fail for all.
    found = broker.admin().topics([topic for topic in named if parse_topic(topic) is not None])
    lanes = {topic: info.partitions for topic, info in found.items()}

    def made(row: LetterRow, letter: DeadLetterRecord) -> Item:
        now = order.clock.now_ms()
        job = _routed(namespace, letter, next_life(letter, row.address, how, now), lanes)
        detail = "from zero" if how.from_zero else "from its checkpoint" if job.carried else "it had saved nothing"
        if how.payload is not None:
            detail += ", with another payload"
        who = (order.by, order.reason)
        record = AuditRecord(REDRIVE, str(row.address), now, *who, job.id, job.life, detail, order.bulk)
        return Item(row, sent_back(namespace, job, order.by, order.reason), noted(namespace, record), job, detail)

    def prepare(part: Sequence[LetterRow]) -> Iterator[Prepared]:
        letters = {row.address: letter for row, letter in read_letters(broker, namespace, part)}
        for row in part:
            letter = letters.get(row.address)
            try:
                if letter is None:
                    raise DeadLetterError(f"dead letter {row.address} is gone: retention took it")
                yield made(row, letter)
            except ProcessorError as error:
                yield row, error

    return prepare


def _routed(namespace: str, letter: DeadLetterRecord, job: Job, lanes: dict[str, int]) -> Job:
    topic = jobs_topic(namespace, job.queue, Lane.DUE)
    if topic not in lanes:
        raise DeadLetterError(
            f"job {job.id}: its queue {job.queue!r} has no topic {topic!r}",
            hint="does an app still declare the queue? Then processor topics apply creates it; "
            f"else processor dlq discard {job.redriven_from}",
        )
    before = job_of(letter)
    assert before is not None
    return job._replace(number=number_of(letter, before, lanes[topic]))


class _Settler:
    """Carries out one order."""

    def __init__(self, broker: Broker, namespace: str, order: Order) -> None:
        self._broker = broker
        self._namespace = namespace
        self._order = order
        self._writer = TransactionWriter(broker, f"{namespace}.dlq.operator", order.clock)
        self._result = Settlement()

    def settle(
        self,
        rows: Sequence[LetterRow],
        made: Callable[[Sequence[LetterRow]], Iterator[Prepared]],
    ) -> Settlement:
        """Steps 1 to 4 of the module, for the letters in their order."""
        clock, result = self._order.clock, self._result
        try:
            left = self._unsettled(rows)
            began = clock.monotonic()
            for part in parts(left, LOADED, LOADED_BYTES):
                items: list[Item] = []
                for item in made(part):
                    if isinstance(item, Item):
                        items.append(item)
                    else:
                        result.refused.append(item)
                        self._order.done(1)
                for batch in parts([item.row for item in items], self._order.batch(BATCH), BATCH_BYTES):
                    chosen = {row.address for row in batch}
                    self._send([item for item in items if item.row.address in chosen])
                    self._order.done(len(batch))
                    self._order.pace(began, result.done)
        except ProducerFenced as error:
            raise DeadLetterError(
                "another redrive or discard of this namespace has begun, or this one stood still for too long",
                hint="what is done is done and is not done twice; run it again for what is still open",
            ) from error
        except BaseException:
            self._writer.abort()
            raise
        finally:
            self._writer.abandon()
        return result

    def _unsettled(self, rows: Sequence[LetterRow]) -> list[LetterRow]:
        """Fence, then look: those that are still as they were chosen; of doubles of one life only the first."""
        self._writer.rebuild()
        settled = settled_letters(self._broker, self._namespace, self._order.seen)
        left: dict[object, LetterRow] = {}
        for row in rows:
            state = settled.state(row.address, row.id, row.life)
            if state is row.state and state is not LetterState.REDRIVEN:
                left.setdefault((row.id, row.life) if row.life else row.address, row)
        self._result.skipped += len(rows) - len(left)
        return list(left.values())

    def _send(self, items: list[Item]) -> None:
        """One batch, until it is committed or what cannot be sent of it is known."""
        tries = 0
        while items:
            if not self._writer.ready:
                items = self._still_open(items)
                continue
            try:
                refused = self._transaction(items)
            except ProducerFenced:
                raise
            except (AbortRequired, ProducerFatal, RetriableBrokerError):
                tries += 1
                if tries == TRIES:
                    raise
                self._writer.abandon()
                continue
            if not refused:
                self._result.done += len(items)
                return
            self._result.refused += [(row, refused[row.address]) for row, *_ in items if row.address in refused]
            items = [item for item in items if item.row.address not in refused]

    def _still_open(self, items: Sequence[Item]) -> list[Item]:
        left = {row.address for row in self._unsettled([item.row for item in items])}
        return [item for item in items if item.row.address in left]

    def _transaction(self, items: Sequence[Item]) -> dict[Address, ProcessorError]:
        """Commit a batch; or what was refused of it, by address: then nothing is committed."""
        creates = [out for item in items for out in item.creates]
        failures = self._writer.write(creates, [item.audit for item in items])
        return _culprits(items, failures) if failures else {}


def _culprits(items: Sequence[Item], failures: Sequence[Failure]) -> dict[Address, ProcessorError]:
    """Whose records were refused, and why."""
    errors = {id(failure.record): failure.error for failure in failures}
    found: dict[Address, ProcessorError] = {}
    for row, creates, audit, *_ in items:
        for out in (*creates, audit):
            if id(out) in errors:
                found[row.address] = errors[id(out)]
    if not found:
        raise failures[0].error
    return found
