"""One operator's transactions: each all or nothing, and only by whoever began last.

The writer holds a transactional id that names what it does. Whoever holds it next fences this one, dead or alive, and
ends what it left open; so what is read after `rebuild` cannot be changed by a predecessor any more. A writer that was
disturbed, or that gave a transaction up, is built anew before the next one: a frame of the old one may still be on its
way (librdkafka issue #5423).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from processor.broker.base import Broker, Failure, OutRecord, TopicPartition, TransactionalProducer
from processor.clock import Clock, SystemClock
from processor.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ProducerFenced,
    RetriableBrokerError,
)

Done = TypeVar("Done")

CALL = 5.0
"""Seconds one call to the broker may take before it is made again."""
PATIENCE = 60.0
"""Seconds after which a broker that does not answer is given up."""
TRIES = 5
"""Times that a batch is sent before its error is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who wants something sent, why, and how fast."""

    by: str
    """`user@host`."""
    reason: str = ""
    bulk: str = ""
    """Id of the bulk action that it is part of."""
    seen: Mapping[TopicPartition, int] | None = None
    """Next offsets of the audit topic up to which the letters' states are known to be as they were chosen, which keeps
    a long run of batches from reading it whole each time; None: nothing is known of it.
    """
    rate: float | None = None
    """Jobs a second at most."""
    pause: Callable[[float], object] = time.sleep
    clock: Clock = field(default_factory=SystemClock)
    done: Callable[[int], object] = lambda count: None
    """Told how many more are through, after each batch."""

    def batch(self, most: int) -> int:
        """How many go into one transaction: no more than one second's."""
        return most if self.rate is None else max(1, min(most, int(self.rate)))

    def pace(self, began: float, done: int) -> None:
        """Wait until so many may be done. `began`: monotonic seconds."""
        if self.rate is not None:
            wait = began + done / self.rate - self.clock.monotonic()
            if wait > 0:
                self.pause(wait)


class Sized(Protocol):
    """Something that takes room in memory and in a transaction."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...


Row = TypeVar("Row", bound=Sized)


def parts(rows: Sequence[Row], count: int, size: int) -> Iterator[list[Row]]:
    """Rows in parts of at most so many, and so many bytes (a larger one goes alone)."""
    part: list[Row] = []
    taken = 0
    for row in rows:
        if part and (len(part) == count or taken + row.size > size):
            yield part
            part, taken = [], 0
        part.append(row)
        taken += row.size
    if part:
        yield part


class TransactionWriter:
    """Writes batches under one transactional id. Used by one thread."""

    def __init__(self, broker: Broker, transactional_id: str, clock: Clock) -> None:
        self._broker = broker
        self._transactional_id = transactional_id
        self._clock = clock
        self._producer: TransactionalProducer | None = None

    @property
    def ready(self) -> bool:
        """Whether the next batch may be written; else `rebuild`, and look again at what is left to do."""
        return self._producer is not None and not self._producer.disturbed

    def rebuild(self) -> None:
        """A new producer: it fences whoever held the id before, and ends what was left open.

        Raises:
            ProducerFenced: a successor did so with this one.
            BrokerError: the broker has not answered within 60 s, or refuses.
        """
        self.abandon()
        deadline = self._clock.monotonic() + PATIENCE
        while True:
            producer = self._broker.transactional_producer(self._transactional_id)
            try:
                producer.init(CALL)
            except BaseException as error:
                # It would go on trying by itself, and fence whoever comes next.
                producer.close()
                passing = isinstance(error, BrokerError) and not isinstance(error, BrokerRefused | ProducerFenced)
                if not passing or self._clock.monotonic() >= deadline:
                    raise
                continue
            self._producer = producer
            return

    def write(self, creates: Sequence[OutRecord], announces: Sequence[OutRecord]) -> Sequence[Failure]:
        """Commit a batch: first what creates, and once that is acknowledged what announces.

        Returns:
            What the broker refused: then nothing is committed.

        Raises:
            BrokerError: as `TransactionalProducer`; after a passing one the batch may be written again.
        """
        producer = self._producer
        assert producer is not None
        producer.begin()
        for records in (creates, announces):
            producer.append(records, watch=True)
            acks = self._patiently(lambda: producer.wait_acks(CALL))
            if acks.failures:
                self.abandon()
                return acks.failures
        self._patiently(lambda: producer.commit(CALL))
        return ()

    def abort(self) -> None:
        """Give up what is open: it would hide what others write to the same lanes until it times out."""
        if self._producer is not None:
            with contextlib.suppress(BrokerError):
                self._producer.abort(CALL)

    def abandon(self) -> None:
        """After an abort only a new producer is safe: it ends what this one left open."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _patiently(self, call: Callable[[], Done]) -> Done:
        """The same call again while the broker is only slow. A commit is never aborted because it timed out."""
        deadline = self._clock.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except (RetriableBrokerError, BrokerUnavailable) as error:
                if self._clock.monotonic() >= deadline:
                    raise BrokerUnavailable(
                        f"Kafka has not taken the batch within {PATIENCE:.0f} s: {error}",
                        hint="run it again: what is done is not done twice",
                    ) from error
