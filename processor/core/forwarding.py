"""Where a record of the retry chain goes when its time in a rung is over: on to the next rung, or home. Pure.

Only headers are read: the value travels as the bytes it is, so a forwarder moves jobs of any app and any version.
"""

from __future__ import annotations

from typing import NamedTuple

from processor.broker.base import ANY_PARTITION, Headers, OutRecord
from processor.core.retry_chain import rung_for, walk_until
from processor.job import Job, Lane
from processor.wire.codec import encode
from processor.wire.headers import DUE_AT, NUMBER, QUEUE, header, number_header, routing_headers
from processor.wire.topics import jobs_topic, retry_topic


class Home(NamedTuple):
    """The queue and number that a record of the chain comes from and goes back to."""

    queue: str
    number: int


def home_of(headers: Headers | None) -> Home | None:
    """As the headers have it; None: they do not say, so the record is none of ours."""
    queue, number = header(headers, QUEUE), number_header(headers, NUMBER)
    if queue is None or number is None or number < 0:
        return None
    try:
        return Home(queue.decode("utf-8"), number)
    except UnicodeDecodeError:
        return None


def on_its_way(namespace: str, job: Job, due: int, now_ms: int, until: str | None = None) -> OutRecord:
    """A job that waits until `due` (milliseconds), in the first rung of its walk, or in the `due` lane of its number if
    it need not wait. `until`: how long its idempotency key keeps others out, if it comes with one.
    """
    leaves = walk_until(due, job.kill_at)
    rung = rung_for(leaves - now_ms)
    headers = routing_headers(job._replace(due_at=leaves), derived=True, until=until)
    if rung is None:
        number = ANY_PARTITION if job.number is None else job.number
        return OutRecord(jobs_topic(namespace, job.queue, Lane.DUE), job.id.encode(), encode(job), headers, number)
    return OutRecord(retry_topic(namespace, rung), job.id.encode(), encode(job), headers, ANY_PARTITION)


def onward(
    namespace: str, home: Home, key: bytes | None, value: bytes | None, headers: Headers | None, now_ms: int
) -> OutRecord:
    """The next record of a walk: the same bytes, in the longest rung that is not longer than what is left, or in the
    `due` lane of its number once it is due.
    """
    due = number_header(headers, DUE_AT)
    rung = None if due is None else rung_for(due - now_ms)
    if rung is None:
        return OutRecord(jobs_topic(namespace, home.queue, Lane.DUE), key, value, headers, home.number)
    return OutRecord(retry_topic(namespace, rung), key, value, headers, ANY_PARTITION)
