"""The memory broker's assignor and its offsets, by the laws that Kafka's keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.broker.base import Committed, OffsetCommit, TopicPartition
from processor.broker.memory.assignor import balance, withhold_moving
from processor.broker.memory.offsets import GroupOffsets

MEMBERS, TOPICS = ("a", "b", "c", "d"), ("x", "y")
PARTITIONS = [TopicPartition(topic, number) for topic in TOPICS for number in range(5)]
SUBSCRIPTIONS = st.dictionaries(st.sampled_from(MEMBERS), st.sets(st.sampled_from(TOPICS)), max_size=4)
CLAIMS = st.dictionaries(st.sampled_from(MEMBERS), st.sets(st.sampled_from(PARTITIONS)), max_size=4)
WANTED = st.lists(st.sampled_from(PARTITIONS), unique=True)


@given(SUBSCRIPTIONS, CLAIMS, WANTED)
def test_every_partition_that_somebody_wants_has_one_owner_who_subscribes(
    subscriptions: dict[str, set[str]], claims: dict[str, set[TopicPartition]], wanted: list[TopicPartition]
) -> None:
    target = balance(subscriptions, claims, wanted)
    given_out = [partition for owned in target.values() for partition in owned]
    subscribed = {topic for topics in subscriptions.values() for topic in topics}
    assert sorted(given_out) == sorted(partition for partition in wanted if partition.topic in subscribed)
    assert all(partition.topic in subscriptions[member] for member, owned in target.items() for partition in owned)
    assert balance(subscriptions, target, wanted) == target, "what is balanced stays as it is"


@given(
    st.sets(st.sampled_from(MEMBERS), min_size=1),
    st.dictionaries(st.sampled_from(PARTITIONS), st.sampled_from(MEMBERS)),
    WANTED,
)
def test_members_that_want_the_same_get_as_much_and_keep_what_they_can(
    members: set[str], owners: dict[TopicPartition, str], wanted: list[TopicPartition]
) -> None:
    claims = {member: {place for place, owner in owners.items() if owner == member} for member in MEMBERS}
    target = balance({member: set(TOPICS) for member in members}, claims, wanted)
    counts = [len(owned) for owned in target.values()]
    assert max(counts) - min(counts) <= 1
    least = len(wanted) // len(members)
    for member in members:
        had = claims[member] & set(wanted)
        assert len(target[member] & had) >= min(len(had), least), "no more moves than balance asks for"


@given(SUBSCRIPTIONS, CLAIMS, WANTED)
def test_what_another_still_holds_is_given_to_nobody_yet(
    subscriptions: dict[str, set[str]], claims: dict[str, set[TopicPartition]], wanted: list[TopicPartition]
) -> None:
    target = balance(subscriptions, claims, wanted)
    step = withhold_moving(target, claims)
    for member, owned in step.items():
        assert owned <= target[member]
        assert not any(
            partition in held and partition not in claims.get(member, set())
            for other, held in claims.items()
            if other != member
            for partition in owned
        )
    free = set(wanted) - set().union(*claims.values(), set())
    assert {partition for owned in step.values() for partition in owned} >= free & {
        partition for owned in target.values() for partition in owned
    }


P, Q = PARTITIONS[0], PARTITIONS[1]


def committed(offsets: GroupOffsets) -> Committed:
    return offsets.committed([P])[P]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(1, True), (2, True)], 20),
        ([(2, True), (1, True)], 20),  # written first, ended last: it does not replace what was written later
        ([(2, False), (1, True)], 10),
        ([(1, False), (2, False)], 5),
        ([(1, True), (2, False)], 10),
        ([(3, True), (1, True), (2, True)], 20),
    ],
)
def test_of_pending_offsets_the_one_written_last_counts(ends: list[tuple[int, bool]], expected: int) -> None:
    offsets = GroupOffsets()
    offsets.commit([OffsetCommit(P, 5, "five")])
    offsets.add_pending(1, [OffsetCommit(P, 10)])
    offsets.add_pending(2, [OffsetCommit(P, 20)])
    for producer, commit in ends:
        offsets.finish(producer, commit=commit)
    assert committed(offsets).offset == expected


def test_a_plain_commit_meanwhile_is_the_newest() -> None:
    offsets = GroupOffsets()
    offsets.add_pending(1, [OffsetCommit(P, 10), OffsetCommit(P, 11)])
    assert offsets.is_pending([Q, P])
    assert not offsets.is_pending([Q])
    assert not offsets.is_pending([])
    offsets.commit([OffsetCommit(P, 30, "thirty")])
    offsets.finish(1, commit=True)
    assert committed(offsets) == (30, "thirty")
    assert not offsets.is_pending([P])


@pytest.mark.parametrize(("forgotten", "expected"), [(None, None), ([P], None), ([Q], 5), ([], 5)])
def test_offsets_are_forgotten_as_told(forgotten: list[TopicPartition] | None, expected: int | None) -> None:
    offsets = GroupOffsets()
    offsets.commit([OffsetCommit(P, 5)])
    offsets.forget(forgotten)
    assert committed(offsets) == (expected, "")
