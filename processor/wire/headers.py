"""Record headers: what routing and filtering need without decoding the value. Names are ASCII, values UTF-8 bytes.

A plain fresh job carries two, `job-id` and `job-type`; everything else is written only when it says something.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from processor.job import Job

Headers = list[tuple[str, bytes]]
"""As `broker.base.Headers`; declared again, because this floor lies below the broker's."""

JOB_ID = "job-id"
JOB_TYPE = "job-type"
DUE_AT = "due-at"
"""Milliseconds since the epoch, decimal. A forwarder decides by it alone."""
QUEUE = "queue"
"""Written on records that leave their lane (retry topics, dead letters): where they go back to."""
NUMBER = "number"
"""Partition number, decimal; written where `queue` is."""
LIFE = "life"
HOP = "hop"
DERIVED = "derived"
"""`1`: the id is a digest, so the same job may come again and must be checked against live jobs and dedupe marks."""
IDEMPOTENCY = "idempotency"
"""`window` or `finished`: the id was made of an idempotency key, and how long it keeps other records out."""
TRACEPARENT = "traceparent"
"""W3C trace context, of jobs that others write (`wire.trace_context`); in those of ours it is a field of the job."""
TRACESTATE = "tracestate"
CONTENT_TYPE = "content-type"
"""Only on records whose value is not Avro."""
REASON = "reason"
"""Why a dead letter was written."""
SIGNAL = "signal"
"""This record wakes a parked job; the value names the source."""

_YES = b"1"


def header(headers: Iterable[tuple[str, bytes | None]] | None, name: str) -> bytes | None:
    """The value of the last header of that name, as Kafka clients read repeated headers; None if there is none."""
    found = None
    if headers is not None:
        for key, value in headers:
            if key == name:
                found = value
    return found


def number_header(headers: Iterable[tuple[str, bytes | None]] | None, name: str) -> int | None:
    """A decimal header; None if it is missing or is no number (a foreign record must not stop its reader)."""
    value = header(headers, name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        return None


def is_derived(headers: Iterable[tuple[str, bytes | None]] | None) -> bool:
    """Whether the record's job has a derived id."""
    return header(headers, DERIVED) is not None


@lru_cache(maxsize=1024)
def _type_header(job_type: str) -> tuple[str, bytes]:
    return (JOB_TYPE, job_type.encode("utf-8", "replace"))


def routing_headers(job: Job, *, derived: bool = False, until: str | None = None) -> Headers:
    """The headers of a job's record: two for a plain fresh job, more only where they say something."""
    headers = [(JOB_ID, job.id.encode("utf-8", "replace")), _type_header(job.type)]
    if derived:
        headers.append((DERIVED, _YES))
    if until is not None:
        headers.append((IDEMPOTENCY, until.encode()))
    if job.life != 1:
        headers.append((LIFE, b"%d" % job.life))
    if job.hop:
        headers.append((HOP, b"%d" % job.hop))
    if job.due_at is not None:
        headers.append((DUE_AT, b"%d" % job.due_at))
    if job.number is not None:
        headers.append((QUEUE, job.queue.encode("utf-8", "replace")))
        headers.append((NUMBER, b"%d" % job.number))
    return headers
