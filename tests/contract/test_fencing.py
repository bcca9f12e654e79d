"""The fencing table: what a transaction's offsets are refused for, and the holes that the worker has to close."""

from __future__ import annotations

import pytest

from processor.broker.base import Membership, OffsetCommit, OutRecord, TopicPartition, TransactionalProducer
from processor.errors import ProducerFenced, StaleMembership
from tests.contract.scene import PATIENCE_S, Member, Scene
from tests.contract.test_groups import all_of, join


def refused(scene: Scene, writer: TransactionalProducer, where: TopicPartition, membership: Membership) -> None:
    """This commit, with the record beside it, must come to nothing."""
    before = scene.committed(where)
    writer.begin()
    writer.append([OutRecord(where.topic, None, b"stale", None, where.partition)])
    with pytest.raises(StaleMembership):
        writer.send_offsets([OffsetCommit(where, 99)], scene.group, membership, PATIENCE_S)
    scene.abort(writer)
    assert scene.committed(where) == before
    assert scene.read(where) == []


def accepted(scene: Scene, writer: TransactionalProducer, where: TopicPartition, membership: Membership) -> None:
    """This commit goes through."""
    scene.send(writer, where, 42, membership)
    assert scene.committed(where).offset == 42


def two_members(scene: Scene) -> tuple[Member, Member, Membership]:
    """Two members with one partition each, and the membership that the first had before the second came."""
    topic = scene.topic(partitions=2)
    first = scene.member([topic])
    join(scene, [first], topic, 2)
    old = first.membership
    second = scene.member([topic])
    join(scene, [first, second], topic, 2)
    return first, second, old


def only(partitions: set[TopicPartition]) -> TopicPartition:
    (partition,) = partitions
    return partition


def test_an_old_membership_is_refused_though_the_partition_stayed(scene: Scene) -> None:
    first, _, old = two_members(scene)
    refused(scene, scene.writer("w"), only(first.owned), old)


def test_an_old_membership_is_refused_for_a_partition_that_moved(scene: Scene) -> None:
    _, second, old = two_members(scene)
    refused(scene, scene.writer("w"), only(second.owned), old)


def test_an_old_membership_is_refused_with_unchanged_offsets_too(scene: Scene) -> None:
    first, _, old = two_members(scene)
    where, writer = only(first.owned), scene.writer("w")
    scene.send(writer, where, 5, first.membership)
    writer.begin()
    with pytest.raises(StaleMembership):
        writer.send_offsets([OffsetCommit(where, 5)], scene.group, old, PATIENCE_S)
    scene.abort(writer)


def test_the_present_membership_commits(scene: Scene) -> None:
    first, second, _ = two_members(scene)
    writer = scene.writer("w")
    accepted(scene, writer, only(first.owned), first.membership)
    accepted(scene, writer, only(second.owned), second.membership)


def test_hole_fresh_membership_commits_what_another_member_owns(scene: Scene) -> None:
    first, second, _ = two_members(scene)
    accepted(scene, scene.writer("w"), only(second.owned), first.membership)


def test_hole_a_member_that_never_subscribed_commits_into_an_active_group(scene: Scene) -> None:
    first, _, _ = two_members(scene)
    stranger = scene.broker.group_consumer(scene.group)
    accepted(scene, scene.writer("w"), only(first.owned), stranger.membership())
    stranger.close()


def test_the_membership_of_a_member_that_left_is_refused(scene: Scene) -> None:
    first, second, _ = two_members(scene)
    where = only(second.owned)
    scene.serve([first, second], lambda: len(scene.admin.members(scene.group)) == 2)
    left = second.membership
    second.consumer.unsubscribe()
    scene.serve([first, second], lambda: len(first.owned) == 2)
    refused(scene, scene.writer("w"), where, left)


def silent_member(scene: Scene) -> tuple[Member, Member, TopicPartition]:
    """A healthy member that has taken over from a silent one, which is back but was not polled yet."""
    topic = scene.topic(partitions=2)
    process = scene.harness.process("zombie")
    healthy, zombie = scene.member([topic]), scene.member([topic], broker=process.broker)
    join(scene, [healthy, zombie], topic, 2)
    where = only(zombie.owned)
    process.freeze()
    scene.serve([healthy], lambda: healthy.owned == all_of(topic, 2), "taken over")
    process.thaw()
    return healthy, zombie, where


def test_the_membership_of_a_member_that_timed_out_is_refused(scene: Scene) -> None:
    _, zombie, where = silent_member(scene)
    refused(scene, scene.writer("w"), where, zombie.membership)


def test_a_zombies_old_membership_is_still_refused_after_it_rejoined(scene: Scene) -> None:
    healthy, zombie, where = silent_member(scene)
    old = zombie.membership
    join(scene, [healthy, zombie], where.topic, 2)
    assert zombie.times("lost") == 1
    refused(scene, scene.writer("w"), where, old)


def test_hole_a_zombie_that_rejoined_commits_with_its_fresh_membership(scene: Scene) -> None:
    healthy, zombie, where = silent_member(scene)
    join(scene, [healthy, zombie], where.topic, 2)
    for partition in all_of(where.topic, 2):
        accepted(scene, scene.writer("w"), partition, zombie.membership)


def test_a_predecessor_with_the_same_id_is_fenced_although_its_membership_is_fresh(scene: Scene) -> None:
    first, _, _ = two_members(scene)
    where = only(first.owned)
    old = scene.writer("same")
    old.begin()
    old.append([OutRecord(where.topic, None, b"old", None, where.partition)])
    old.wait_acks(PATIENCE_S)
    new = scene.writer("same")
    with pytest.raises(ProducerFenced):
        old.send_offsets([OffsetCommit(where, 1)], scene.group, first.membership, PATIENCE_S)
    accepted(scene, new, where, first.membership)
    assert scene.read(where) == []


def test_hole_a_transaction_without_offsets_asks_no_group(scene: Scene) -> None:
    _, _, where = silent_member(scene)
    writer = scene.writer("w")
    writer.begin()
    writer.append([OutRecord(where.topic, None, b"anyone", None, where.partition)])
    scene.commit(writer)
    scene.becomes_visible(where, b"anyone")


def test_offsets_of_a_topic_that_the_group_never_subscribed_are_fenced_alike(scene: Scene) -> None:
    first, _, old = two_members(scene)
    due = TopicPartition(scene.topic("due"), 0)
    writer = scene.writer("w")
    accepted(scene, writer, due, first.membership)
    refused(scene, writer, due, old)
