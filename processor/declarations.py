"""What is told when queues and job types are declared, and how one enqueue differs from another: values and checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from processor.client.sender import Client
from processor.errors import DefinitionError
from processor.job import Lane
from processor.policies import JobOptions, Retry
from processor.wire.durations import Duration, parse_duration

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


class EnqueueOptions(NamedOptions, total=False):
    """What any other enqueue may be told."""

    lane: str
    idempotency_key: str | None


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
    idempotency_key: str | None = None


def refuse_unavailable(how: Enqueue) -> None:
    """Refuse what this version cannot keep, rather than drop it."""
    if how.idempotency_key is not None:
        raise DefinitionError(
            "idempotency_key= is not available in this version",
            hint="give the job an id of your own with id=: the same id runs once",
        )


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
) -> JobOptions:
    """The policy of a job type.

    Raises:
        DefinitionError: a time limit is none, or could never be kept; or `retry` is no policy.
    """
    return JobOptions(
        retry=Retry() if retry is None else retry,
        attempt_timeout=checked_seconds(name, "attempt_timeout", attempt_timeout),
        stall_timeout=checked_seconds(name, "stall_timeout", stall_timeout),
        queue_timeout=checked_seconds(name, "queue_timeout", queue_timeout),
        kill_after=checked_seconds(name, "kill_after", kill_after),
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
