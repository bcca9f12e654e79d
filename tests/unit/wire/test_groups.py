"""Names of groups and their members."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processor.wire.groups import (
    former_group,
    forwarder_group,
    instance_name,
    queue_group,
    scheduler_group,
    slot_of,
)

SLOTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@given(st.text(max_size=20), SLOTS)
def test_the_slot_of_a_member_is_in_its_name(group: str, slot: str) -> None:
    assert slot_of(instance_name(group, slot)) == slot


@given(st.text(max_size=20), SLOTS, SLOTS)
def test_two_slots_of_a_group_never_share_a_name(group: str, one: str, other: str) -> None:
    assert (instance_name(group, one) == instance_name(group, other)) is (one == other)


def test_a_stranger_is_named_whole() -> None:
    assert (slot_of("sarama"), slot_of("sarama."), slot_of("")) == ("sarama", "sarama.", "")


def test_remainders_of_many_queues_do_not_all_fall_to_one_worker() -> None:
    slots = [f"host-{number}" for number in range(4)]
    groups = [queue_group("shop", f"queue-{number}") for number in range(40)]
    first = [min(slots, key=lambda slot: instance_name(group, slot)) for group in groups]
    counts = sorted(first.count(slot) for slot in slots)
    assert counts[0] >= 4, "each is first in a good share of the groups"
    assert sum(counts) == 40


def test_no_two_groups_of_a_namespace_have_one_name() -> None:
    names = [queue_group("shop", "workers"), forwarder_group("shop"), scheduler_group("shop"), former_group("shop")]
    assert len(set(names)) == 4
