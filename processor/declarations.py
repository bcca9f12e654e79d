"""What is told when queues and job types are declared, and how one enqueue differs from another: values and checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from processor.client.backlog import RAISE, WAIT, Limit
from processor.client.sender import Client
from processor.core.dedupe import idempotent_id
from processor.core.delays import due_at
from processor.core.idempotency import UNTILS, life_at
from processor.errors import DefinitionError
from processor.job import Job, Lane
from processor.job_ids import checked_idempotency_key
from processor.policies import JobOptions, Retry, unlimited
from processor.wire.durations import Duration, parse_duration
from processor.wire.topics import QueueSpec

_FIELD = re.compile(r"\w{1,60}")
_CENTURY = 100 * 366 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue, as declared."""

    name: str
    partitions: int = 12
    concurrency: int = 100
    """Jobs that run at a time in one worker process, for each kind of executor."""
    order: str = "block"
    """In queues with keys: `block` holds a key back until its failed job is done, `release` lets the next one go."""
    lanes: tuple[Lane, ...] = (Lane.NORMAL, Lane.DUE)
    limit: Limit | None = None
    """How many jobs it may hold."""


def declared_queue(
    name: str,
    *,
    partitions: int,
    concurrency: int,
    order: str,
    lanes: Sequence[Lane],
    max_backlog: int | None,
    when_full: str,
) -> Queue:
    """A queue, as `App.queue` was told.

    Raises:
        DefinitionError: the name is not allowed, or an option makes no sense.
    """
    if order not in ("block", "release"):
        raise DefinitionError(f"queue {name}: order {order!r} is unknown", hint="use block or release")
    if concurrency < 1:
        raise DefinitionError(f"queue {name}: concurrency {concurrency}", hint="use 1 or more; 100 is the default")
    if max_backlog is not None and (type(max_backlog) is not int or max_backlog < 1):
        raise DefinitionError(
            f"queue {name}: max_backlog {max_backlog!r}", hint="use a whole number from 1 on, or None"
        )
    limit = None if max_backlog is None else Limit(max_backlog=max_backlog, when_full=checked_when_full(when_full))
    spec = QueueSpec(name=name, partitions=partitions, lanes=tuple(lanes))
    return Queue(
        name=name, partitions=partitions, concurrency=concurrency, order=order, lanes=spec.all_lanes(), limit=limit
    )


def checked_when_full(when_full: str) -> str:
    """What an enqueue does at the limit of its queue.

    Raises:
        DefinitionError: it is neither.
    """
    if when_full not in (RAISE, WAIT):
        raise DefinitionError(f"when_full={when_full!r} is unknown", hint="use raise or wait")
    return when_full


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What `@app.job` was told, beside the handler."""

    namespace: str
    name: str
    queue: Queue
    payload: Any
    version: int
    key: Callable[[Any], str] | None
    options: JobOptions
    executor: str
    client: Callable[[], Client]
    search: tuple[str, ...] = ()
    """Payload fields that jobs can be found by; `customer.id` names an inner one."""

    def __post_init__(self) -> None:
        if self.payload is None and (self.key is not None or self.search):
            what = "key" if self.key is not None else "search"
            raise DefinitionError(
                f"job type {self.name}: {what}= without payload=", hint=f"a {what} is taken from the payload"
            )
        known = getattr(self.payload, "model_fields", None)
        for field in self.search:
            first = field.partition(".")[0]
            if _FIELD.fullmatch(first) is None or (known is not None and first not in _names_of(known)):
                raise DefinitionError(
                    f"job type {self.name}: its payload has no field {field!r} to search by",
                    hint=f"there are: {', '.join(sorted(known))}" if known else 'use names like "order_id"',
                )


class NamedOptions(TypedDict, total=False):
    """What an enqueue by name may be told beside the payload; see `Enqueue`."""

    id: str | None
    wait: bool
    delay: Duration | None
    at: datetime | None
    kill_after: Duration | None
    kill_at: datetime | None
    session: Any
    idempotency_key: str | None
    until: Literal["window", "finished"]
    when_full: Literal["raise", "wait"] | None
    critical: bool | None


class EnqueueOptions(NamedOptions, total=False):
    """What any other enqueue may be told."""

    lane: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueue:
    """How one enqueue differs from a plain one."""

    id: str | None = None
    """Repeats an enqueue safely: the same id runs once."""
    lane: str = "normal"
    wait: bool = True
    """Return only when all in-sync replicas have the job."""
    delay: Duration | None = None
    at: datetime | None = None
    kill_after: Duration | None = None
    """How long from now the job is given up, whatever it does; instead of what its type says."""
    kill_at: datetime | None = None
    """The same as a moment with a zone."""
    session: Any = None
    """A SQLAlchemy session or connection: the job is stored in its transaction, and sent after that."""
    idempotency_key: str | None = None
    critical: bool | None = None
    """As `App.job` has it; None: as the job type says."""
    when_full: str | None = None
    """At the limit of its queue: `raise` or `wait`; None: as the queue was declared."""
    until: str = "window"
    """How long the idempotency key keeps others out: see `processor.core.idempotency`."""

    @property
    def keeps_out(self) -> str | None:
        """`until`, if there is an idempotency key."""
        return None if self.idempotency_key is None else self.until

    @property
    def repeats(self) -> bool:
        """Whether the job's id may have been enqueued before."""
        return self.id is not None or self.idempotency_key is not None


def under_key(job: Job, how: Enqueue, window: float) -> Job:
    """The job under its idempotency key, if it has one: with the id that everybody makes of it.

    Args:
        job: with any id.
        how: what was told.
        window: the dedupe window, in seconds.

    Raises:
        DefinitionError: there is an id as well, or a delay as long as the window; or `until` is none.
        NameInvalid: the key cannot be one.
    """
    if how.when_full is not None:
        checked_when_full(how.when_full)
    if how.until not in UNTILS:
        raise DefinitionError(f"until={how.until!r} is unknown", hint="use window or finished")
    if how.idempotency_key is None:
        return job
    if how.id is not None:
        raise DefinitionError(
            "id= and idempotency_key=", hint="leave id= out: the key makes the id, the same one for everybody"
        )
    due = due_at(how.delay, how.at, job.enqueued_at)
    if due is not None and due - job.enqueued_at >= window * 1000:
        told = f"at={how.at}" if how.delay is None else f"a delay of {how.delay}"
        raise DefinitionError(
            f"{told} and an idempotency key, which is remembered for {window:g} s",
            hint="delay it for less than topics.dedupe_window, or leave the key out",
        )
    key = checked_idempotency_key(how.idempotency_key)
    return job._replace(id=idempotent_id(job.queue, job.key, key), life=life_at(job.enqueued_at))


def checked_lane(how: Enqueue, queue: str) -> Lane:
    """The lane of a queue that a job is enqueued into.

    Raises:
        DefinitionError: there is none of that name, or a delayed job names one.
    """
    if how.lane != Lane.NORMAL and (how.delay is not None or how.at is not None):
        raise DefinitionError(
            f"lane {how.lane!r} and a delay", hint="a delayed job comes back in the lane for due jobs: name no lane"
        )
    if how.lane not in (Lane.NORMAL, Lane.HIGH, Lane.LOW):
        raise DefinitionError(f"queue {queue} has no lane {how.lane!r} to enqueue into", hint="use normal, high or low")
    return Lane(how.lane)


def checked_executor(name: str, executor: str) -> str:
    """The executor that a job type names.

    Raises:
        DefinitionError: there is none of that name.
    """
    if executor not in ("thread", "process"):
        raise DefinitionError(f"job type {name}: executor {executor!r} is unknown", hint="use thread or process")
    return executor


def checked_options(
    name: str,
    retry: Retry | None,
    attempt_timeout: Duration | None,
    stall_timeout: Duration | None,
    queue_timeout: Duration | None,
    kill_after: Duration | None,
    critical: bool | None = None,
) -> JobOptions:
    """The policy of a job type.

    Raises:
        DefinitionError: a time limit is none, or could never be kept; or `retry` is no policy; or a critical job could
            be dropped by it.
    """
    if critical:
        if queue_timeout is not None:
            raise DefinitionError(
                f"job type {name} is critical and has a queue_timeout: it would expire", hint="use kill_after"
            )
        retry = unlimited(name, retry)
    return JobOptions(
        retry=Retry() if retry is None else retry,
        attempt_timeout=checked_seconds(name, "attempt_timeout", attempt_timeout),
        stall_timeout=checked_seconds(name, "stall_timeout", stall_timeout),
        queue_timeout=checked_seconds(name, "queue_timeout", queue_timeout),
        kill_after=checked_seconds(name, "kill_after", kill_after),
        critical=critical,
    )


def _names_of(fields: Mapping[str, Any]) -> set[str]:
    """As they stand in the payload's JSON."""
    return set(fields) | {str(info.serialization_alias or info.alias or name) for name, info in fields.items()}


def checked_seconds(name: str, option: str, value: Duration | None) -> float | None:
    """A length of time that a job type names, in seconds.

    Raises:
        DefinitionError: it is none, or so long that its end could not be written as a moment.
    """
    seconds = None if value is None else parse_duration(value, name=f"job type {name}: {option}")
    if seconds == 0:
        raise DefinitionError(f"job type {name}: {option} is 0: no job could ever run", hint="leave it out for no end")
    if seconds is not None and seconds > _CENTURY:
        raise DefinitionError(f"job type {name}: {option} is longer than 100 years", hint="leave it out for no end")
    return seconds
