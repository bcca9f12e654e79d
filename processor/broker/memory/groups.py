"""Consumer groups of the memory broker: the classic protocol with cooperative rebalancing and static membership.

Two sides are kept apart, because a zombie is exactly the case where they differ: a `Seat` is what the coordinator
knows of a member, a `GroupClient` is what the member's own process knows. Heartbeats and joins run in the background of
a live client, as in librdkafka, so they happen in `tick`; only callbacks need the member's own `poll`.

A rebalance: 1. every live member without a callback to serve joins; 2. once all have (or were thrown out) the
generation moves on; 3. whoever must give something up gets `on_revoked`, then `on_assigned`, everybody else
`on_assigned`; 4. members that gave up something join again, and one generation later the new owner gets it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from typing import NamedTuple

from processor.broker.base import Member, OffsetCommit, TopicPartition
from processor.broker.memory.assignor import Assignment, balance, withhold_moving
from processor.broker.memory.offsets import GroupOffsets
from processor.errors import BrokerError, StaleMembership

Partitions = Callable[[Iterable[str]], list[TopicPartition]]
"""The existing partitions of some topics."""


class MembershipMoment(NamedTuple):
    """What `Membership` is here: the group metadata of one moment. Without member id: never subscribed."""

    group: str
    member_id: str
    generation: int
    instance_id: str | None


class Call(Enum):
    """Which callback an event is for."""

    ASSIGNED = auto()
    REVOKED = auto()
    LOST = auto()


class Event(NamedTuple):
    """A callback that waits for the member's next poll."""

    call: Call
    partitions: tuple[TopicPartition, ...]


class GroupClient:
    """What a member's own process knows."""

    def __init__(self, group: str, instance_id: str | None, client_id: str, is_running: Callable[[], bool]) -> None:
        self.group = group
        self.instance_id = instance_id
        self.client_id = client_id
        self._is_running = is_running
        self.frozen = False
        self.closed = False
        self.topics: frozenset[str] = frozenset()
        self.member_id = ""
        self.generation = -1
        self.owned: set[TopicPartition] = set()
        self.events: deque[Event] = deque()
        self.in_callback = False
        self.rejoins = False
        """Gave partitions up: joins again once its callbacks are served."""
        self.leaves = False
        """Unsubscribed: leaves once its callbacks are served."""
        self.fenced = False
        self.stalled = False
        """Did not poll for too long: its background thread has let go of the group until the next poll."""
        self.last_poll = 0.0

    @property
    def beats(self) -> bool:
        """Whether its background thread speaks to the coordinator."""
        return not (self.frozen or self.closed or self.fenced or self.stalled) and self._is_running()

    @property
    def is_free(self) -> bool:
        """Whether it can join: no callback waits or runs."""
        return not self.events and not self.in_callback

    def membership(self) -> MembershipMoment:
        return MembershipMoment(self.group, self.member_id, self.generation, self.instance_id)

    def lose(self) -> None:
        """The coordinator does not know it any more. The generation stays, so what it knew keeps being refused."""
        self.member_id = ""
        self.rejoins = False
        self.events.clear()
        if self.owned or self.in_callback:
            self.events.append(Event(Call.LOST, ()))

    def last_event(self) -> Event | None:
        """The callback that closing runs, as librdkafka does it: what is still owned is revoked, or lost."""
        if self.fenced or self.in_callback or not self.owned:
            return None
        lost = any(event.call is Call.LOST for event in self.events)
        self.events.clear()
        return Event(Call.LOST if lost else Call.REVOKED, tuple(sorted(self.owned)))

    def next_event(self) -> Event | None:
        """The callback to run now. What is lost is looked up only here: a callback may have been running meanwhile."""
        while self.events and not self.in_callback:
            event = self.events.popleft()
            if event.call is not Call.LOST:
                return event
            if self.owned:
                return Event(Call.LOST, tuple(sorted(self.owned)))
        return None


class Seat:
    """What the coordinator knows of a member."""

    def __init__(self, member_id: str, client: GroupClient, now: float) -> None:
        self.member_id = member_id
        self.client = client
        self.topics = client.topics
        self.assigned: set[TopicPartition] = set()
        self.last_heartbeat = now
        self.joined = False


class Group:
    """One consumer group. Every method is called under the broker's lock."""

    def __init__(self, name: str, *, session_seconds: float, poll_seconds: float, partitions: Partitions) -> None:
        self.name = name
        self.offsets = GroupOffsets()
        self.generation = 0
        self._session_seconds = session_seconds
        self._poll_seconds = poll_seconds
        self._partitions = partitions
        self._joins = 0
        self._seats: dict[str, Seat] = {}
        self._clients: list[GroupClient] = []
        self._rebalance_deadline: float | None = None

    # What clients do

    def attach(self, client: GroupClient, now: float) -> None:
        """A consumer subscribed; its background thread starts."""
        client.last_poll = now
        client.leaves = False
        if client not in self._clients:
            self._clients.append(client)
        seat = self._seats.get(client.member_id)
        if seat is not None and seat.topics != client.topics:
            seat.topics = client.topics
            self.rebalance(now)

    def served(self, client: GroupClient, event: Event, now: float) -> None:
        """A callback has run."""
        client.last_poll = now
        if event.call is Call.ASSIGNED:
            client.owned |= set(event.partitions)
        else:
            client.owned -= set(event.partitions)
        if client.events:
            return
        if client.leaves:
            self.leave(client, now)
        elif client.rejoins:
            client.rejoins = False
            self.rebalance(now)

    def unsubscribe(self, client: GroupClient, now: float) -> None:
        """Leave for good: at once without partitions, else after `on_revoked` ran."""
        client.events.clear()
        client.leaves = True
        if client.owned:
            client.events.append(Event(Call.REVOKED, tuple(sorted(client.owned))))
        else:
            self.leave(client, now)

    def leave(self, client: GroupClient, now: float) -> None:
        """Give up the seat at once."""
        seat = self._seats.pop(client.member_id, None)
        # The generation stays: without a member id it is refused, not taken for that of a stranger.
        client.member_id = ""
        client.owned.clear()
        client.events.clear()
        client.topics = frozenset()
        client.leaves = client.rejoins = False
        self.detach(client)
        if seat is not None:
            self.rebalance(now)

    def detach(self, client: GroupClient) -> None:
        """The background thread ends; the seat stays until its session times out."""
        if client in self._clients:
            self._clients.remove(client)

    # What the coordinator does

    def check_commit(self, membership: MembershipMoment) -> None:
        """Kafka's whole test of a transactional offset commit: nothing asks who owns the partition.

        Raises:
            StaleMembership: unknown member, fenced instance or another generation.
        """
        if membership.generation < 0 and not membership.member_id:
            return
        seat = self._seats.get(membership.member_id)
        if seat is None:
            raise StaleMembership(f"UNKNOWN_MEMBER_ID: group {self.name} does not know {membership.member_id!r}")
        if membership.generation != self.generation:
            raise StaleMembership(
                f"ILLEGAL_GENERATION: {membership.generation}, group {self.name} is at {self.generation}"
            )

    def commit(self, offsets: Iterable[OffsetCommit]) -> None:
        """Set offsets from outside.

        Raises:
            BrokerError: the group has members.
        """
        if self._seats:
            raise BrokerError(f"group {self.name} has members; its offsets can be set only while it has none")
        self.offsets.commit(offsets)

    def members(self) -> list[Member]:
        return [
            Member(
                member_id=seat.member_id,
                instance_id=seat.client.instance_id,
                client_id=seat.client.client_id,
                partitions=sorted(seat.assigned),
            )
            for seat in self._seats.values()
        ]

    def rebalance(self, now: float) -> None:
        """Ask every member to join again."""
        if self._rebalance_deadline is None:
            for seat in self._seats.values():
                seat.joined = False
            self._rebalance_deadline = now + self._poll_seconds

    def topics_changed(self, topic: str, now: float) -> None:
        if any(topic in seat.topics for seat in self._seats.values()):
            self.rebalance(now)

    def renew_sessions(self, now: float) -> None:
        """A coordinator that comes up gives every member a whole session."""
        for seat in self._seats.values():
            seat.last_heartbeat = now

    def tick(self, now: float) -> float:
        """Everything that happens in the background up to now; when the next thing falls due."""
        for client in list(self._clients):
            self._background(client, now)
        for seat in list(self._seats.values()):
            if now - seat.last_heartbeat >= self._session_seconds:
                self._expel(seat, now)
        if self._rebalance_deadline is not None:
            self._try_complete(now)
        return self._next_due()

    def _background(self, client: GroupClient, now: float) -> None:
        """One round of a client's background thread."""
        if not client.beats:
            return
        if now - client.last_poll >= self._poll_seconds:
            self._stall(client, now)
            return
        seat = self._seats.get(client.member_id)
        if seat is not None:
            seat.last_heartbeat = now
            return
        if client.member_id:
            self._learn_of_loss(client)
        if not client.fenced and client.is_free and client.topics and not client.leaves:
            self._join(client, now)

    def _stall(self, client: GroupClient, now: float) -> None:
        """max.poll.interval.ms: a dynamic member leaves, a static one only falls silent (KIP-345)."""
        client.stalled = True
        seat = self._seats.get(client.member_id)
        if seat is not None and client.instance_id is None:
            self._expel(seat, now)
        client.lose()

    def _learn_of_loss(self, client: GroupClient) -> None:
        successor = self._by_instance(client.instance_id)
        if successor is not None and successor.client is not client:
            client.fenced = True
        else:
            client.lose()

    def _by_instance(self, instance_id: str | None) -> Seat | None:
        if instance_id is None:
            return None
        return next((seat for seat in self._seats.values() if seat.client.instance_id == instance_id), None)

    def _join(self, client: GroupClient, now: float) -> None:
        self._joins += 1
        client.member_id = f"{client.instance_id or client.client_id}-{self._joins}"
        client.generation = -1
        predecessor = self._by_instance(client.instance_id)
        seat = Seat(client.member_id, client, now)
        if predecessor is None:
            self._seats[client.member_id] = seat
            self.rebalance(now)
            return
        self._seats = {
            (seat.member_id if old is predecessor else member_id): (seat if old is predecessor else old)
            for member_id, old in self._seats.items()
        }
        if self._rebalance_deadline is not None:
            return
        seat.assigned = predecessor.assigned
        client.generation = self.generation
        client.events.append(Event(Call.ASSIGNED, tuple(sorted(seat.assigned))))
        # What a predecessor gave up without joining again stays without an owner until the next rebalance (measured).
        if predecessor.topics != seat.topics:
            self.rebalance(now)

    def _expel(self, seat: Seat, now: float) -> None:
        del self._seats[seat.member_id]
        self.rebalance(now)

    def _try_complete(self, now: float) -> None:
        for seat in list(self._seats.values()):
            client = seat.client
            seat.joined = client.beats and client.is_free and client.member_id == seat.member_id
        waiting = [seat for seat in self._seats.values() if not seat.joined]
        if waiting and self._rebalance_deadline is not None and now < self._rebalance_deadline:
            return
        for seat in waiting:
            del self._seats[seat.member_id]
        self._rebalance_deadline = None
        self._next_generation()

    def _next_generation(self) -> None:
        self.generation += 1
        subscriptions = {seat.member_id: seat.topics for seat in self._seats.values()}
        claims = {seat.member_id: frozenset(seat.client.owned) for seat in self._seats.values()}
        topics = {topic for subscribed in subscriptions.values() for topic in subscribed}
        target = balance(subscriptions, claims, self._partitions(topics))
        self._hand_out(withhold_moving(target, claims), claims)

    def _hand_out(self, target: Assignment, claims: Mapping[str, frozenset[TopicPartition]]) -> None:
        for seat in self._seats.values():
            client = seat.client
            seat.assigned = target[seat.member_id]
            client.generation = self.generation
            revoked = claims[seat.member_id] - seat.assigned
            if revoked:
                client.events.append(Event(Call.REVOKED, tuple(sorted(revoked))))
                client.rejoins = True
            added = seat.assigned - claims[seat.member_id]
            client.events.append(Event(Call.ASSIGNED, tuple(sorted(added))))

    def _next_due(self) -> float:
        due = math.inf if self._rebalance_deadline is None else self._rebalance_deadline
        for client in self._clients:
            if not client.beats:
                continue
            if client.member_id and client.member_id not in self._seats:
                # Thrown out or replaced just now: its next heartbeat tells it.
                return -math.inf
            due = min(due, client.last_poll + self._poll_seconds)
        for seat in self._seats.values():
            if not seat.client.beats or seat.client.member_id != seat.member_id:
                due = min(due, seat.last_heartbeat + self._session_seconds)
        return due
