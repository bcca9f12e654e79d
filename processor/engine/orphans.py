"""The census: numbers that no member of the group owns find an owner again.

A static member that gives partitions up and dies before it has joined again leaves them to nobody: its successor takes
its seat without a rebalance, and only the next rebalance would hand them out (measured: none within 40 s). So every
member of a queue's group asks from time to time who owns what there. If something has had no owner for several askings
in a row, the member whose instance comes first leaves and joins again: that is a rebalance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from processor.broker.base import Member, TopicPartition
from processor.engine.upkeep import AskMembers, Members, Upkeep
from processor.wire.groups import slot_of

if TYPE_CHECKING:
    from processor.engine.state import EngineState

EVERY = 5.0
"""Seconds between two askings."""
PATIENCE = 3
"""Askings in a row after which it is no rebalance under way any more."""


class Orphans:
    """How often in a row the same numbers had no owner. Pure."""

    def __init__(self) -> None:
        self._seen: frozenset[TopicPartition] = frozenset()
        self._times = 0

    def found(self, all_numbers: Sequence[TopicPartition], members: Sequence[Member]) -> bool:
        """Whether some of them have had no owner for `PATIENCE` askings."""
        owned = {partition for member in members for partition in member.partitions}
        orphans = frozenset(all_numbers) - owned
        self._times = self._times + 1 if orphans and orphans == self._seen else 1
        self._seen = orphans
        return bool(orphans) and self._times >= PATIENCE

    def reset(self) -> None:
        """Something is being done about it."""
        self._seen, self._times = frozenset(), 0


class OrphanWatch:
    """Lets a member join again when partitions have no owner. On the owning thread; `Upkeep` asks the cluster."""

    def __init__(self, engine: EngineState, upkeep: Upkeep) -> None:
        self._engine = engine
        self._upkeep = upkeep
        self._next = engine.clock.monotonic() + EVERY
        self._queues = {engine.config.group(queue.name): queue.name for queue in engine.queues.values()}
        self._orphans = {group: Orphans() for group in self._queues}
        self._numbers = {
            engine.config.group(queue.name): [TopicPartition(topic, number) for number in range(queue.partitions)]
            for topic, queue in engine.normal_topics.items()
        }

    def turn(self, now: float) -> None:
        """Called every turn of the loop. `now`: monotonic seconds."""
        # A dynamic member takes no seat over without a rebalance, so it leaves no orphans either.
        if self._engine.config.static and now >= self._next:
            self._next = now + EVERY
            for group in self._queues:
                self._upkeep.ask(AskMembers(group))

    def counted(self, roll: Members) -> set[str]:
        """The cluster has answered; the queues whose group this worker is to leave and join again."""
        first = min((member.instance_id for member in roll.members if member.instance_id), default="")
        orphans = self._orphans[roll.group]
        if not orphans.found(self._numbers[roll.group], roll.members):
            return set()
        orphans.reset()
        return {self._queues[roll.group]} if slot_of(first) == self._engine.config.slot else set()
