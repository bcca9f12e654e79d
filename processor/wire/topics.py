"""Names of the topics of a namespace, and back. What each topic must look like is decided in `core.topic_plan`.

    {ns}.jobs.{queue}[.due|.high|.low]   {ns}.checkpoints.{queue}   {ns}.dedupe.{queue}   {ns}.retry.{delay}
    {ns}.dlq   {ns}.status   {ns}.schedules   {ns}.control   {ns}.audit   {ns}.alerts

Neither a namespace nor a queue may hold a dot, so a name reads back in one way only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from processor.errors import DefinitionError
from processor.job import Lane

_NAME = re.compile(r"[a-z0-9-]{1,60}")
MAX_PARTITIONS = 10_000
"""More than any cluster serves well; catches a number typed into the wrong place."""


class TopicKind(StrEnum):
    """What a topic is for; the word of its name."""

    JOBS = "jobs"
    CHECKPOINTS = "checkpoints"
    DEDUPE = "dedupe"
    RETRY = "retry"
    DLQ = "dlq"
    STATUS = "status"
    SCHEDULES = "schedules"
    CONTROL = "control"
    AUDIT = "audit"
    ALERTS = "alerts"


RETRY_DELAYS: dict[str, int] = {
    "1s": 1_000,
    "5s": 5_000,
    "30s": 30_000,
    "2m": 120_000,
    "10m": 600_000,
    "1h": 3_600_000,
    "6h": 21_600_000,
    "1d": 86_400_000,
}
"""Rungs of the retry chain, shortest first: name in the topic -> milliseconds."""

LANE_ORDER = (Lane.HIGH, Lane.LOW, Lane.DUE, Lane.NORMAL)
"""The order in which lanes are created and widened: a number exists in the normal lane last, when all else is there."""

_LANES = {lane.value: lane for lane in Lane if lane is not Lane.NORMAL}
_PER_QUEUE = frozenset({TopicKind.CHECKPOINTS, TopicKind.DEDUPE})
_SINGLE = frozenset(TopicKind) - _PER_QUEUE - {TopicKind.JOBS, TopicKind.RETRY}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicName:
    """A topic's name, read."""

    namespace: str
    kind: TopicKind
    queue: str | None = None
    """Of jobs, checkpoints and dedupe topics."""
    lane: Lane | None = None
    """Of jobs topics."""
    delay: str | None = None
    """Of retry topics, a key of `RETRY_DELAYS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue, as far as its topics go.

    Raises:
        DefinitionError: the name, the number of partitions or a lane is not allowed.
    """

    name: str
    partitions: int = 12
    """Numbers of the queue: partitions of each of its lanes, of its checkpoints and its dedupe topic."""
    lanes: tuple[Lane, ...] = (Lane.NORMAL, Lane.DUE)
    """Normal and due are always there, named or not."""

    def __post_init__(self) -> None:
        check_name(self.name, "queue")
        if not 1 <= self.partitions <= MAX_PARTITIONS:
            raise DefinitionError(
                f"queue {self.name}: {self.partitions} partitions", hint=f"use 1 to {MAX_PARTITIONS}; 12 is the default"
            )
        for lane in self.lanes:
            if lane not in tuple(Lane):
                raise DefinitionError(
                    f"queue {self.name}: {lane!r} is no lane", hint=f"use {', '.join(lane.value for lane in Lane)}"
                )

    def all_lanes(self) -> tuple[Lane, ...]:
        """Its lanes in `LANE_ORDER`."""
        wanted = {Lane.NORMAL, Lane.DUE, *map(Lane, self.lanes)}
        return tuple(lane for lane in LANE_ORDER if lane in wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicShape:
    """What can be chosen about the topics of a namespace. Times in seconds."""

    replication: int = -1
    """-1: the broker's default. From 3 on, two replicas must have a record before it counts as written."""
    retry_partitions: int = 4
    """Of each retry topic and of the dead-letter topic."""
    status_partitions: int = 8
    dedupe_window: float = 86_400.0
    """How long a finished job's id is remembered: within it the same id does not run twice."""
    status_retention: float = 7 * 86_400.0
    """How long the status and result of a job can be asked for after its last change."""
    dlq_retention: float = 90 * 86_400.0
    audit_retention: float = 365 * 86_400.0
    """Of the audit and alerts topics."""
    max_record_bytes: int = 1_572_864
    """Largest record of a lane or checkpoint topic: payload (1 MB), progress that travels along (256 KiB), head."""


def check_name(name: object, what: str) -> str:
    """The name, if it can be part of a topic's name.

    Raises:
        DefinitionError: it is empty, too long or holds another character.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DefinitionError(
            f"{what} name {name!r} is not allowed",
            hint="use 1 to 60 of a-z, 0-9 and '-': it becomes part of topic names",
        )
    return name


@lru_cache(maxsize=4096)
def jobs_topic(namespace: str, queue: str, lane: Lane = Lane.NORMAL) -> str:
    """`{ns}.jobs.{queue}` for the normal lane, with `.due`, `.high` or `.low` for the others."""
    base = f"{namespace}.jobs.{queue}"
    return base if lane == Lane.NORMAL else f"{base}.{lane}"


def checkpoints_topic(namespace: str, queue: str) -> str:
    """Progress, steps and live jobs of a queue."""
    return f"{namespace}.checkpoints.{queue}"


def dedupe_topic(namespace: str, queue: str) -> str:
    """Marks of derived jobs that were finished or promoted."""
    return f"{namespace}.dedupe.{queue}"


def retry_topic(namespace: str, delay: str) -> str:
    """A rung of the retry chain; `delay` is a key of `RETRY_DELAYS`."""
    return f"{namespace}.retry.{delay}"


def dlq_topic(namespace: str) -> str:
    """Jobs that will not be tried again by themselves."""
    return f"{namespace}.dlq"


def status_topic(namespace: str) -> str:
    """Where the lives of jobs stand, results included."""
    return f"{namespace}.status"


def schedules_topic(namespace: str) -> str:
    """Schedules and when they last fired."""
    return f"{namespace}.schedules"


def control_topic(namespace: str) -> str:
    """Cancels and pauses."""
    return f"{namespace}.control"


def audit_topic(namespace: str) -> str:
    """What operators did, and why."""
    return f"{namespace}.audit"


def alerts_topic(namespace: str) -> str:
    """What somebody should look at."""
    return f"{namespace}.alerts"


def parse_topic(topic: str) -> TopicName | None:
    """Read a topic's name; None if it is not one of ours."""
    namespace, _, rest = topic.partition(".")
    word, *parts = rest.split(".")
    if not _NAME.fullmatch(namespace) or word not in tuple(TopicKind):
        return None
    kind = TopicKind(word)
    if kind in _SINGLE:
        return TopicName(namespace=namespace, kind=kind) if not parts else None
    if kind is TopicKind.RETRY:
        known = len(parts) == 1 and parts[0] in RETRY_DELAYS
        return TopicName(namespace=namespace, kind=kind, delay=parts[0]) if known else None
    if not parts or not _NAME.fullmatch(parts[0]):
        return None
    if kind in _PER_QUEUE:
        return TopicName(namespace=namespace, kind=kind, queue=parts[0]) if len(parts) == 1 else None
    return _parse_lane(namespace, parts)


def _parse_lane(namespace: str, parts: list[str]) -> TopicName | None:
    lane = Lane.NORMAL if len(parts) == 1 else _LANES.get(parts[1])
    if lane is None or len(parts) > 2:
        return None
    return TopicName(namespace=namespace, kind=TopicKind.JOBS, queue=parts[0], lane=lane)
