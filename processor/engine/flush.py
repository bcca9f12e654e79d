"""One flush: everything its jobs cause inside Kafka, in one transaction, on the flusher's thread, over a frozen batch.

The owning thread freezes a batch and posts it; the flusher answers with the same batch and how it went. One at a time.
A cluster that fails over stalls a commit for many seconds (measured: 9 to 13 s when a broker is killed): that must not
stop polling, cancelling or stopping, hence a thread of its own.

The transaction is the second line of defence (librdkafka issue #5423: it speaks the old transaction protocol, and a
delayed frame can commit or abort the *next* transaction). The first line is the order of the records below, and a new
producer epoch after every abort and every disturbed connection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from processor import events
from processor.broker.base import (
    Acks,
    Broker,
    Failure,
    OutRecord,
    TransactionalProducer,
)
from processor.engine.batch import C, FlushBatch, FlushResult
from processor.engine.producers import initialised
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerUnavailable,
    ProducerFatal,
    ProducerFenced,
    RetriableBrokerError,
)
from processor.runtime import Inbox, Runtime, serve
from processor.texts import message_of

_R = TypeVar("_R")

log = events.logger(__name__)

INIT_PATIENCE = (0.12, 0.12, 0.12, 0.25, 0.5)
"""Seconds that the first producers are given to initialise before a fresh one tries."""
CALL_TIMEOUT = 10.0
"""Seconds one call may take before it is called again; a commit is never aborted because it timed out."""
STUCK_AFTER = CALL_TIMEOUT + 3.0
"""Seconds after which a call counts as one that never returns. librdkafka 2.16 has such: `send_offsets_to_transaction`
under way when the only broker was killed and restarted had not returned after 90 s, whatever timeout it was given.
"""
UNWANTED_AFTER = 2.0
"""The same for a batch whose numbers were all lost meanwhile: it is refused in any case, and its open transaction holds
up whoever restores them.
"""


class Flusher(Generic[C]):
    """The owner of the transactional producer, on a thread of its own."""

    def __init__(
        self,
        runtime: Runtime,
        broker: Broker,
        transactional_id: str,
        reply: Callable[[FlushResult[C]], None],
        name: str = "flusher",
    ) -> None:
        self._runtime = runtime
        self._name = name
        self._broker = broker
        self._transactional_id = transactional_id
        self._reply = reply
        self._requests: Inbox[FlushBatch[C] | None] = Inbox(runtime)
        self._producer: TransactionalProducer | None = None
        self._abandoned = False
        self._left_behind = False
        self._batch: FlushBatch[C] | None = None
        """The one under way."""
        self._group = ""
        """The one whose offsets are being sent."""
        self._calling_since: float | None = None
        """When the call under way began (monotonic seconds)."""
        self.rebuilds: Counter[str] = Counter()
        """Causes of producer rebuilds, for the metrics."""
        self._actor = runtime.start(name, self._run)

    def prepare(self) -> None:
        """Initialise the producer before anything is owned: that ends what a predecessor in this slot left open, so a
        restore need not wait for it. Answered like a batch without parts.
        """
        self._requests.post(_nothing())

    def submit(self, batch: FlushBatch[C]) -> None:
        """Hand over one batch; wait for its result before the next."""
        self._requests.post(batch)

    def stop(self, timeout: float) -> bool:
        """End the thread; whether it ended in time. A call that hangs inside librdkafka is left behind."""
        self._abandoned = True
        self._requests.post(None)
        return self._actor.join(timeout)

    def is_stuck(self, now: float) -> bool:
        """Whether the call under way is not worth waiting for any longer, at `now` (monotonic seconds)."""
        since = self._calling_since
        if since is None or now - since <= UNWANTED_AFTER:
            return False
        parts = self._batch.parts if self._batch else []
        wanted = not parts or any(part.wanted for part in parts)
        return now - since > STUCK_AFTER or not wanted

    def replaced(self) -> tuple[Flusher[C], FlushResult[C]]:
        """A flusher in place of this one, which is stuck: its thread and its producer are left behind.

        Whether the batch was committed is not known. It counts as failed: what is in the log already changes nothing
        when it is written again, and the new producer's epoch fences whatever the old one still sends.
        """
        self._left_behind = self._abandoned = True
        self._requests.post(None)
        successor: Flusher[C] = Flusher(self._runtime, self._broker, self._transactional_id, self._reply, self._name)
        successor.rebuilds = self.rebuilds
        successor.rebuilds["stuck"] += 1
        batch = self._batch or _nothing()
        waited = self._runtime.clock.monotonic() - (self._calling_since or 0.0)
        error = ProducerFatal(f"the producer has not come back from a call for {waited:.1f} s")
        log.error("flush.stuck", extra={"seconds": round(waited, 1), "records": batch.records})
        return successor, FlushResult(batch=batch, error=error)

    def _run(self) -> None:
        try:
            serve(self._requests, self._serve)
        finally:
            self._drop_producer()

    def _serve(self, batch: FlushBatch[C]) -> None:
        self._batch = batch
        result = self._flush_timed(batch)
        if not self._left_behind:
            self._reply(result)

    def _flush_timed(self, batch: FlushBatch[C]) -> FlushResult[C]:
        began = self._runtime.clock.monotonic()
        self._group = ""
        try:
            acks = self._flush(batch) if batch.parts else self._prepared()
            result = FlushResult(batch=batch, acks=acks)
        except BrokerError as error:
            result = FlushResult(batch=batch, error=error, group=self._group, acks=self._after_failure(error))
        except Exception as error:
            # Nobody else would wake the owner: it would wait for this flush for ever.
            log.exception("flush.internal_error")
            failure = AbortRequired(f"{type(error).__name__}: {message_of(error)}")
            result = FlushResult(batch=batch, error=failure, acks=self._after_failure(failure), internal=True)
        result.seconds = self._runtime.clock.monotonic() - began
        return result

    def _prepared(self) -> Acks:
        self._ready_producer()
        return Acks()

    def _flush(self, batch: FlushBatch[C]) -> Acks:
        """The numbered flush (design, section 4). Step 1, freezing, was done by the owner.

        2. Begin; what creates; wait for its acks; only then what announces or destroys; and once that is acknowledged,
           the marks that say what is done for good.
        3. The offsets of every number touched, moved or not, group by group: they are the fence.
        4. Commit.
        """
        producer = self._ready_producer()
        producer.begin()
        creates = [record for part in batch.parts for record in part.creates]
        if batch.watch_all:
            producer.append(creates, watch=True)
        else:
            self._append_creates(producer, batch)
        acks = Acks()
        if creates:
            acks = self._again(producer.wait_acks)
            self._refuse(acks.failures)
        announces = [record for part in batch.parts for record in part.announces]
        producer.append(announces, watch=batch.watch_all)
        seals = [record for part in batch.parts for record in part.seals]
        if seals or batch.watch_all:
            self._refuse(self._again(producer.wait_acks).failures)
        if seals:
            producer.append(seals, watch=batch.watch_all)
            if batch.watch_all:
                self._refuse(self._again(producer.wait_acks).failures)
        for self._group, membership in batch.memberships.items():
            offsets = [commit for part in batch.parts if part.group == self._group for commit in part.offsets]
            self._again(partial(producer.send_offsets, offsets, self._group, membership))
        self._group = ""
        self._again(producer.commit)
        return acks

    def _append_creates(self, producer: TransactionalProducer, batch: FlushBatch[C]) -> None:
        """Append what creates; watch the last record of a topic where a part wants to know where it ends."""
        for part in batch.parts:
            creates = part.creates
            last = _last_index(creates, part.watched) if part.watched else None
            if last is None:
                producer.append(creates)
                continue
            producer.append(creates[:last])
            producer.append(creates[last : last + 1], watch=True)
            producer.append(creates[last + 1 :])

    def _again(self, call: Callable[[float], _R]) -> _R:
        """Repeat a call that timed out or met a passing fault, until it has an answer or the worker is stopped."""
        while True:
            try:
                return self._timed(lambda: call(CALL_TIMEOUT))
            except (RetriableBrokerError, BrokerUnavailable) as error:
                if self._abandoned:
                    raise
                log.warning("flush.retrying", extra={"error": str(error)})

    def _timed(self, call: Callable[[], _R]) -> _R:
        """Make a call that the owner may find stuck."""
        self._calling_since = self._runtime.clock.monotonic()
        try:
            return call()
        finally:
            self._calling_since = None

    def _ready_producer(self) -> TransactionalProducer:
        """The producer, rebuilt if anything happened to its connections since the last begin."""
        if self._producer is not None and self._producer.disturbed:
            self._rebuild("disconnect")
        if self._producer is None:
            self._producer = self._initialised()
        return self._producer

    def _initialised(self) -> TransactionalProducer:
        """A producer whose predecessor's open transaction, if there was one, is over.

        The first try begins to end it, and is told to try again; librdkafka does so after half a second, whatever its
        settings say. A fresh producer asks at once (measured after kill -9: 0.2 to 0.5 s against 0.5 to 1.2 s).
        """
        for patience in INIT_PATIENCE:
            try:
                return self._timed(partial(initialised, self._broker, self._transactional_id, patience))
            except (RetriableBrokerError, BrokerUnavailable):
                if self._abandoned:
                    raise
        producer = self._producer = self._broker.transactional_producer(self._transactional_id)
        self._again(producer.init)
        return producer

    def _after_failure(self, error: BrokerError) -> Acks:
        """Abort what is open and let the producer go: a new epoch comes before the next begin, after every abort."""
        log.warning("flush.failed", extra={"error": str(error), "error_code": error.code})
        producer = self._producer
        if producer is None:
            return Acks()
        if not isinstance(error, ProducerFatal):
            try:
                self._timed(partial(producer.abort, CALL_TIMEOUT))
            except BrokerError as abort_error:
                # The successor epoch's init aborts it; nothing is lost by going on.
                log.info("flush.abort_failed", extra={"error": str(abort_error)})
        self._rebuild(_cause(error))
        return error.acks if isinstance(error, _Refused) else Acks()

    def _rebuild(self, cause: str) -> None:
        self.rebuilds[cause] += 1
        self._drop_producer()

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _refuse(self, failures: Sequence[Failure]) -> None:
        if failures:
            raise _Refused(failures)


def _nothing() -> FlushBatch[Any]:
    """A batch without parts: it only makes the producer ready."""
    return FlushBatch(parts=[], memberships={})


def _cause(error: BrokerError) -> str:
    """Why the producer is rebuilt, as the metric has it."""
    if isinstance(error, ProducerFenced):
        return "fenced"
    return "fatal" if isinstance(error, ProducerFatal) else "abort"


class _Refused(AbortRequired):
    """The broker will never take some of the records."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__(f"{len(failures)} records refused: {failures[0].error}")
        self.acks = Acks(failures=failures)


def _last_index(records: Sequence[OutRecord], topic: str) -> int | None:
    for index in range(len(records) - 1, -1, -1):
        if records[index].topic == topic:
            return index
    return None
