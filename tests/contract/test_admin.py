"""Questions and changes outside the hot path."""

from __future__ import annotations

import pytest

from processor.broker.base import Committed, Isolation, OffsetCommit, OutRecord, TopicPartition, TopicSpec
from processor.errors import BrokerError
from tests.contract.scene import PATIENCE_S, Scene
from tests.waiting import eventually


def test_the_cluster_has_a_name_and_brokers(scene: Scene) -> None:
    cluster = scene.admin.cluster()
    assert cluster.cluster_id
    assert cluster.brokers >= 1
    assert scene.admin.cluster() == cluster


def test_topics_are_created_as_specified_and_missing_ones_left_out(scene: Scene) -> None:
    topic = scene.topic(partitions=3, cleanup_policy="compact")
    found = scene.admin.topics([topic, f"{scene.name}.missing"], configs=True)
    assert set(found) == {topic}
    assert (found[topic].partitions, found[topic].replication) == (3, 1)
    assert found[topic].config["cleanup.policy"] == "compact"
    assert topic in scene.admin.topics()
    assert scene.admin.topics([]) == {}


def test_an_existing_topic_is_left_as_it_is(scene: Scene) -> None:
    topic = scene.topic(partitions=3)
    other = f"{scene.name}.other"
    scene.admin.create_topics([TopicSpec(name=topic, partitions=9), TopicSpec(name=other, partitions=1)])
    found = scene.admin.topics([topic, other])
    assert found[topic].partitions == 3
    assert found[other].partitions == 1
    scene.admin.create_topics([])


def test_a_created_topic_can_be_written_at_once(scene: Scene) -> None:
    for number in range(3):
        where = TopicPartition(scene.topic(f"t{number}", partitions=2), 1)
        scene.fill(where, b"x")
        assert scene.read(where) == [b"x"]


def test_configuration_is_changed_entry_by_entry(scene: Scene) -> None:
    topic = scene.topic(cleanup_policy="compact")
    scene.admin.set_topic_config(topic, {"retention.ms": "1234567"})
    config = scene.admin.topics([topic], configs=True)[topic].config
    assert config["retention.ms"] == "1234567"
    assert config["cleanup.policy"] == "compact"


def test_partitions_are_added_and_never_removed(scene: Scene) -> None:
    topic = scene.topic(partitions=1)
    scene.admin.add_partitions(topic, 3)
    scene.fill(TopicPartition(topic, 2), b"x")
    assert scene.read(TopicPartition(topic, 2)) == [b"x"]
    with pytest.raises(BrokerError):
        scene.admin.add_partitions(topic, 2)


def test_begin_and_end_of_an_empty_partition(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    assert scene.admin.begin_offsets([where]) == {where: 0}
    for isolation in Isolation:
        assert scene.admin.end_offsets([where], isolation) == {where: 0}
    assert scene.admin.end_offsets([]) == {}


def test_ends_of_an_unknown_partition_are_an_error(scene: Scene) -> None:
    with pytest.raises(BrokerError):
        scene.admin.end_offsets([TopicPartition(f"{scene.name}.missing", 0)])


def test_records_are_deleted_before_an_offset(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    where, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for partition in (where, other):
        scene.fill(partition, b"0", b"1", b"2")
    scene.admin.delete_records({where: 2})
    assert scene.admin.begin_offsets([where, other]) == {where: 2, other: 0}
    assert scene.admin.end_offsets([where]) == {where: 3}
    reading = scene.reading(where, start=2)
    reading.step(5.0)
    assert reading.values() == [b"2"]
    scene.admin.delete_records({})


def test_no_offset_is_committed_until_one_is(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    where, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    nothing = Committed(None, "")
    assert scene.admin.committed(scene.group, [where, other]) == {where: nothing, other: nothing}
    scene.admin.commit(scene.group, [OffsetCommit(where, 0, "zero")])
    assert scene.admin.committed(scene.group, [where, other]) == {where: Committed(0, "zero"), other: nothing}
    assert scene.admin.committed(scene.group, [where], stable=False) == {where: Committed(0, "zero")}
    assert scene.admin.committed(scene.group, []) == {}


def test_offsets_of_a_group_with_members_are_not_set_by_hand(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    member = scene.member([where.topic])
    scene.serve([member], lambda: member.owned)
    with pytest.raises(BrokerError):
        scene.admin.commit(scene.group, [OffsetCommit(where, 1)])
    member.consumer.close()
    scene.admin.commit(scene.group, [OffsetCommit(where, 1)])
    assert scene.committed(where).offset == 1


def test_true_end_and_last_stable_offset_differ_while_a_transaction_is_open(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    scene.fill(where, b"0")
    writer = scene.writer("w")
    writer.begin()
    writer.append([OutRecord(where.topic, None, b"open", None, 0)])
    writer.wait_acks(PATIENCE_S)
    scene.fill(where, b"later")
    assert scene.admin.end_offsets([where], Isolation.COMMITTED) == {where: 1}
    assert scene.admin.end_offsets([where], Isolation.UNCOMMITTED) == {where: 3}
    scene.commit(writer)


def test_the_first_record_of_a_time_is_found(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    where, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
    scene.fill(where, b"a", b"b", b"c")
    reading = scene.reading(where)
    eventually(lambda: len(reading.records) == 3, PATIENCE_S, step=reading.step)
    times = [record.timestamp()[1] for record in reading.records]
    assert scene.admin.offsets_at({where: 0, empty: 0}) == {where: 0}
    assert scene.admin.offsets_at({where: -5}) == {where: 0}
    assert scene.admin.offsets_at({where: times[2]}) == {where: times.index(times[2])}
    assert scene.admin.offsets_at({where: times[2] + 1}) == {}
    assert scene.admin.offsets_at({}) == {}
