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

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from processor.admin.dead_letters import LetterRow, read_letters, settled_letters
from processor.broker.base import Broker, Failure, OutRecord, TransactionalProducer
from processor.clock import Clock, SystemClock
from processor.core.audit import DISCARD, REDRIVE, noted
from processor.core.redrive import Address, LetterState, Redrive, job_of, next_life, number_of, sent_back
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    DeadLetterError,
    ProcessorError,
    ProducerFatal,
    ProducerFenced,
    RetriableBrokerError,
)
from processor.job import Job, Lane
from processor.wire.records import AuditRecord, DeadLetterRecord
from processor.wire.topics import jobs_topic, parse_topic

Done = TypeVar("Done")

BATCH = 100
"""Letters of one transaction at most."""
BATCH_BYTES = 8_000_000
LOADED = 1000
"""Letters that are read at a time at most."""
LOADED_BYTES = 32_000_000
CALL = 5.0
"""Seconds one call to the broker may take before it is made again."""
PATIENCE = 60.0
"""Seconds after which a broker that does not answer is given up."""
TRIES = 5
"""Times that a batch is sent before its error is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who wants it, why, and how fast."""

    by: str
    """`user@host`."""
    reason: str = ""
    rate: float | None = None
    """Letters a second at most."""
    pause: Callable[[float], object] = time.sleep
    clock: Clock = field(default_factory=SystemClock)
    done: Callable[[int], object] = lambda count: None
    """Told how many more letters are through, after each batch."""


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
    for part in _parts(rows, LOADED, LOADED_BYTES):
        yield from prepare(part)


def discard_letters(broker: Broker, namespace: str, rows: Sequence[LetterRow], order: Order) -> Settlement:
    """Note that these letters need nothing more. They stay where they are; a later redrive by address is possible.

    Raises as `redrive_letters`.
    """

    def made(part: Sequence[LetterRow]) -> Iterator[Prepared]:
        for row in part:
            facts = (str(row.address), order.clock.now_ms(), order.by, order.reason, row.id, row.life)
            yield Item(row, [], noted(namespace, AuditRecord(DISCARD, *facts)))

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
        record = AuditRecord(REDRIVE, str(row.address), now, order.by, order.reason, job.id, job.life, detail)
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
        self._producer: TransactionalProducer | None = None
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
            for part in _parts(left, LOADED, LOADED_BYTES):
                items: list[Item] = []
                for item in made(part):
                    if isinstance(item, Item):
                        items.append(item)
                    else:
                        result.refused.append(item)
                        self._order.done(1)
                for batch in _parts([item.row for item in items], self._batch, BATCH_BYTES):
                    chosen = {row.address for row in batch}
                    self._send([item for item in items if item.row.address in chosen])
                    self._order.done(len(batch))
                    self._pace(began)
        except ProducerFenced as error:
            raise DeadLetterError(
                "another redrive or discard of this namespace has begun, or this one stood still for too long",
                hint="what is done is done and is not done twice; run it again for what is still open",
            ) from error
        except BaseException:
            # An open transaction would hide what others write to the same lanes until it times out.
            if self._producer is not None:
                with contextlib.suppress(BrokerError):
                    self._producer.abort(CALL)
            raise
        finally:
            self._abandon()
        return result

    @property
    def _batch(self) -> int:
        rate = self._order.rate
        return BATCH if rate is None else max(1, min(BATCH, int(rate)))

    def _pace(self, began: float) -> None:
        if self._order.rate is not None:
            wait = began + self._result.done / self._order.rate - self._order.clock.monotonic()
            if wait > 0:
                self._order.pause(wait)

    def _unsettled(self, rows: Sequence[LetterRow]) -> list[LetterRow]:
        """Fence, then look: those that are still as they were chosen; of doubles of one life only the first."""
        self._rebuild()
        settled = settled_letters(self._broker, self._namespace)
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
            if self._producer is None or self._producer.disturbed:
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
                self._abandon()
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
        producer = self._producer
        assert producer is not None
        producer.begin()
        for records in ([out for item in items for out in item.creates], [item.audit for item in items]):
            producer.append(records, watch=True)
            acks = self._patiently(lambda: producer.wait_acks(CALL))
            if acks.failures:
                self._abandon()
                return _culprits(items, acks.failures)
        self._patiently(lambda: producer.commit(CALL))
        return {}

    def _patiently(self, call: Callable[[], Done]) -> Done:
        """The same call again while the broker is only slow. A commit is never aborted because it timed out."""
        deadline = self._order.clock.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except (RetriableBrokerError, BrokerUnavailable) as error:
                if self._order.clock.monotonic() >= deadline:
                    raise BrokerUnavailable(
                        f"Kafka has not taken the batch within {PATIENCE:.0f} s: {error}",
                        hint="run it again: what is done is not done twice",
                    ) from error

    def _abandon(self) -> None:
        """After an abort only a new producer is safe: it ends what this one left open."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _rebuild(self) -> None:
        self._abandon()
        deadline = self._order.clock.monotonic() + PATIENCE
        while True:
            producer = self._broker.transactional_producer(f"{self._namespace}.dlq.operator")
            try:
                producer.init(CALL)
            except BaseException as error:
                # It would go on trying by itself, and fence whoever comes next.
                producer.close()
                passing = isinstance(error, BrokerError) and not isinstance(error, BrokerRefused | ProducerFenced)
                if not passing or self._order.clock.monotonic() >= deadline:
                    raise
                continue
            self._producer = producer
            return


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


def _parts(rows: Sequence[LetterRow], count: int, size: int) -> Iterator[list[LetterRow]]:
    """Rows in parts of at most so many, and so many bytes (a larger one goes alone)."""
    part: list[LetterRow] = []
    taken = 0
    for row in rows:
        if part and (len(part) == count or taken + row.size > size):
            yield part
            part, taken = [], 0
        part.append(row)
        taken += row.size
    if part:
        yield part
