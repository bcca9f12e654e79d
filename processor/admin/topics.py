"""Bringing the topics of a cluster to the plan: create, widen, configure. Nothing here deletes a topic or a record.

Widening goes in the plan's order (checkpoints, dedupe, high, low, due, normal), so that a number exists in the normal
lane only once it has a place to save. It changes the number of keys and ids: a keyed job would no longer meet its
predecessor, an idempotent one not its mark. So a queue is widened only when it is drained, unless the operator says
that it uses neither (`keyless`). The status topic is never widened: a finished job is found by the number its id gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from processor.admin.lag import live_jobs, queue_lag, queues_of
from processor.broker.base import Broker, TopicInfo, TopicSpec
from processor.core.topic_plan import STATUS_ADVICE, Aspect, Difference, Severity, compare
from processor.errors import TopicMismatch, TopicMissing
from processor.texts import count
from processor.wire.topics import TopicKind, checkpoints_topic, parse_topic

_HINT = "processor topics apply"


class Action(StrEnum):
    """What is done to a topic."""

    CREATE = "create"
    WIDEN = "widen"
    CONFIGURE = "configure"
    REFUSED = "refused"
    """Nothing: it would be dangerous or is impossible; `text` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicChange:
    """One change of one topic."""

    topic: str
    action: Action
    text: str
    """What changes, or why not, in one sentence."""
    spec: TopicSpec
    config: dict[str, str] = field(default_factory=dict)
    """Settings to alter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicsReview:
    """A cluster against the plan."""

    differences: Sequence[Difference]
    changes: Sequence[TopicChange]
    """In the order in which they are made."""

    @property
    def refused(self) -> list[TopicChange]:
        """What a person must do."""
        return [change for change in self.changes if change.action is Action.REFUSED]


def plan_topics(
    broker: Broker, plan: Sequence[TopicSpec], *, keyless: Collection[str] = (), shorten: bool = False
) -> TopicsReview:
    """What differs and what `apply_topics` would do about it. Changes nothing.

    Args:
        broker: the cluster.
        plan: the topics as they should be.
        keyless: queues without ordering keys and idempotency keys: they may be widened while they hold jobs.
        shorten: allow retention to be lowered, which lets the broker delete what is older.
    """
    existing = broker.admin().topics([spec.name for spec in plan], configs=True)
    differences = compare(plan, existing)
    busy = _Busy(broker, keyless)
    changes: list[TopicChange] = []
    for spec in plan:
        info = existing.get(spec.name)
        own = [difference for difference in differences if difference.topic == spec.name]
        if info is None:
            changes.append(_creation(spec, existing, busy))
            continue
        changes += _partition_changes(spec, info, busy)
        changes += _config_changes(spec, own, shorten=shorten)
        changes += [
            _refused(spec, d.text + "; move replicas with Kafka's own tools") for d in own if _is_replication(d)
        ]
    return TopicsReview(differences=differences, changes=changes)


def apply_topics(
    broker: Broker,
    plan: Sequence[TopicSpec],
    *,
    dry_run: bool = False,
    keyless: Collection[str] = (),
    shorten: bool = False,
) -> TopicsReview:
    """Make the changes that are not refused, in order. With `dry_run` only say what they would be.

    Raises:
        BrokerError: the cluster refused one; those before it are made, and applying again makes the rest.
    """
    review = plan_topics(broker, plan, keyless=keyless, shorten=shorten)
    if dry_run:
        return review
    admin = broker.admin()
    for change in review.changes:
        if change.action is Action.CREATE:
            admin.create_topics([change.spec])
        elif change.action is Action.WIDEN:
            admin.add_partitions(change.topic, change.spec.partitions)
        elif change.action is Action.CONFIGURE:
            admin.set_topic_config(change.topic, change.config)
    return review


def verify_topics(broker: Broker, plan: Sequence[TopicSpec]) -> list[Difference]:
    """The check before a start. Returns the differences that do no harm.

    Raises:
        TopicMissing: topics do not exist; the message names every difference.
        TopicMismatch: work would be lost with the topics as they are; the message names every difference.
    """
    differences = compare(plan, broker.admin().topics([spec.name for spec in plan], configs=True))
    bad = [difference for difference in differences if difference.severity is Severity.REFUSE]
    if not bad:
        return differences
    text = "; ".join(difference.text for difference in bad)
    if any(difference.aspect is Aspect.MISSING for difference in bad):
        raise TopicMissing(text, hint=_HINT)
    raise TopicMismatch(text, hint=_HINT)


class _Busy:
    """Which queues still hold jobs; asked only when something is to be widened, and once per queue."""

    def __init__(self, broker: Broker, keyless: Collection[str]) -> None:
        self._broker = broker
        self._keyless = frozenset(keyless)
        self._known: dict[tuple[str, str], str] = {}

    def why(self, topic: str) -> str:
        """Why the topic's queue may not be widened now; empty if it may."""
        name = parse_topic(topic)
        if name is None or name.queue is None or name.queue in self._keyless:
            return ""
        key = (name.namespace, name.queue)
        if key not in self._known:
            self._known[key] = self._ask(*key)
        return self._known[key]

    def _ask(self, namespace: str, queue: str) -> str:
        if queue in queues_of(self._broker, namespace):
            waiting = sum(lag.waiting for lag in queue_lag(self._broker, namespace, [queue]))
            if waiting:
                return f"queue {queue} holds about {count(waiting, 'job')}"
        if not self._broker.admin().topics([checkpoints_topic(namespace, queue)]):
            return ""
        live = sum(not view.ended for _, view in live_jobs(self._broker, namespace, queue))
        return f"queue {queue} holds {count(live, 'unfinished job')}" if live else ""


def _creation(spec: TopicSpec, existing: Mapping[str, TopicInfo], busy: _Busy) -> TopicChange:
    """A new topic. One of a queue that may not be widened now gets as many partitions as the queue's others have."""
    name = parse_topic(spec.name)
    siblings = [
        info.partitions
        for topic, info in existing.items()
        if name and name.queue and (other := parse_topic(topic)) and other.queue == name.queue
    ]
    if siblings and min(siblings) < spec.partitions and busy.why(spec.name):
        spec = replace(spec, partitions=min(siblings))
    text = f"create {spec.name} with {spec.partitions} partitions"
    return TopicChange(topic=spec.name, action=Action.CREATE, text=text, spec=spec)


def _partition_changes(spec: TopicSpec, info: TopicInfo, busy: _Busy) -> Iterable[TopicChange]:
    if info.partitions == spec.partitions:
        return
    name = parse_topic(spec.name)
    if name is not None and name.kind is TopicKind.STATUS:
        yield _refused(
            spec,
            f"{spec.name} has {info.partitions} partitions instead of {spec.partitions}, and is never widened: "
            + STATUS_ADVICE.format(found=info.partitions),
        )
        return
    if info.partitions > spec.partitions:
        yield _refused(
            spec,
            f"{spec.name} has {info.partitions} partitions instead of {spec.partitions}, and partitions cannot be "
            "removed; raise the number in the declaration",
        )
        return
    reason = busy.why(spec.name)
    if reason:
        yield _refused(
            spec,
            f"{spec.name} needs {spec.partitions - info.partitions} more partitions, but {reason}: keyed and "
            "idempotent jobs would no longer meet their predecessors; drain the queue first, or say it has no keys",
        )
        return
    text = f"widen {spec.name} from {info.partitions} to {spec.partitions} partitions"
    yield TopicChange(topic=spec.name, action=Action.WIDEN, text=text, spec=spec)


def _config_changes(spec: TopicSpec, differences: Iterable[Difference], *, shorten: bool) -> Iterable[TopicChange]:
    changed: dict[str, str] = {}
    for difference in differences:
        if difference.setting not in spec.config:
            continue
        if _shortens(spec, difference) and not shorten:
            yield _refused(
                spec,
                f"{spec.name} keeps records longer than planned ({difference.setting}={difference.found} instead of "
                f"{difference.wanted}): lowering it deletes what is older, so it must be asked for",
            )
        else:
            changed[difference.setting] = difference.wanted
    if changed:
        text = f"set {', '.join(f'{name}={value}' for name, value in changed.items())} on {spec.name}"
        yield TopicChange(topic=spec.name, action=Action.CONFIGURE, text=text, spec=spec, config=changed)


def _shortens(spec: TopicSpec, difference: Difference) -> bool:
    """Whether making the change lets the broker delete records that it keeps now."""
    keep = spec.config.get("retention.ms", "-1")
    if difference.aspect is Aspect.CLEANUP:
        return keep != "-1" and "delete" in difference.wanted and "delete" not in difference.found
    if difference.aspect is not Aspect.RETENTION or difference.wanted == "-1":
        return False
    try:
        found = int(difference.found)
    except ValueError:
        # The cluster shows no value of the topic's own: the broker's default applies, which we do not know.
        return False
    return found == -1 or found > int(difference.wanted)


def _is_replication(difference: Difference) -> bool:
    return difference.aspect is Aspect.REPLICATION


def _refused(spec: TopicSpec, text: str) -> TopicChange:
    return TopicChange(topic=spec.name, action=Action.REFUSED, text=text, spec=spec)
