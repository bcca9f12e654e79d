"""The plan of topics, and what differs from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from processor.broker.base import TopicInfo, TopicSpec
from processor.core.topic_plan import Aspect, Severity, compare, lanes_in_plan, topic_plan
from processor.errors import DefinitionError
from processor.job import Lane
from processor.wire.topics import QueueSpec, TopicKind, TopicShape, parse_topic

PLAN = topic_plan("shop", [QueueSpec(name="bulk", lanes=(Lane.HIGH, Lane.LOW)), QueueSpec(name="mail", partitions=3)])


def as_planned(plan: list[TopicSpec]) -> dict[str, TopicInfo]:
    return {s.name: TopicInfo(partitions=s.partitions, replication=1, config=dict(s.config)) for s in plan}


def config(topic: str) -> dict[str, str]:
    return dict(next(spec.config for spec in PLAN if spec.name == topic))


def test_the_order_is_that_of_creation_and_widening() -> None:
    assert [spec.name for spec in PLAN][:10] == [
        "shop.checkpoints.bulk",
        "shop.dedupe.bulk",
        "shop.jobs.bulk.high",
        "shop.jobs.bulk.low",
        "shop.jobs.bulk.due",
        "shop.jobs.bulk",
        "shop.checkpoints.mail",
        "shop.dedupe.mail",
        "shop.jobs.mail.due",
        "shop.jobs.mail",
    ]
    assert lanes_in_plan(PLAN)["shop", "mail"] == [Lane.DUE, Lane.NORMAL]


def test_unfinished_jobs_are_never_deleted_by_age_or_size() -> None:
    for spec in PLAN:
        name = parse_topic(spec.name)
        assert name is not None
        if name.kind in (TopicKind.JOBS, TopicKind.RETRY):
            assert spec.config["retention.ms"] == spec.config["retention.bytes"] == "-1"
            assert spec.config["cleanup.policy"] == "delete"


def test_every_kind_of_topic_is_planned() -> None:
    kinds = {name.kind for spec in PLAN if (name := parse_topic(spec.name))}
    assert kinds == set(TopicKind)
    assert config("shop.checkpoints.bulk")["cleanup.policy"] == "compact"
    assert config("shop.checkpoints.bulk")["segment.bytes"] == "67108864"
    assert config("shop.dedupe.bulk")["retention.ms"] == "86400000"
    assert config("shop.status")["cleanup.policy"] == "compact,delete"
    assert config("shop.retry.1s")["message.timestamp.type"] == "LogAppendTime"


def test_three_replicas_need_two_in_sync() -> None:
    plan = topic_plan("shop", [], shape=TopicShape(replication=3))
    assert all(spec.config["min.insync.replicas"] == "2" and spec.replication == 3 for spec in plan)
    assert "min.insync.replicas" not in config("shop.dlq")


def test_a_queue_is_declared_once() -> None:
    with pytest.raises(DefinitionError, match="twice"):
        topic_plan("shop", [QueueSpec(name="q"), QueueSpec(name="q")])


def test_as_planned_there_is_no_difference() -> None:
    existing = as_planned(PLAN)
    existing["shop.status"] = replace(
        existing["shop.status"], config={**existing["shop.status"].config, "cleanup.policy": "delete, compact"}
    )
    assert compare(PLAN, existing) == []


def test_a_missing_topic_refuses() -> None:
    existing = as_planned(PLAN)
    del existing["shop.dlq"]
    [difference] = compare(PLAN, existing)
    assert (difference.aspect, difference.severity) == (Aspect.MISSING, Severity.REFUSE)
    assert difference.text == "shop.dlq does not exist"


@pytest.mark.parametrize(
    ("topic", "setting", "value", "aspect", "severity"),
    [
        ("shop.jobs.bulk", "retention.ms", "604800000", Aspect.RETENTION, Severity.REFUSE),
        ("shop.jobs.bulk.due", "retention.bytes", "1000", Aspect.RETENTION, Severity.REFUSE),
        ("shop.jobs.bulk", "cleanup.policy", "compact", Aspect.CLEANUP, Severity.REFUSE),
        ("shop.checkpoints.bulk", "cleanup.policy", "delete", Aspect.CLEANUP, Severity.REFUSE),
        ("shop.retry.1h", "message.timestamp.type", "CreateTime", Aspect.CONFIG, Severity.REFUSE),
        ("shop.dlq", "retention.ms", "1000", Aspect.RETENTION, Severity.WARN),
        ("shop.checkpoints.bulk", "segment.ms", "1000", Aspect.CONFIG, Severity.WARN),
        ("shop.jobs.bulk", "max.message.bytes", "1000", Aspect.CONFIG, Severity.WARN),
    ],
)
def test_a_setting_that_differs(topic: str, setting: str, value: str, aspect: Aspect, severity: Severity) -> None:
    existing = as_planned(PLAN)
    existing[topic] = replace(existing[topic], config={**existing[topic].config, setting: value})
    [difference] = compare(PLAN, existing)
    assert (difference.topic, difference.setting, difference.found) == (topic, setting, value)
    assert (difference.aspect, difference.severity) == (aspect, severity)
    assert f"{setting}={value} instead of " in difference.text


def test_more_or_fewer_partitions_are_named_and_tolerated() -> None:
    existing = {name: replace(info, partitions=info.partitions + 1) for name, info in as_planned(PLAN).items()}
    found = compare(PLAN, existing)
    assert {(d.aspect, d.severity) for d in found} == {(Aspect.PARTITIONS, Severity.WARN)}
    assert "cannot be removed" in found[0].text
    existing = as_planned(PLAN)
    existing["shop.jobs.bulk"] = replace(existing["shop.jobs.bulk"], partitions=6)
    [difference] = compare(PLAN, existing)
    assert difference.severity is Severity.WARN
    assert "6 partitions instead of 12: more can be added" in difference.text


def test_a_number_without_a_place_to_save_refuses() -> None:
    existing = as_planned(PLAN)
    existing["shop.checkpoints.bulk"] = replace(existing["shop.checkpoints.bulk"], partitions=6)
    found = compare(PLAN, existing)
    assert [d.severity for d in found] == [Severity.WARN, Severity.REFUSE]
    assert "shop.checkpoints.bulk has 6 partitions but shop.dedupe.bulk has 12" in found[1].text


def test_fewer_replicas_are_a_warning() -> None:
    plan = topic_plan("shop", [], shape=TopicShape(replication=3))
    found = compare(plan, as_planned(plan))
    assert {(d.aspect, d.severity) for d in found} == {(Aspect.REPLICATION, Severity.WARN)}
