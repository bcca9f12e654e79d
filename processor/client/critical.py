"""How much an enqueue may fail: critical jobs never do in silence, non-critical ones never trouble their caller.

`critical=True`: if the log cannot be reached, the enqueue says so within seconds, or keeps the job in a local file
(`processor.client.spool`) that is sent when the log is back. `critical=False` is the only mode that may drop a job: it
does not wait, raises nothing that comes from the log, and counts what could not be sent. None, the default, waits for
the log as long as `client.enqueue_timeout` says, and raises.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from processor import events
from processor.broker.base import Broker, BulkProducer, OutRecord
from processor.client.backlog import BacklogGates
from processor.client.config import ClientConfig
from processor.client.outlet import failure_of, keep_for_ever
from processor.client.spool import Spool, Spooled
from processor.errors import BrokerError, EnqueueError, EnqueueUnconfirmed, ProcessorError
from processor.job import Job, Lane

log = events.logger(__name__)

_SLICE = 0.1
_LAST_WAIT = 2.0
"""Seconds that a close gives the spool's jobs that are on their way, if the log answers."""
MOST_WAITING = 10_000
"""Jobs on their way beyond which a non-critical one is dropped: the local buffer is bounded, and nobody waits."""


class LogUnreachable(EnqueueError):
    """No broker answers: the critical job was not enqueued. Keep the wish, and enqueue it again."""

    code = "log_unreachable"


class SpoolFailed(EnqueueError):
    """No broker answers, and the critical job could not be kept in the spool file either: it was not enqueued."""

    code = "spool_failed"


class Sender(Protocol):
    """The client, as its critical and non-critical enqueues need it."""

    config: ClientConfig
    gates: BacklogGates

    @property
    def namespace(self) -> str: ...
    @property
    def reliability(self) -> Reliability:
        """Those of the client as it is open now: other ones after it was closed."""
        ...

    def broker(self) -> Broker: ...
    def pending(self) -> Sequence[object]:
        """What is not confirmed yet."""
        ...

    def new_bulk(self) -> BulkProducer:
        """A producer of many records, for whoever closes it."""
        ...

    def record(self, job: Job, lane: Lane, *, derived: bool, until: str | None) -> OutRecord:
        """A job as it is sent (EnqueueError: there is no queue)."""
        ...

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
        """Append a job to its lane. Raises as `Client.send`."""
        ...


class Reliability:
    """The critical and non-critical enqueues of one client. Thread-safe."""

    def __init__(self, client: Sender, folder: str, patience: float) -> None:
        self._client = client
        self._patience = patience
        self._lock = threading.Lock()
        self.not_sent: Counter[str] = Counter()
        """Non-critical jobs that were dropped, by job type."""
        self._producer: BulkProducer | None = None
        """Of the spool's thread."""
        self._spool = Spool(Path(folder), client.namespace, self._send) if folder else None
        if self._spool is not None:
            self._spool.open()

    def send_critical(self, job: Job, lane: Lane, *, derived: bool, until: str | None) -> None:
        """The job is in the log, or in the spool file, when this returns.

        Raises:
            LogUnreachable: no broker answers, and there is no spool.
            EnqueueUnconfirmed: as `Client.send`, and there is no spool.
            EnqueueError: the broker can never take it.
            SpoolFailed: the spool file cannot be written.
        """
        spool = self._spool
        if spool is None:
            if not self._client.broker().answers:
                raise LogUnreachable(
                    f"job {job.id} was not enqueued: no broker answers",
                    hint="try again, or set client.spool_dir to keep critical jobs on the disk meanwhile",
                )
            self._client.send(job, lane, derived=derived, until=until, patience=self._patience)
            return
        if not spool.waiting and self._client.broker().answers:
            try:
                # `derived`: if it is not confirmed it goes into the file too, and the log may get both, in any order.
                self._client.send(job, lane, derived=True, until=until, patience=self._patience, missed=_kept)
            except (EnqueueUnconfirmed, BrokerError) as error:
                log.warning("client.spool.keeps", extra={"job_id": job.id, "error": str(error)})
            else:
                return
        try:
            kept = spool.append(job, lane, until)
        except OSError as error:
            raise SpoolFailed(
                f"job {job.id} was not enqueued: {error}", hint="is client.spool_dir writable?"
            ) from error
        if not kept:
            # The client was closed meanwhile. Using it opens it anew, and its spool takes over what this one has left.
            self._client.reliability.send_critical(job, lane, derived=True, until=until)

    def offer(self, job: Job, lane: Lane, *, derived: bool, until: str | None) -> None:
        """Send a job that may be dropped: returns at once, and raises nothing that comes from the log."""

        def missed() -> None:
            with self._lock:
                self.not_sent[job.type] += 1

        client = self._client
        try:
            if len(client.pending()) >= MOST_WAITING or client.gates.is_full(job.queue):
                missed()
                return
            client.send(job, lane, derived=derived, wait=False, until=until, missed=missed)
        except ProcessorError as error:
            log.debug("client.job.dropped", extra={"job_id": job.id, "type": job.type, "error": str(error)})
            missed()

    def _send(self, jobs: list[Spooled]) -> None:
        """Jobs of the spool, each of which may have been sent before: by a producer that nothing else waits for, so
        that a close can leave them to their file.

        Raises:
            EnqueueUnconfirmed, EnqueueError: as `Client.send_many`.
        """
        client = self._client
        records = [client.record(job, lane, derived=True, until=until) for job, lane, until in jobs]
        if self._producer is None:
            self._producer = client.new_bulk()
        for record in records:
            self._producer.append(record)
        began = time.monotonic()
        refused: list[tuple[OutRecord, BrokerError]] = []
        left = 1
        while left and not self._gives_up(began):
            left, more = self._producer.flush(_SLICE)
            refused += more
        waited = f"{time.monotonic() - began:.1f} s"
        if left:
            # Sent later and once more by the same producer, the log would get them twice.
            self._close_producer()
        if left or refused:
            raise failure_of([job.id for job, _, _ in jobs], left, refused, waited)

    def _gives_up(self, began: float) -> bool:
        """Whether to wait no longer for the log: when the client is being closed, only if it answers, and not long."""
        waited = time.monotonic() - began
        if self._spool is not None and self._spool.closing:
            return waited > _LAST_WAIT or not self._client.broker().answers
        return waited > self._client.config.enqueue_timeout

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def forget(self) -> None:
        """In the child of a fork."""
        keep_for_ever(self._producer)
        if self._spool is not None:
            self._spool.forget()

    def close(self) -> None:
        """Stop sending from the spool."""
        if self._spool is not None:
            self._spool.close()
        self._close_producer()


def _kept() -> None:
    """The job is in the spool file, so what becomes of its record is told to nobody."""
