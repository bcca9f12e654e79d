"""Names of topics, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import DefinitionError
from processor.job import Lane
from processor.wire import topics
from processor.wire.topics import QueueSpec, TopicKind, TopicName

names = st.from_regex(r"[a-z0-9-]{1,60}", fullmatch=True)


@given(names, names, st.sampled_from(list(Lane)))
def test_a_lane_reads_back(namespace: str, queue: str, lane: Lane) -> None:
    read = topics.parse_topic(topics.jobs_topic(namespace, queue, lane))
    assert read == TopicName(namespace=namespace, kind=TopicKind.JOBS, queue=queue, lane=lane)


def test_every_other_name_reads_back() -> None:
    made = {
        TopicKind.CHECKPOINTS: topics.checkpoints_topic("shop", "bulk"),
        TopicKind.DEDUPE: topics.dedupe_topic("shop", "bulk"),
        TopicKind.RETRY: topics.retry_topic("shop", "10m"),
        TopicKind.DLQ: topics.dlq_topic("shop"),
        TopicKind.STATUS: topics.status_topic("shop"),
        TopicKind.SCHEDULES: topics.schedules_topic("shop"),
        TopicKind.CONTROL: topics.control_topic("shop"),
        TopicKind.AUDIT: topics.audit_topic("shop"),
        TopicKind.ALERTS: topics.alerts_topic("shop"),
    }
    assert set(made) == set(TopicKind) - {TopicKind.JOBS}
    for kind, name in made.items():
        read = topics.parse_topic(name)
        assert read is not None
        assert (read.namespace, read.kind) == ("shop", kind)
    assert made[TopicKind.RETRY] == "shop.retry.10m"


@given(st.text(alphabet="abj.os-Q_", max_size=20) | st.just("shop.jobs.bulk.normal") | st.just("shop.retry.3s"))
def test_what_reads_is_written_the_same(topic: str) -> None:
    read = topics.parse_topic(topic)
    if read is not None and read.kind is TopicKind.JOBS:
        assert topics.jobs_topic(read.namespace, read.queue or "", read.lane or Lane.NORMAL) == topic


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "shop",
        "shop.",
        "shop.jobs",
        "shop.jobs.",
        "shop.jobs.bulk.normal",
        "shop.jobs.bulk.due.x",
        "shop.tasks.bulk",
        "shop.retry.3s",
        "shop.retry",
        "shop.dlq.x",
        "Shop.dlq",
        "shop.checkpoints.bulk.due",
        "__consumer_offsets",
    ],
)
def test_foreign_names_are_not_ours(topic: str) -> None:
    assert topics.parse_topic(topic) is None


@pytest.mark.parametrize("name", ["", "a.b", "Bulk", "x" * 61, "a_b", "a b", "ä", "a\n"])
def test_names_that_cannot_be_part_of_a_topic_are_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="not allowed") as caught:
        QueueSpec(name=name)
    assert "a-z, 0-9" in caught.value.hint


def test_normal_and_due_are_always_there() -> None:
    assert QueueSpec(name="q", lanes=()).all_lanes() == (Lane.DUE, Lane.NORMAL)
    assert QueueSpec(name="q", lanes=(Lane.NORMAL, Lane.LOW, Lane.HIGH)).all_lanes() == topics.LANE_ORDER


@pytest.mark.parametrize("partitions", [0, -1, 10_001])
def test_impossible_partitions_are_refused(partitions: int) -> None:
    with pytest.raises(DefinitionError, match="partitions"):
        QueueSpec(name="q", partitions=partitions)


def test_an_unknown_lane_is_refused() -> None:
    with pytest.raises(DefinitionError, match="no lane") as caught:
        QueueSpec(name="q", lanes=("urgent",))  # type: ignore[arg-type]  # what an untyped caller may write
    assert "high" in caught.value.hint
