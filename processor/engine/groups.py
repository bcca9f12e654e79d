"""The worker as a member of the group of each queue that it serves: joining, polling, leaving.

A group only holds the membership: it is subscribed to the normal lane of its queue and reads nothing. One client for
each queue; their heartbeats are bounded in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from processor.broker.base import Broker, GroupConsumer, Membership, RebalanceListener, TopicPartition
from processor.engine.config import WorkerConfig
from processor.engine.fence import Fence
from processor.wire.groups import instance_name
from processor.wire.topics import jobs_topic

POLLED_AT_ONCE = 4
"""Members polled in one turn of the loop at most: a turn takes microseconds, so none waits long."""

Rebalanced = Callable[[Fence, Sequence[TopicPartition], Membership], None]


@dataclass(frozen=True, slots=True)
class Listener:
    """Passes a group's callbacks on, with the group's fence. Implements `RebalanceListener`."""

    fence: Fence
    assigned: Rebalanced
    revoked: Rebalanced
    lost: Callable[[Fence, Sequence[TopicPartition]], None]

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self.assigned(self.fence, partitions, membership)

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self.revoked(self.fence, partitions, membership)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.lost(self.fence, partitions)


class Groups:
    """The memberships of one worker, one for each queue."""

    def __init__(self, broker: Broker, config: WorkerConfig, listener: Callable[[str], RebalanceListener]) -> None:
        self._namespace = config.namespace
        self._listener = listener
        self._members: dict[str, GroupConsumer] = {}
        """By queue."""
        for queue in config.queues:
            group = config.group(queue.name)
            instance = instance_name(group, config.slot) if config.static else None
            self._members[queue.name] = broker.group_consumer(group, instance_id=instance, peers=len(config.queues))
        self._round = list(self._members.values())
        self.to_rejoin: set[str] = set()
        """Queues whose groups are to be left and joined again."""

    def subscribe(self, queue: str) -> None:
        """Join the group of a queue."""
        self._members[queue].subscribe([jobs_topic(self._namespace, queue)], self._listener(queue))

    def subscribe_all(self) -> None:
        """Join them all."""
        for queue in self._members:
            self.subscribe(queue)

    def poll(self) -> None:
        """Serve some of the groups, in turn. Runs callbacks.

        Raises:
            MemberFenced, BrokerRefused: as `GroupConsumer.poll`.
        """
        polled = self._round[:POLLED_AT_ONCE]
        if len(self._round) > POLLED_AT_ONCE:
            self._round = [*self._round[POLLED_AT_ONCE:], *polled]
        for member in polled:
            member.poll(0.0)

    def leave(self, queue: str) -> None:
        """Leave the group of a queue; poll until that has been served."""
        self._members[queue].unsubscribe()

    def leave_all(self) -> None:
        """Leave them all."""
        for member in self._members.values():
            member.unsubscribe()

    def close(self) -> None:
        """Let go of the clients."""
        for member in self._members.values():
            member.close()
