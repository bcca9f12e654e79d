"""What the topics of a namespace must look like, and how those of a cluster differ from that.

Why the numbers are what they are:

- *Lanes and retry topics* keep everything: a job that nobody finished must never go by age. The owner of a number
  deletes below its low watermark.
- *Checkpoints* are read whole when a number moves to another worker, so they are compacted eagerly (dirty ratio 0.1,
  segments of 64 MiB or one hour, at the latest after 30 minutes). Tombstones stay a week, longer than any reader lags.
- *Retry topics* use the broker's time of appending: the forwarder waits from there, so no client's clock stalls a rung.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from processor.broker.base import TopicInfo, TopicSpec
from processor.errors import DefinitionError
from processor.job import Lane
from processor.wire import topics
from processor.wire.topics import QueueSpec, TopicKind, TopicShape

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_MIB = 1024 * 1024

_COMMON = {"unclean.leader.election.enable": "false"}
_KEEP_ALL = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "segment.ms": str(_DAY)}
_COMPACT = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.1",
    "segment.bytes": str(64 * _MIB),
    "segment.ms": str(_HOUR),
    "max.compaction.lag.ms": str(30 * _MINUTE),
    "delete.retention.ms": str(7 * _DAY),
}


STATUS_ADVICE = (
    "a job is looked for in the partition that its id gives, so with another number those that ended before are found "
    "no more; keep the number that the topic was made with, topics.status_partitions = {found}"
)
"""Why the number of partitions of the status topic never changes."""


class Severity(StrEnum):
    """Whether work may start in spite of a difference."""

    REFUSE = "refuse"
    """No: jobs or progress could be lost."""
    WARN = "warn"
    """Yes; it costs speed or keeps data longer or shorter than asked."""


class Aspect(StrEnum):
    """What differs."""

    MISSING = "missing"
    PARTITIONS = "partitions"
    REPLICATION = "replication"
    CLEANUP = "cleanup"
    RETENTION = "retention"
    CONFIG = "config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as planned."""

    topic: str
    aspect: Aspect
    severity: Severity
    setting: str
    """Name of the topic's setting, else the aspect's."""
    wanted: str
    found: str
    text: str
    """The difference and what it means, in one sentence."""


def topic_plan(
    namespace: str,
    queues: Iterable[QueueSpec],
    *,
    shape: TopicShape = TopicShape(),  # noqa: B008  (frozen)
) -> list[TopicSpec]:
    """Every topic of a namespace, in the order in which they are created and widened.

    Raises:
        DefinitionError: a name is not allowed, or two queues have the same.
    """
    topics.check_name(namespace, "namespace")
    plan: list[TopicSpec] = []
    seen: set[str] = set()
    for queue in queues:
        if queue.name in seen:
            raise DefinitionError(f"queue {queue.name} is declared twice")
        seen.add(queue.name)
        plan += _queue_plan(namespace, queue, shape)
    return plan + _shared_plan(namespace, shape)


def _queue_plan(namespace: str, queue: QueueSpec, shape: TopicShape) -> list[TopicSpec]:
    """Checkpoints, dedupe, high, low, due, normal: a number exists in the normal lane only once all else is there."""
    size = {"max.message.bytes": str(shape.max_record_bytes)}
    window = round(shape.dedupe_window * 1000)
    dedupe = {
        "cleanup.policy": "delete",
        "retention.ms": str(window),
        "retention.bytes": "-1",
        # A mark outlives the window by one segment at most.
        "segment.ms": str(max(10 * _MINUTE, min(_HOUR, window // 8))),
    }
    made = [
        _spec(topics.checkpoints_topic(namespace, queue.name), queue.partitions, shape, {**_COMPACT, **size}),
        _spec(topics.dedupe_topic(namespace, queue.name), queue.partitions, shape, dedupe),
    ]
    for lane in queue.all_lanes():
        name = topics.jobs_topic(namespace, queue.name, lane)
        made.append(_spec(name, queue.partitions, shape, {**_KEEP_ALL, **size}))
    return made


def _shared_plan(namespace: str, shape: TopicShape) -> list[TopicSpec]:
    size = {"max.message.bytes": str(shape.max_record_bytes)}
    rung = {**_KEEP_ALL, **size, "message.timestamp.type": "LogAppendTime"}
    status = {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(round(shape.status_retention * 1000)),
        "segment.ms": str(6 * _HOUR),
        "min.cleanable.dirty.ratio": "0.3",
        "delete.retention.ms": str(_DAY),
        "max.message.bytes": str(_MIB),
    }
    # A dead letter holds the whole job, its progress and its failures.
    dead = {**_kept(shape.dlq_retention), "max.message.bytes": str(2 * shape.max_record_bytes)}
    noted = _kept(shape.audit_retention)
    made = [
        _spec(topics.retry_topic(namespace, delay), shape.retry_partitions, shape, rung)
        for delay in topics.RETRY_DELAYS
    ]
    made += [
        _spec(topics.dlq_topic(namespace), shape.retry_partitions, shape, dead),
        _spec(topics.status_topic(namespace), shape.status_partitions, shape, status),
        # A schedule holds the payload of its jobs.
        _spec(topics.schedules_topic(namespace), 1, shape, {**_COMPACT, **size}),
        _spec(topics.control_topic(namespace), 1, shape, _COMPACT),
        _spec(topics.audit_topic(namespace), 1, shape, noted),
        _spec(topics.alerts_topic(namespace), 1, shape, noted),
    ]
    return made


def _kept(seconds: float) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(round(seconds * 1000)), "retention.bytes": "-1"}


def _spec(name: str, partitions: int, shape: TopicShape, config: Mapping[str, str]) -> TopicSpec:
    full = {**_COMMON, **config}
    if shape.replication >= 3:
        full["min.insync.replicas"] = "2"
    return TopicSpec(name=name, partitions=partitions, replication=shape.replication, config=full)


def compare(plan: Sequence[TopicSpec], existing: Mapping[str, TopicInfo]) -> list[Difference]:
    """How a cluster's topics (asked for with `configs=True`) differ from the plan; topics outside it do not matter."""
    found: list[Difference] = []
    for spec in plan:
        info = existing.get(spec.name)
        if info is None:
            found.append(_missing(spec))
            continue
        found += _counts(spec, info)
        for setting, wanted in spec.config.items():
            actual = info.config.get(setting, "(default)")
            if not _equal(setting, wanted, actual):
                found.append(_config(spec.name, setting, wanted, actual))
    return found + list(_order(plan, existing))


def _missing(spec: TopicSpec) -> Difference:
    return Difference(
        topic=spec.name,
        aspect=Aspect.MISSING,
        severity=Severity.REFUSE,
        setting="topic",
        wanted=f"{spec.partitions} partitions",
        found="nothing",
        text=f"{spec.name} does not exist",
    )


def _counts(spec: TopicSpec, info: TopicInfo) -> Iterator[Difference]:
    if info.partitions != spec.partitions:
        if _is_status(spec.name):
            advice = STATUS_ADVICE.format(found=info.partitions)
        elif info.partitions < spec.partitions:
            advice = "more can be added"
        else:
            advice = "partitions cannot be removed, so raise the number in the queue's declaration"
        yield Difference(
            topic=spec.name,
            aspect=Aspect.PARTITIONS,
            severity=Severity.WARN,
            setting="partitions",
            wanted=str(spec.partitions),
            found=str(info.partitions),
            text=f"{spec.name} has {info.partitions} partitions instead of {spec.partitions}: {advice}",
        )
    if info.replication < spec.replication:
        yield Difference(
            topic=spec.name,
            aspect=Aspect.REPLICATION,
            severity=Severity.WARN,
            setting="replication",
            wanted=str(spec.replication),
            found=str(info.replication),
            text=f"{spec.name} has {info.replication} replicas instead of {spec.replication}: fewer brokers may fail",
        )


def _is_status(topic: str) -> bool:
    name = topics.parse_topic(topic)
    return name is not None and name.kind is TopicKind.STATUS


def _order(plan: Sequence[TopicSpec], existing: Mapping[str, TopicInfo]) -> Iterator[Difference]:
    """Of a queue's topics each must have at least as many partitions as the next; else a number has no home."""
    chains: dict[tuple[str, str], list[TopicSpec]] = {}
    for spec in plan:
        name = topics.parse_topic(spec.name)
        if name is not None and name.queue is not None and spec.name in existing:
            chains.setdefault((name.namespace, name.queue), []).append(spec)
    for chain in chains.values():
        for wide, narrow in pairwise(chain):
            has, needs = existing[wide.name].partitions, existing[narrow.name].partitions
            if has < needs:
                yield Difference(
                    topic=wide.name,
                    aspect=Aspect.PARTITIONS,
                    severity=Severity.REFUSE,
                    setting="partitions",
                    wanted=f"at least {needs}",
                    found=str(has),
                    text=f"{wide.name} has {has} partitions but {narrow.name} has {needs}: "
                    f"jobs of the numbers from {has} on would have nowhere to save",
                )


def _equal(setting: str, wanted: str, actual: str) -> bool:
    if setting == "cleanup.policy":
        return set(wanted.split(",")) == set(actual.replace(" ", "").split(","))
    try:
        return float(wanted) == float(actual)
    except ValueError:
        return wanted.lower() == actual.lower()


def _config(topic: str, setting: str, wanted: str, actual: str) -> Difference:
    name = topics.parse_topic(topic)
    kind = name.kind if name else None
    aspect, severity, meaning = Aspect.CONFIG, Severity.WARN, ""
    if setting == "cleanup.policy":
        aspect, severity = Aspect.CLEANUP, Severity.REFUSE
        meaning = ": records that are still needed would be deleted, or old ones never"
    elif setting in ("retention.ms", "retention.bytes"):
        aspect = Aspect.RETENTION
        if kind in (TopicKind.JOBS, TopicKind.RETRY):
            severity, meaning = Severity.REFUSE, ": unfinished jobs would be deleted by age or size"
    elif setting == "message.timestamp.type":
        severity, meaning = Severity.REFUSE, ": a client's wrong clock would stall everything behind its record"
    elif setting == "max.message.bytes":
        meaning = ": larger records are refused by the broker"
    return Difference(
        topic=topic,
        aspect=aspect,
        severity=severity,
        setting=setting,
        wanted=wanted,
        found=actual,
        text=f"{topic} has {setting}={actual} instead of {wanted}{meaning}",
    )


def lanes_in_plan(plan: Iterable[TopicSpec]) -> dict[tuple[str, str], list[Lane]]:
    """The lanes of each (namespace, queue) of a plan, in the plan's order."""
    lanes: dict[tuple[str, str], list[Lane]] = {}
    for spec in plan:
        name = topics.parse_topic(spec.name)
        if name is not None and name.queue is not None and name.lane is not None:
            lanes.setdefault((name.namespace, name.queue), []).append(name.lane)
    return lanes
