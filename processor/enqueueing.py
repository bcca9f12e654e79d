"""From a job to its handle: it is sent, or stored in a database to be sent later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from processor.broker.reach import within
from processor.client.handles import Handle
from processor.client.sender import Client
from processor.client.track import Track
from processor.core.deadlines import kill_date
from processor.core.delays import due_at, refuse_too_late
from processor.declarations import Enqueue, under_key
from processor.errors import DefinitionError
from processor.job import Job, Lane
from processor.tracing import found

R = TypeVar("R")


def start(
    client: Client,
    job: Job,
    lane: Lane,
    how: Enqueue,
    decode: Callable[[bytes | None], R],
    attempts: int | None = None,
    critical: bool | None = None,
) -> Handle[R]:
    """Send a job, or store it in a transaction of the caller's, and return its handle.

    Raises:
        DefinitionError: the time when it is to start, or its idempotency key, makes no sense.
    """
    spans = found() if client.config.tracing else None
    if spans is None:
        return _start(client, job, lane, how, decode, attempts, critical)
    with spans.publishing(job.type, job.queue, client.namespace) as trace:
        handle = _start(client, job._replace(trace=trace), lane, how, decode, attempts, critical)
        spans.tell_id(handle.id)
    return handle


@contextmanager
def published(client: Client, job_type: str, queue: str) -> Iterator[str | None]:
    """While jobs are enqueued, as a span if this program traces: gives the trace context that they take along."""
    spans = found() if client.config.tracing else None
    if spans is None:
        yield None
        return
    with spans.publishing(job_type, queue, client.namespace) as trace:
        yield trace


def _start(
    client: Client,
    job: Job,
    lane: Lane,
    how: Enqueue,
    decode: Callable[[bytes | None], R],
    attempts: int | None,
    critical: bool | None,
) -> Handle[R]:
    critical = critical if how.critical is None else how.critical
    job = prepared(client, job, how, critical)
    if how.session is not None:
        from processor.outbox.table import store  # needs an extra

        store(how.session, client.namespace, job, lane, how.keeps_out)
        return handle_of(client, job, None, decode, attempts)
    if critical is not None:
        send = client.reliability.send_critical if critical else client.reliability.offer
        send(job, lane, derived=how.repeats, until=how.keeps_out)
        return handle_of(client, job, None, decode, attempts)
    client.gates.admit(job.queue, how.when_full)
    with within(client.config.enqueue_timeout):
        track = client.track(job, repeats=how.repeats, until=how.keeps_out)
        client.send(job, lane, derived=how.repeats, wait=how.wait, until=how.keeps_out)
    return handle_of(client, job, track, decode, attempts)


def prepared(client: Client, job: Job, how: Enqueue, critical: bool | None) -> Job:
    """The job as it is told to start.

    Raises as `start`.
    """
    if critical and not how.wait:
        raise DefinitionError(
            f"job {job.type} is critical, and wait=False", hint="leave wait= out: it waits for the log"
        )
    job = under_key(job, how, client.config.dedupe_window)
    now_ms = client.clock.now_ms()
    killed = kill_date(how.kill_after, how.kill_at, now_ms)
    if killed is not None:
        job = job._replace(kill_at=killed)
    due = due_at(how.delay, how.at, now_ms)
    if due is not None:
        job = job._replace(due_at=due)
        refuse_too_late(job)
    return job


def handle_of(
    client: Client, job: Job, track: Track | None, decode: Callable[[bytes | None], R], attempts: int | None
) -> Handle[R]:
    """The handle of a job that was made here."""
    return Handle(job.id, client.tail, decode, track, client.cancel, attempts, job.type, job.due_at)
