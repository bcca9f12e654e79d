"""Groups of the memory broker: two-step rebalancing, sessions, zombies, static members, and what fences a commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from processor.broker.base import Committed, Membership, OffsetCommit, TopicPartition, TopicSpec
from processor.broker.memory import MemoryBroker, MemoryProcess, ProcessKilled
from processor.broker.memory.consumer import MemoryGroupConsumer
from processor.broker.memory.groups import MembershipMoment
from processor.broker.memory.producer import MemoryTransactionalProducer
from processor.clock import ManualClock
from processor.errors import AbortRequired, BrokerError, MemberFenced

Call = tuple[str, tuple[int, ...], int]


class Worker:
    """A member that writes down its callbacks."""

    def __init__(self, process: MemoryProcess, instance_id: str | None = None, topics: Sequence[str] = ("t",)) -> None:
        self.process = process
        self.calls: list[Call] = []
        self.owned: set[int] = set()
        self.snapshot: Membership | None = None
        self.member: MemoryGroupConsumer = process.group_consumer("g", instance_id=instance_id)
        self.member.subscribe(topics, self)

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self._note("assigned", partitions, membership)
        self.owned |= {p.partition for p in partitions}

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self._note("revoked", partitions, membership)
        self.owned -= {p.partition for p in partitions}

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("lost", tuple(p.partition for p in partitions), -1))
        self.owned -= {p.partition for p in partitions}

    def _note(self, name: str, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self.snapshot = membership
        self.calls.append((name, tuple(p.partition for p in partitions), generation(membership)))


def generation(membership: Membership) -> int:
    return cast("MembershipMoment", membership).generation


def settle(*workers: Worker) -> None:
    for _ in range(6):
        for worker in workers:
            worker.member.poll(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    made = MemoryBroker(clock)
    made.admin().create_topics([TopicSpec(name="t", partitions=4), TopicSpec(name="other", partitions=1)])
    return made


@pytest.fixture
def producer(broker: MemoryBroker) -> MemoryTransactionalProducer:
    made = broker.transactional_producer("x")
    made.init(0)
    return made


def commit(producer: MemoryTransactionalProducer, partition: TopicPartition, offset: int, membership: object) -> None:
    producer.begin()
    try:
        producer.send_offsets([OffsetCommit(partition, offset)], "g", Membership(membership), 0)
        producer.commit(0)
    except AbortRequired:
        producer.abort(0)
        raise


def test_a_single_member_gets_everything(broker: MemoryBroker) -> None:
    worker = Worker(broker.process("a"))
    settle(worker)
    assert worker.calls == [("assigned", (0, 1, 2, 3), 1)]


def test_a_second_member_is_served_in_two_generations(broker: MemoryBroker) -> None:
    first = Worker(broker.process("a"))
    settle(first)
    second = Worker(broker.process("b"))
    settle(first, second)
    assert first.calls[1:] == [("revoked", (2, 3), 2), ("assigned", (), 2), ("assigned", (), 3)]
    assert second.calls == [("assigned", (), 2), ("assigned", (2, 3), 3)]


def test_nobody_owns_a_moving_partition_while_its_owner_still_holds_it(broker: MemoryBroker) -> None:
    first = Worker(broker.process("a"))
    settle(first)
    second = Worker(broker.process("b"))
    settle(second)
    assert second.owned == set()
    settle(first, second)
    assert (first.owned, second.owned) == ({0, 1}, {2, 3})


def test_everybody_gets_an_empty_assignment_in_every_generation(broker: MemoryBroker) -> None:
    workers = [Worker(broker.process(name)) for name in "abcd"]
    settle(*workers)
    before = len(workers[0].calls)
    idle = Worker(broker.process("e"))
    settle(*workers, idle)
    (call,) = workers[0].calls[before:]
    assert call[:2] == ("assigned", ())
    assert idle.calls == [("assigned", (), call[2])]


def test_a_closed_dynamic_member_hands_over_at_once(broker: MemoryBroker) -> None:
    first, second = Worker(broker.process("a")), Worker(broker.process("b"))
    settle(first, second)
    first.member.close()
    settle(second)
    assert second.owned == {0, 1, 2, 3}


def test_unsubscribe_runs_on_revoked_in_a_poll_and_then_leaves(broker: MemoryBroker) -> None:
    first, second = Worker(broker.process("a"), "slot-1"), Worker(broker.process("b"))
    settle(first, second)
    first.member.unsubscribe()
    settle(second)
    assert second.owned == {2, 3}
    first.member.poll(0)
    assert first.calls[-1][:2] == ("revoked", (0, 1))
    settle(second)
    assert second.owned == {0, 1, 2, 3}
    assert [member.instance_id for member in broker.admin().members("g")] == [None]


def test_a_closed_static_member_keeps_its_partitions_until_the_session_ends(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    first, second = Worker(broker.process("a"), "slot-1"), Worker(broker.process("b"), "slot-2")
    settle(first, second)
    first.member.close()
    clock.advance(9)
    settle(second)
    assert second.owned == {2, 3}
    clock.advance(1)
    settle(second)
    assert second.owned == {0, 1, 2, 3}


def test_a_restarted_static_member_takes_its_partitions_and_nobody_else_notices(broker: MemoryBroker) -> None:
    first, second = Worker(broker.process("a"), "slot-1"), Worker(broker.process("b"), "slot-2")
    settle(first, second)
    first.process.kill()
    before = list(second.calls)
    again = Worker(broker.process("a2"), "slot-1")
    settle(again, second)
    assert again.calls == [("assigned", (0, 1), 3)]
    assert second.calls == before


def test_what_a_static_member_gave_up_before_it_was_replaced_stays_without_owner(broker: MemoryBroker) -> None:
    class Dying(Worker):
        def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
            self.process.kill()
            super().on_revoked(partitions, membership)

    first = Dying(broker.process("a"), "slot-1")
    settle(first)
    second = Worker(broker.process("b"), "slot-2")
    first.member.poll(0)
    again = Worker(broker.process("a2"), "slot-1")
    settle(again, second)
    assert (again.owned, second.owned) == ({0, 1}, set())
    third = Worker(broker.process("c"), "slot-3")
    settle(again, second, third)
    assert again.owned | second.owned | third.owned == {0, 1, 2, 3}


def test_close_revokes_what_is_still_owned(broker: MemoryBroker) -> None:
    for instance_id in (None, "slot-1"):
        worker = Worker(broker.process("a"), instance_id)
        settle(worker)
        worker.member.close()
        assert [call[:2] for call in worker.calls] == [("assigned", (0, 1, 2, 3)), ("revoked", (0, 1, 2, 3))]
        worker.member.close()
        assert len(worker.calls) == 2


def test_the_predecessor_of_a_static_member_is_fenced(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    first = Worker(broker.process("a"), "slot-1")
    settle(first)
    again = Worker(broker.process("b"), "slot-1")
    with pytest.raises(MemberFenced):
        settle(first)
    with pytest.raises(AbortRequired, match="UNKNOWN_MEMBER_ID"):
        commit(producer, TopicPartition("t", 0), 1, first.snapshot)
    settle(again)
    assert again.owned == {0, 1, 2, 3}


def test_a_killed_dynamic_member_is_noticed_after_its_session(broker: MemoryBroker, clock: ManualClock) -> None:
    first, second = Worker(broker.process("a")), Worker(broker.process("b"))
    settle(first, second)
    first.process.kill()
    with pytest.raises(ProcessKilled):
        first.member.poll(0)
    clock.advance(9.9)
    settle(second)
    assert second.owned == {2, 3}
    clock.advance(0.1)
    settle(second)
    assert second.owned == {0, 1, 2, 3}


def test_a_zombie_learns_of_its_loss_at_its_next_poll_and_joins_again(broker: MemoryBroker, clock: ManualClock) -> None:
    first, second = Worker(broker.process("a")), Worker(broker.process("b"))
    settle(first, second)
    first.process.freeze()
    clock.advance(11)
    settle(second)
    assert second.owned == {0, 1, 2, 3}
    first.process.thaw()
    assert first.owned == {0, 1}
    before = len(first.calls)
    settle(first, second)
    assert first.calls[before][:2] == ("lost", (0, 1))
    assert len(first.owned) == len(second.owned) == 2


def test_one_frozen_member_of_a_process_times_out_alone(broker: MemoryBroker, clock: ManualClock) -> None:
    process = broker.process("a")
    frozen, healthy = Worker(process), Worker(process)
    settle(frozen, healthy)
    broker.faults.freeze(frozen.member)
    clock.advance(11)
    settle(healthy)
    assert healthy.owned == {0, 1, 2, 3}
    broker.faults.thaw(frozen.member)
    frozen.member.poll(0)
    assert frozen.calls[-1][0] == "lost"


def test_a_member_that_does_not_poll_leaves_after_max_poll_interval(broker: MemoryBroker, clock: ManualClock) -> None:
    stuck, second = Worker(broker.process("a")), Worker(broker.process("b"))
    settle(stuck, second)
    clock.advance(200)
    settle(second)
    assert second.owned == {2, 3}
    clock.advance(100)
    settle(second)
    assert second.owned == {0, 1, 2, 3}
    stuck.member.poll(0)
    assert stuck.calls[-1][:2] == ("lost", (0, 1))


def test_a_member_that_serves_no_callback_holds_up_the_next_generation(broker: MemoryBroker) -> None:
    first = Worker(broker.process("a"))
    settle(first)
    second = Worker(broker.process("b"))
    settle(second)
    third = Worker(broker.process("c"))
    settle(second, third)
    assert third.calls == []
    settle(first, second, third)
    assert third.owned


def test_added_partitions_are_handed_out(broker: MemoryBroker) -> None:
    worker = Worker(broker.process("a"))
    settle(worker)
    broker.admin().add_partitions("t", 5)
    settle(worker)
    assert worker.owned == {0, 1, 2, 3, 4}


def test_an_outage_ends_no_session(broker: MemoryBroker, clock: ManualClock) -> None:
    worker = Worker(broker.process("a"))
    settle(worker)
    broker.faults.outage(True)
    clock.advance(60)
    settle(worker)
    broker.faults.outage(False)
    settle(worker)
    assert [call[0] for call in worker.calls] == ["assigned"]


# What fences a transactional offset commit; the table is measured on Kafka 4.4.


def test_the_membership_of_the_last_assignment_commits(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    worker = Worker(broker.process("a"))
    settle(worker)
    commit(producer, TopicPartition("t", 0), 5, worker.snapshot)
    assert broker.admin().committed("g", [TopicPartition("t", 0)]) == {TopicPartition("t", 0): Committed(5, "")}


@pytest.mark.parametrize(("partition", "offset"), [(0, 6), (0, 5), (3, 5)])
def test_a_membership_older_than_the_generation_is_refused(
    broker: MemoryBroker, producer: MemoryTransactionalProducer, partition: int, offset: int
) -> None:
    first = Worker(broker.process("a"))
    settle(first)
    old = first.snapshot
    commit(producer, TopicPartition("t", partition), 5, old)
    settle(first, Worker(broker.process("b")))
    with pytest.raises(AbortRequired, match="ILLEGAL_GENERATION"):
        commit(producer, TopicPartition("t", partition), offset, old)


def test_inside_on_revoked_only_the_membership_given_to_it_commits(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    outcomes: list[str] = []

    class Flushing(Worker):
        def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
            for moment in (self.snapshot, membership):
                try:
                    commit(producer, partitions[0], 7, moment)
                    outcomes.append("committed")
                except AbortRequired:
                    outcomes.append("refused")
            super().on_revoked(partitions, membership)

    first = Flushing(broker.process("a"))
    settle(first)
    settle(first, Worker(broker.process("b")))
    assert outcomes == ["refused", "committed"]


def test_fresh_membership_commits_a_partition_that_another_member_owns(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    first, second = Worker(broker.process("a")), Worker(broker.process("b"))
    settle(first, second)
    commit(producer, TopicPartition("t", min(second.owned)), 9, first.member.membership())


def test_a_consumer_that_never_subscribed_commits_into_an_active_group(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    settle(Worker(broker.process("a")))
    commit(producer, TopicPartition("t", 0), 9, broker.group_consumer("g").membership())


def test_offsets_of_a_topic_the_group_never_subscribed_commit(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    worker = Worker(broker.process("a"))
    settle(worker)
    commit(producer, TopicPartition("other", 0), 9, worker.snapshot)


def test_a_member_that_left_is_refused(broker: MemoryBroker, producer: MemoryTransactionalProducer) -> None:
    worker = Worker(broker.process("a"))
    settle(worker)
    worker.member.close()
    for moment in (worker.snapshot, worker.member.membership()):
        with pytest.raises(AbortRequired, match="UNKNOWN_MEMBER_ID"):
            commit(producer, TopicPartition("t", 0), 9, moment)


def test_a_zombie_is_refused_until_it_polls_and_then_commits(
    broker: MemoryBroker, producer: MemoryTransactionalProducer, clock: ManualClock
) -> None:
    first, second = Worker(broker.process("a")), Worker(broker.process("b"))
    settle(first, second)
    stale = TopicPartition("t", min(first.owned))
    first.process.freeze()
    clock.advance(11)
    settle(second)
    first.process.thaw()
    for moment in (first.snapshot, first.member.membership()):
        with pytest.raises(AbortRequired, match="UNKNOWN_MEMBER_ID"):
            commit(producer, stale, 9, moment)
    settle(first, second)
    commit(producer, stale, 9, first.member.membership())


def test_an_operator_sets_offsets_only_while_the_group_has_no_members(broker: MemoryBroker) -> None:
    admin = broker.admin()
    p0 = TopicPartition("t", 0)
    admin.commit("g", [OffsetCommit(p0, 3, "note")])
    worker = Worker(broker.process("a"))
    with pytest.raises(BrokerError):
        admin.commit("g", [OffsetCommit(p0, 4)])
    assert admin.committed("g", [p0]) == {p0: Committed(3, "note")}
    worker.member.close()
    broker.faults.forget_offsets("g", [p0])
    assert admin.committed("g", [p0]) == {p0: Committed(None, "")}
