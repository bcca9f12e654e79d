"""Who owns what, who is told, and when."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from processor.broker.base import Membership, OffsetCommit, TopicPartition
from processor.errors import MemberFenced, StaleMembership
from processor.wire.groups import instance_name
from tests.contract.harness import SESSION_S
from tests.contract.scene import PATIENCE_S, Member, Scene
from tests.waiting import eventually

QUIET_S = 0.5
"""A few heartbeats: who has not been called back for so long has nothing to hear."""


def all_of(topic: str, count: int) -> set[TopicPartition]:
    return {TopicPartition(topic, number) for number in range(count)}


def join(scene: Scene, members: Sequence[Member], topic: str, count: int) -> None:
    """Serve until these members share the topic fairly."""

    def shared() -> bool:
        owned = [partition for member in members for partition in member.owned]
        sizes = [len(member.owned) for member in members]
        return len(owned) == count and set(owned) == all_of(topic, count) and max(sizes) - min(sizes) <= 1

    scene.serve(members, shared, "partitions shared")
    # Whoever gave nothing up hears of the last generation after the others. No question shows that it has heard.
    quiet_since, calls = time.monotonic(), -1

    def quiet() -> bool:
        nonlocal quiet_since, calls
        now = sum(len(member.calls) for member in members)
        if now != calls:
            quiet_since, calls = time.monotonic(), now
        return time.monotonic() - quiet_since > QUIET_S and shared()

    scene.serve(members, quiet, "partitions shared and all told")
    scene.settle(members)


def test_a_lone_member_owns_everything(scene: Scene) -> None:
    topic = scene.topic(partitions=4)
    member = scene.member([topic])
    join(scene, [member], topic, 4)
    assert [name for name, _ in member.calls] == ["assigned"]
    (told,) = scene.admin.members(scene.group)
    assert set(told.partitions) == member.owned
    assert told.instance_id is None
    assert told.member_id


def test_a_group_without_members_has_none(scene: Scene) -> None:
    assert scene.admin.members(scene.group) == []


def test_joining_moves_some_partitions_and_leaves_the_others_alone(scene: Scene) -> None:
    topic = scene.topic(partitions=4)
    first = scene.member([topic])
    join(scene, [first], topic, 4)
    second = scene.member([topic])
    join(scene, [first, second], topic, 4)
    revoked = {partition for name, partitions in first.calls if name == "revoked" for partition in partitions}
    assert revoked == second.owned
    assert first.times("lost") == 0


def test_a_member_of_the_same_generation_is_told_with_an_empty_list(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    first, second = scene.member([topic]), scene.member([topic])
    join(scene, [first, second], topic, 2)
    before = len(first.calls)
    old = first.membership
    third = scene.member([topic])
    scene.serve([first, second, third], lambda: third.calls and first.calls[before:], "told of the new generation")
    assert first.calls[before:] == [("assigned", ())]
    assert third.owned == set()
    (mine,) = first.owned
    writer = scene.writer("w")
    writer.begin()
    with pytest.raises(StaleMembership):
        writer.send_offsets([OffsetCommit(mine, 1)], scene.group, old, PATIENCE_S)
    scene.abort(writer)
    scene.send(writer, mine, 1, first.membership)
    assert scene.committed(mine).offset == 1


def test_leaving_gives_partitions_to_the_others(scene: Scene) -> None:
    topic = scene.topic(partitions=4)
    first, second = scene.member([topic]), scene.member([topic])
    join(scene, [first, second], topic, 4)
    second.consumer.unsubscribe()
    scene.serve([first, second], lambda: first.owned == all_of(topic, 4), "handed over")
    assert second.owned == set()
    assert second.times("lost") == 0
    assert second.times("revoked") >= 1


def test_closing_a_dynamic_member_hands_over_at_once(scene: Scene) -> None:
    topic = scene.topic(partitions=4)
    first, second = scene.member([topic]), scene.member([topic])
    join(scene, [first, second], topic, 4)
    second.consumer.close()
    scene.serve([first], lambda: first.owned == all_of(topic, 4), "handed over")


def test_the_generation_has_moved_before_revoke_and_only_its_membership_commits(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    first = scene.member([topic])
    join(scene, [first], topic, 2)
    writer, stale = scene.writer("w"), scene.writer("stale")
    old = first.membership
    outcome: dict[str, object] = {}

    def flush(partitions: Sequence[TopicPartition], membership: Membership) -> None:
        if not partitions or outcome:
            return
        stale.begin()
        try:
            stale.send_offsets([OffsetCommit(partitions[0], 1)], scene.group, old, PATIENCE_S)
        except StaleMembership as error:
            outcome["old"] = error
        scene.abort(stale)
        scene.send(writer, partitions[0], 7, membership)
        outcome["given"] = partitions[0]

    first.during_revoke = flush
    second = scene.member([topic])
    join(scene, [first, second], topic, 2)
    assert isinstance(outcome["old"], StaleMembership)
    (moved,) = second.owned
    assert outcome["given"] == moved
    assert scene.committed(moved).offset == 7


def test_a_partition_is_revoked_before_it_is_assigned_elsewhere(scene: Scene) -> None:
    topic = scene.topic(partitions=3)
    first = scene.member([topic])
    join(scene, [first], topic, 3)
    second = scene.member([topic])
    overlaps: list[set[TopicPartition]] = []

    def never_both() -> bool:
        overlaps.append(first.owned & second.owned)
        return len(first.owned | second.owned) == 3 and bool(second.owned) and bool(first.owned)

    scene.serve([first, second], never_both)
    assert not any(overlaps)


def test_a_silent_member_loses_its_partitions_and_is_told_lost(scene: Scene) -> None:
    topic = scene.topic(partitions=4)
    process = scene.harness.process("silent")
    healthy, silent = scene.member([topic]), scene.member([topic], broker=process.broker)
    join(scene, [healthy, silent], topic, 4)
    process.freeze()
    scene.serve([healthy], lambda: healthy.owned == all_of(topic, 4), "taken over")
    process.thaw()
    scene.serve([healthy, silent], lambda: silent.times("lost") == 1, "told lost")
    join(scene, [healthy, silent], topic, 4)


def test_a_killed_members_partitions_are_taken_over(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    process = scene.harness.process("killed")
    healthy = scene.member([topic])
    killed = Member(process.broker.group_consumer(scene.group))
    killed.consumer.subscribe([topic], killed)
    join(scene, [healthy, killed], topic, 2)
    process.kill()
    scene.serve([healthy], lambda: healthy.owned == all_of(topic, 2), "taken over")
    assert healthy.times("lost") == 0


def test_what_a_listener_raises_comes_out_of_poll(scene: Scene) -> None:
    topic = scene.topic()

    class Broken(Member):
        def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
            raise LookupError("listener")

    consumer = scene.broker.group_consumer(scene.group)
    consumer.subscribe([topic], Broken(consumer))

    def poll() -> bool:
        try:
            consumer.poll(0.05)
        except LookupError:
            return True
        return False

    eventually(poll, PATIENCE_S)
    consumer.close()


def test_a_restarted_static_member_gets_its_partitions_without_a_rebalance(scene: Scene) -> None:
    topic = scene.topic(partitions=4)
    other = scene.member([topic], instance="other")
    process = scene.harness.process("first-life")
    first = Member(process.broker.group_consumer(scene.group, instance_id="mine"))
    first.consumer.subscribe([topic], first)
    join(scene, [other, first], topic, 4)
    scene.serve([other, first], lambda: len(scene.admin.members(scene.group)) == 2)
    had, calls = set(first.owned), list(other.calls)
    process.kill()
    second = scene.member([topic], instance="mine")
    scene.serve([other, second], lambda: second.owned == had, "same partitions")
    assert other.calls == calls
    assert {member.instance_id for member in scene.admin.members(scene.group)} == {"mine", "other"}


def test_a_duplicate_instance_fences_the_older_process(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    old = scene.member([topic], instance="same")
    join(scene, [old], topic, 2)
    new = scene.member([topic], instance="same")

    def fenced() -> bool:
        new.consumer.poll(0.02)
        try:
            old.consumer.poll(0.02)
        except MemberFenced:
            return True
        return False

    eventually(fenced, PATIENCE_S)
    join(scene, [new], topic, 2)


def test_unsubscribe_hands_a_static_members_partitions_over_at_once(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    stays, goes = scene.member([topic], instance="stays"), scene.member([topic], instance="goes")
    join(scene, [stays, goes], topic, 2)
    goes.consumer.unsubscribe()
    scene.serve([stays, goes], lambda: stays.owned == all_of(topic, 2), "handed over")
    assert [member.instance_id for member in scene.admin.members(scene.group)] == ["stays"]


def test_close_alone_keeps_a_static_members_partitions_until_its_session_ends(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    stays, goes = scene.member([topic], instance="stays"), scene.member([topic], instance="goes")
    join(scene, [stays, goes], topic, 2)
    kept = set(goes.owned)
    goes.consumer.close()
    assert {member.instance_id for member in scene.admin.members(scene.group)} == {"stays", "goes"}
    assert not stays.owned & kept
    scene.serve([stays], lambda: stays.owned == all_of(topic, 2), f"session of {SESSION_S} s over")


def test_lanes_held_by_hand_follow_joins_leaves_and_losses(scene: Scene) -> None:
    normal, due = scene.topic("normal", partitions=4), scene.topic("due", partitions=4)
    process = scene.harness.process("p")
    first, second = scene.member([normal]), scene.member([normal], broker=process.broker)
    join(scene, [first, second], normal, 4)

    def both_commit(members: Sequence[Member], offset: int) -> None:
        for at, member in enumerate(members):
            for number in {partition.partition for partition in member.owned}:
                where = TopicPartition(due, number)
                scene.send(scene.writer(f"w{at}"), where, offset, member.membership)
                assert scene.committed(where).offset == offset

    both_commit([first, second], 1)
    process.freeze()
    scene.serve([first], lambda: len(first.owned) == 4)
    both_commit([first], 2)
    process.thaw()
    scene.serve([first, second], lambda: second.times("lost") == 1)
    join(scene, [first, second], normal, 4)
    both_commit([first, second], 3)
    second.consumer.unsubscribe()
    scene.serve([first, second], lambda: len(first.owned) == 4)
    both_commit([first], 4)


def test_added_partitions_are_assigned_by_and_by(scene: Scene) -> None:
    topic = scene.topic(partitions=1)
    member = scene.member([topic])
    join(scene, [member], topic, 1)
    scene.admin.add_partitions(topic, 3)
    assert scene.admin.topics([topic])[topic].partitions == 3
    later = scene.member([topic])
    join(scene, [member, later], topic, 3)


def test_groups_of_two_queues_are_balanced_each_by_itself(scene: Scene) -> None:
    """Each process is a member of both groups, as workers are: whoever joins gets its share of either topic."""
    sizes = {scene.topic("busy", partitions=7): 7, scene.topic("idle", partitions=4): 4}
    crew: dict[str, list[Member]] = {topic: [] for topic in sizes}

    def everybody() -> list[Member]:
        return [member for members in crew.values() for member in members]

    def is_fair(topic: str) -> bool:
        counts = [len(member.owned) for member in crew[topic]]
        return sum(counts) == sizes[topic] and max(counts) - min(counts) <= 1

    for place in range(4):
        for topic in sizes:
            instance = instance_name(f"{topic}-group", f"host-{place}")
            member = Member(scene.broker.group_consumer(f"{topic}-group", instance_id=instance, peers=2))
            member.consumer.subscribe([topic], member)
            crew[topic].append(member)
        scene.serve(everybody(), lambda: all(map(is_fair, sizes)), "both shared")
    for member in everybody():
        if member not in {members[0] for members in crew.values()}:
            member.consumer.unsubscribe()
    stayed = {topic: members[0] for topic, members in crew.items()}
    scene.serve(
        everybody(), lambda: {topic: len(member.owned) for topic, member in stayed.items()} == sizes, "all back"
    )
    for member in everybody():
        member.consumer.close()
