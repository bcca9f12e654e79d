"""Cooperative-sticky assignment: balanced, and moving as little as possible."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set

from processor.broker.base import TopicPartition

Assignment = dict[str, set[TopicPartition]]


def balance(
    subscriptions: Mapping[str, Set[str]],
    claims: Mapping[str, Set[TopicPartition]],
    partitions: Sequence[TopicPartition],
) -> Assignment:
    """Who should own what in the end, given what each member owns now."""
    members = sorted(subscriptions)
    target: Assignment = {member: set() for member in members}
    wanted = set(partitions)
    taken: set[TopicPartition] = set()
    for member in members:
        keeps = {
            p for p in claims.get(member, ()) if p in wanted and p not in taken and p.topic in subscriptions[member]
        }
        target[member] = set(keeps)
        taken |= keeps
    for partition in sorted(wanted - taken):
        eligible = [member for member in members if partition.topic in subscriptions[member]]
        if eligible:
            target[min(eligible, key=lambda member: (len(target[member]), member))].add(partition)
    while _move_one(target, subscriptions, members):
        pass
    return target


def _move_one(target: Assignment, subscriptions: Mapping[str, Set[str]], members: Collection[str]) -> bool:
    """Move one partition from a member to one that has at least two fewer; False once balanced."""
    by_load = sorted(members, key=lambda member: (len(target[member]), member))
    for receiver in by_load:
        for giver in reversed(by_load):
            if len(target[giver]) - len(target[receiver]) < 2:
                break
            movable = [partition for partition in target[giver] if partition.topic in subscriptions[receiver]]
            if movable:
                partition = max(movable)
                target[giver].discard(partition)
                target[receiver].add(partition)
                return True
    return False


def withhold_moving(target: Assignment, claims: Mapping[str, Set[TopicPartition]]) -> Assignment:
    """The cooperative half step: what another member still holds is given to nobody yet."""
    held = {partition: member for member, owned in claims.items() for partition in owned}
    return {
        member: {partition for partition in owned if held.get(partition, member) == member}
        for member, owned in target.items()
    }
