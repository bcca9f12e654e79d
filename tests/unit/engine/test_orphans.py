"""Numbers that nobody owns find an owner; repeated enqueues of what has just ended do not run."""

from __future__ import annotations

from collections.abc import Sequence

from processor.broker.base import Member, Membership, TopicPartition
from processor.engine.fence import Fence
from processor.engine.orphans import PATIENCE, Orphans
from processor.states import State
from tests.unit.engine.scene import Scene

NUMBERS = [TopicPartition("t", 0), TopicPartition("t", 1)]


def member(name: str, *partitions: int) -> Member:
    owned = tuple(TopicPartition("t", partition) for partition in partitions)
    return Member(member_id=name, instance_id=name, client_id=name, partitions=owned)


def test_a_number_without_owner_counts_only_when_it_stays_so() -> None:
    orphans = Orphans()
    assert not any(orphans.found(NUMBERS, [member("a", 0)]) for _ in range(PATIENCE - 1))
    assert orphans.found(NUMBERS, [member("a", 0)])
    orphans.reset()
    assert not orphans.found(NUMBERS, [member("a", 0)])
    assert not orphans.found(NUMBERS, [member("a", 1)]), "another one: that is a rebalance under way"
    assert not any(orphans.found(NUMBERS, [member("a", 0), member("b", 1)]) for _ in range(2 * PATIENCE))


def test_numbers_given_up_by_a_slot_that_died_before_it_joined_again_find_an_owner(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    dying = scene.start("w-0")
    scene.until(scene.active)
    revoked = dying.worker.ownership.on_revoked

    def die_in_the_callback(fence: Fence, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        revoked(fence, partitions, membership)
        dying.kill()

    dying.worker.ownership.on_revoked = die_in_the_callback  # type: ignore[method-assign]  # the moment of death
    scene.start("w-1")
    scene.until(lambda: dying.over)
    scene.start("w-0")
    scene.until(scene.active, seconds=60.0)
    for number in range(3):
        scene.enqueue("plain", scene.id_for(number))
    scene.settle()


def test_a_repeated_enqueue_of_a_job_that_has_just_ended_does_not_run(scene: Scene) -> None:
    runs: list[str] = []
    scene.define("plain", lambda ctx, payload: runs.append(ctx.id))
    scene.start("w-0")
    scene.enqueue("plain", "job-1")
    scene.settle()
    scene.enqueue("plain", "job-1", derived=True)
    scene.enqueue("plain", "job-2")
    scene.settle()
    scene.until(lambda: not any(scene.lag().values()))
    assert runs.count("job-1") == 1
    assert scene.state_of("job-1") is State.SUCCEEDED
