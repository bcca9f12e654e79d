"""The producing side: jobs go into their lane, and come back as handles.

An enqueue returns when all in-sync replicas have the record. If that is not confirmed in time, `EnqueueUnconfirmed`
says so with the job's id: the record may be there or not, and the producer may still send it. Nothing is dropped in
silence: what was enqueued without waiting is flushed by `close` and at exit (`exits`), and named if that fails.

After a fork the child must not touch the parent's librdkafka threads (they do not exist there): it forgets them and
opens its own at the next use. What the parent had not sent yet is the parent's to send.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from processor import events
from processor.broker.base import Broker, BulkProducer, OutRecord
from processor.broker.partitioner import partition_for
from processor.broker.reach import until as gives_up_at
from processor.broker.reach import within
from processor.client import exits
from processor.client.backlog import PASS, BacklogGates, Limit
from processor.client.config import ClientConfig as ClientConfig
from processor.client.config import Pause
from processor.client.critical import Reliability
from processor.client.interrupts import told_in_one_line
from processor.client.orders import cancelling, give
from processor.client.outlet import Outlet, Ticket, failure_of, id_of
from processor.client.outlet import keep_for_ever as keep_for_ever
from processor.client.status import StatusTail
from processor.client.track import Track
from processor.clock import Clock, SystemClock
from processor.core.forwarding import on_its_way
from processor.core.idempotency import WINDOW
from processor.errors import BrokerError, EnqueueError, EnqueueUnconfirmed, ProcessorError, RecordRefused
from processor.identity import operator
from processor.job import Job, Lane
from processor.texts import message_of
from processor.wire.codec import encode
from processor.wire.headers import routing_headers
from processor.wire.records import StatusRecord
from processor.wire.topics import jobs_topic, status_topic

_log = events.logger(__name__)
_SLICE = 0.01
_STATUS_PATIENCE = 60.0
"""Seconds until the status topic is tried again before an enqueue, once it could not be asked."""
CHUNK = 20_000
"""Records of one `send_many` that are confirmed together."""


class Client:
    """Sends jobs of one namespace and reads their status. Thread-safe; opens the broker at its first use."""

    def __init__(
        self,
        config: ClientConfig,
        open_broker: Callable[[], Broker],
        *,
        clock: Clock | None = None,
        pause: Pause = threading.Event.wait,
        limit_of: Callable[[str], Limit | None] = lambda queue: None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self._open_broker = open_broker
        self._pause = pause
        self._limit_of = limit_of
        self._reset()
        exits.watch(self)

    @property
    def namespace(self) -> str:
        """Whose jobs it sends."""
        return self.config.namespace

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._outlet: Outlet | None = None
        self._bulk: BulkProducer | None = None
        self._sending_many = threading.Lock()
        """A bulk producer serves one stream at a time."""
        self._unconfirmed: Sequence[str] = ()
        """Of a stream, the ids of the chunk whose confirmation did not come."""
        self._topics: dict[tuple[str, Lane], str] = {}
        self._numbers: dict[str, int] = {}
        """Partitions of queues."""
        self._tail: StatusTail | None = None
        self._failed: dict[str, str] = {}
        self._reliability: Reliability | None = None
        self._no_status_before = -math.inf
        self.gates = BacklogGates(self.namespace, self.broker, self.clock, self._limit_of, lambda: self._settle())
        """The limits of its queues."""

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(
        self,
        job: Job,
        lane: Lane,
        *,
        derived: bool = False,
        wait: bool = True,
        until: str | None = None,
        patience: float | None = None,
        missed: Callable[[], None] | None = None,
    ) -> None:
        """Append a job to its lane.

        Args:
            job: the job.
            lane: of its queue.
            derived: whether its id may have been sent before.
            wait: for the acknowledgement.
            until: how long its idempotency key keeps others out, if it has one.
            patience: seconds to wait for it; None: `enqueue_timeout`.
            missed: is called if it turns out that the record did not arrive, and `close` does not name it.

        Raises:
            EnqueueUnconfirmed: not acknowledged in time; sending it again with its id is safe.
            EnqueueError: the broker can never take this record.
        """
        record = self.record(job, lane, derived=derived, until=until)
        ticket = Ticket(job.id, missed)
        outlet = self._opened()
        outlet.pending[ticket] = None
        outlet.producer.append(record, lambda error: self._delivered(outlet, ticket, error))
        if wait:
            self._confirm(outlet, ticket, self.config.enqueue_timeout if patience is None else patience)
        elif outlet is not self._outlet or exits.begun():
            # The producer was closed meanwhile, or the process ends: perhaps nobody flushes behind this record.
            self._confirm(outlet, ticket, self.config.close_timeout)

    def send_many(self, jobs: Iterable[tuple[Job, Lane, bool, str | None]], when_full: str | None = None) -> int:
        """Append a stream of (job, lane, derived, until); how many there were, when all are confirmed.

        Confirmed by the `CHUNK`: of one that fails it is known which are confirmed, and which may not be.

        Raises:
            EnqueueUnconfirmed, EnqueueError: as `send`; the chunks before are confirmed, `ids` names what is not.
            QueueFull: the jobs before are confirmed.
        """
        count = 0
        ids: list[str] = []
        with self._sending_many:
            producer = self._bulk_opened()
            try:
                for job, lane, derived, until in jobs:
                    if when_full != PASS:
                        if ids and self.gates.looks_next(job.queue):
                            sent, ids = ids, []
                            self._confirm_many(producer, sent)
                            count += len(sent)
                        self.gates.admit(job.queue, when_full)
                    producer.append(self.record(job, lane, derived=derived, until=until))
                    ids.append(job.id)
                    if len(ids) >= CHUNK:
                        self._confirm_many(producer, ids)
                        count += len(ids)
                        ids = []
            finally:
                # Also when the stream itself raises: what it gave before is confirmed.
                if ids:
                    sent, ids = ids, []
                    self._confirm_many(producer, sent)
                    count += len(sent)
        return count

    def _confirm_many(self, producer: BulkProducer, ids: Sequence[str]) -> None:
        self._unconfirmed = ids
        left, refused = producer.flush(self.config.enqueue_timeout)
        if not left:
            self._unconfirmed = ()
        if left or refused:
            raise failure_of(ids, left, refused, f"{self.config.enqueue_timeout:g} s{self._whom()}")

    def _bulk_opened(self) -> BulkProducer:
        if self._bulk is None:
            with self._lock:
                self._bulk = self.new_bulk()
        return self._bulk

    def new_bulk(self) -> BulkProducer:
        """A producer of many records, for whoever closes it."""
        exits.guard()
        return self.broker().bulk_producer()

    def record(self, job: Job, lane: Lane, *, derived: bool, until: str | None) -> OutRecord:
        """A job as it is sent to its lane, or to the retry chain if it is delayed (EnqueueError: there is no queue)."""
        if job.due_at is not None:
            numbered = job._replace(number=self._number_of(job))
            return on_its_way(self.config.namespace, numbered, job.due_at, self.clock.now_ms(), until)
        topic = self._topics.get((job.queue, lane))
        if topic is None:
            topic = self._topics[job.queue, lane] = jobs_topic(self.config.namespace, job.queue, lane)
        key = (job.id if job.key is None else job.key).encode()
        return OutRecord(topic, key, encode(job), routing_headers(job, derived=derived, until=until))

    @property
    def reliability(self) -> Reliability:
        """Its critical and non-critical enqueues."""
        if self._reliability is None:
            with self._lock:
                if self._reliability is None:
                    self._reliability = Reliability(self, self.config.spool_dir, self.config.critical_timeout)
        return self._reliability

    def _settle(self) -> None:
        """See that what was sent one by one is in the log."""
        outlet = self._outlet
        if outlet is not None and outlet.pending:
            outlet.producer.flush(self.config.enqueue_timeout)

    def _whom(self) -> str:
        """Of a cluster that says nothing at all: what to look at."""
        trouble = "" if self._broker is None else self._broker.trouble
        return f"; {trouble}" if trouble else ""

    def _number_of(self, job: Job) -> int:
        """The partition number of a job that does not go into its lane at once.

        Raises:
            EnqueueError: its queue has no topic.
        """
        count = self._numbers.get(job.queue)
        if count is None:
            topic = jobs_topic(self.config.namespace, job.queue)
            found = self.broker().admin().topics([topic]).get(topic)
            if found is None:
                raise EnqueueError(f"queue {job.queue} has no topic {topic}", hint="processor topics apply")
            count = self._numbers[job.queue] = found.partitions
        return partition_for((job.id if job.key is None else job.key).encode(), count)

    def _delivered(self, outlet: Outlet, ticket: Ticket, error: BrokerError | None) -> None:
        ticket.error = error
        outlet.pending.pop(ticket, None)
        if error is not None and ticket.missed is not None:
            ticket.missed()
        elif error is not None:
            self._failed[ticket.id] = str(error)
            _log.error("client.job.not_sent", extra={"job_id": ticket.id, "error": str(error)})
        ticket.done.set()

    def _confirm(self, outlet: Outlet, ticket: Ticket, timeout: float) -> None:
        """Wait for the acknowledgement: some producers report on their own thread, some only when polled."""
        deadline = self.clock.monotonic() + timeout
        producer = outlet.producer
        producer.poll(0)
        while not ticket.done.is_set():
            left = deadline - self.clock.monotonic()
            if left <= 0 or time.monotonic() >= gives_up_at():
                ticket.told = True
                raise EnqueueUnconfirmed(ticket.id, f"no acknowledgement within {timeout:g} s{self._whom()}")
            with told_in_one_line(f"job {ticket.id} is not confirmed; enqueue it again with this id"):
                self._pause(ticket.done, min(left, _SLICE))
                producer.poll(0)
        if ticket.error is None:
            return
        self._failed.pop(ticket.id, None)  # the caller hears of it now
        if isinstance(ticket.error, RecordRefused):
            raise EnqueueError(
                f"job {ticket.id} was refused: {ticket.error}", hint="do the topics exist? processor topics apply"
            ) from ticket.error
        raise EnqueueUnconfirmed(ticket.id, str(ticket.error)) from ticket.error

    def cancel(self, job_id: str, status: StatusRecord | None, reason: str) -> bool:
        """Order that a job be cancelled, whose latest status is this; False: it has ended.

        Raises:
            BrokerError: the order was not confirmed; giving it again is harmless.
        """
        order = cancelling(job_id, status, by=operator(), reason=message_of(reason, 500), now_ms=self.clock.now_ms())
        if order is None:
            return False
        give(self._opened().producer, self.config.namespace, order, self.config.enqueue_timeout)
        return True

    # -- asking ----------------------------------------------------------------------------------------------------

    def tail(self) -> StatusTail:
        """The shared reader of the status topic."""
        with self._lock:
            if self._tail is None:
                self._tail = StatusTail(self.broker, status_topic(self.config.namespace), self.clock)
            return self._tail

    def track(self, job: Job, *, repeats: bool, until: str | None) -> Track | None:
        """A track of a job about to be enqueued; None: the handle asks later, and reads from the topic's beginning.

        That is so if the status topic cannot be asked, and of an id that repeats: it may have a status from before.
        What a key's job came to longer ago than the key keeps others out is told of no later one.
        """
        if (repeats and until is None) or self.clock.monotonic() < self._no_status_before:
            return None
        try:
            # Half of the time is the record's own.
            with within(self.config.enqueue_timeout / 2):
                return self._track(job, until)
        except ProcessorError as error:
            self._no_status_before = self.clock.monotonic() + _STATUS_PATIENCE
            _log.info("client.status.unavailable", extra={"job_id": job.id, "error": str(error)})
            return None

    def _track(self, job: Job, until: str | None) -> Track:
        tail = self.tail()
        if until is not None:
            track = tail.track(job.id)
            window = round(self.config.dedupe_window * 1000) if until == WINDOW else 0
            track.forget_before(job.enqueued_at - window)
            return track
        tail.sample()
        return tail.track(job.id, None)

    # -- opening and closing ---------------------------------------------------------------------------------------

    def broker(self) -> Broker:
        if self._broker is None:
            self._broker = self._open_broker()
        return self._broker

    def _opened(self) -> Outlet:
        outlet = self._outlet
        if outlet is None:
            with self._lock:
                outlet = self._outlet
                if outlet is None:
                    exits.guard()
                    outlet = self._outlet = Outlet(self.broker().producer())
        return outlet

    def pending(self) -> Sequence[Ticket]:
        """What is not confirmed yet, but for what is being sent in bulk."""
        outlet = self._outlet
        return () if outlet is None else list(outlet.pending)

    def flush(self, timeout: float) -> list[str]:
        """Wait for acknowledgements; ids of the jobs that have none yet, or were refused since the last flush."""
        return self._flush(self._outlet, self._bulk, timeout)

    def _flush(self, outlet: Outlet | None, bulk: BulkProducer | None, timeout: float) -> list[str]:
        if outlet is not None:
            outlet.producer.flush(outlet.patience(timeout))
            outlet.producer.poll(0)
        many: Sequence[str] = ()
        if bulk is not None and self._unconfirmed:
            left, refused = bulk.flush(timeout)
            many = self._unconfirmed if left else [id_of(record) for record, _ in refused]
            self._unconfirmed = many if left else ()
        failed, self._failed = self._failed, {}
        tickets = [] if outlet is None else list(outlet.pending)
        for ticket in tickets:
            if ticket.missed is not None:
                ticket.missed()
        return [*failed, *(ticket.id for ticket in tickets if ticket.missed is None), *many]

    @told_in_one_line("what was enqueued without waiting is perhaps not sent")
    def close(self) -> list[str]:
        """Flush and let go of the connections; ids of the jobs that may not have been sent. Using it again reopens.

        1. Let nobody begin with what is open: who enqueues meanwhile opens anew, or waits. 2. Flush. 3. Close."""
        self.gates.close()
        reliability, self._reliability = self._reliability, None
        if reliability is not None:
            reliability.close()
        outlet, tail, bulk = self._outlet, self._tail, self._bulk
        self._outlet = self._tail = self._bulk = None
        try:
            left = self._flush(outlet, bulk, self.config.close_timeout)
        except BrokerError as error:
            _log.error("client.flush.failed", extra={"error": str(error)})
            left = [] if outlet is None else [ticket.id for ticket in list(outlet.pending)]
        self._unconfirmed = ()
        if bulk is not None:
            bulk.close()
        if tail is not None:
            tail.close()
        if outlet is not None:
            outlet.producer.close()
        self._broker = None
        return left

    def forget_after_fork(self) -> None:
        """In the child of a fork: leave the parent's connections alone, for ever, and begin anew."""
        if self._reliability is not None:
            self._reliability.forget()
        for inherited in (self._outlet, self._bulk, self._tail, self._broker):
            keep_for_ever(inherited)
        self._reset()


def _after_fork_in_child() -> None:
    for client in exits.watched():
        client.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
