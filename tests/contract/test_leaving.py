"""What a member leaves behind: by closing, and by dying between the two steps of a rebalance."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from processor.broker.base import Membership, TopicPartition
from processor.errors import AbortRequired
from tests.contract.harness import SESSION_S
from tests.contract.scene import PATIENCE_S, Member, Scene
from tests.contract.test_groups import all_of, join
from tests.waiting import eventually


@pytest.mark.parametrize("instance", [None, "slot"])
def test_closing_revokes_what_is_still_owned(scene: Scene, instance: str | None) -> None:
    topic = scene.topic(partitions=2)
    member = scene.member([topic], instance=instance)
    join(scene, [member], topic, 2)
    member.consumer.close()
    assert [name for name, _ in member.calls] == ["assigned", "revoked"]
    assert member.owned == set()


def test_the_membership_after_leaving_is_not_that_of_a_stranger(scene: Scene) -> None:
    topic = scene.topic(partitions=1)
    member = scene.member([topic])
    join(scene, [member], topic, 1)
    member.consumer.unsubscribe()
    scene.serve([member], lambda: not scene.admin.members(scene.group))
    writer = scene.writer("w")
    with pytest.raises(AbortRequired, match="UNKNOWN_MEMBER_ID"):
        scene.send(writer, TopicPartition(topic, 0), 1, member.consumer.membership())


def test_what_was_given_up_by_a_static_member_that_was_then_replaced_has_no_owner(scene: Scene) -> None:
    """It dies between `on_revoked` and joining again; its successor takes the seat without a rebalance, so nobody ever
    asks for the second step. Only the next rebalance finds the partitions a home (measured: none within 40 s).
    """
    topic = scene.topic(partitions=4)

    class Dying(Exception):
        """Out of the callback, never to poll again."""

    def die(partitions: Sequence[TopicPartition], membership: Membership) -> None:
        raise Dying

    process = scene.harness.process("dies")
    dying = Member(process.broker.group_consumer(scene.group, instance_id="one"))
    dying.consumer.subscribe([topic], dying)
    join(scene, [dying], topic, 4)
    kept = set(dying.owned)
    dying.during_revoke = die
    two = scene.member([topic], instance="two")

    def has_died() -> bool:
        try:
            dying.consumer.poll(0.02)
        except Dying:
            return True
        return False

    eventually(has_died, PATIENCE_S)
    process.kill()
    again = scene.member([topic], instance="one")
    scene.serve([again, two], lambda: again.owned and two.calls)
    scene.settle([again, two])
    over = time.monotonic() + SESSION_S * 2
    scene.serve([again, two], lambda: time.monotonic() > over)
    assert (len(again.owned), two.owned) == (2, set())
    assert again.owned < kept
    three = scene.member([topic], instance="three")
    members = [again, two, three]
    scene.serve(members, lambda: set().union(*(member.owned for member in members)) == all_of(topic, 4))
