"""Group members and readers of the memory broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from processor.broker.base import (
    Batch,
    End,
    Isolation,
    Membership,
    PartitionFault,
    RebalanceListener,
    TopicPartition,
)
from processor.broker.memory.cluster import Cluster, Process
from processor.broker.memory.groups import Call, Event, GroupClient
from processor.broker.memory.log import MemoryRecord
from processor.errors import BrokerError, MemberFenced


class MemoryGroupConsumer:
    """`base.GroupConsumer`. One callback per `poll`, as it comes."""

    def __init__(self, cluster: Cluster, process: Process, group: str, instance_id: str | None) -> None:
        self._cluster = cluster
        self._process = process
        self._group = cluster.group(group)
        self._listener: RebalanceListener | None = None
        self.client = GroupClient(group, instance_id, process.name, process.is_running)

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        with self._cluster.call(self._process, "subscribe"):
            self._listener = listener
            self.client.topics = frozenset(topics)
            self._group.attach(self.client, self._cluster.clock.monotonic())
            self._cluster.touch()
            self._cluster.tick()

    def poll(self, timeout: float) -> None:
        with self._cluster.call(self._process, "poll"):
            self._polled()
        # A poll that waits long is still a poll: max.poll.interval.ms must not run out meanwhile.
        step = self._cluster.limits.poll_seconds / 3
        deadline = self._cluster.clock.monotonic() + timeout
        while True:
            remaining = max(0.0, deadline - self._cluster.clock.monotonic())
            event = self._cluster.until(self._process, self._take, self._has_news, min(remaining, step))
            if event is not None:
                self._serve(event)
                return
            if remaining <= step:
                return

    def membership(self) -> Membership:
        with self._cluster.call(self._process):
            return Membership(self.client.membership())

    def unsubscribe(self) -> None:
        with self._cluster.call(self._process, "unsubscribe"):
            self._group.unsubscribe(self.client, self._cluster.clock.monotonic())
            self._changed()

    def close(self) -> None:
        """Runs `on_revoked` if it still owns something. Then a dynamic member leaves at once; a static one keeps its
        seat until the session ends, unless it unsubscribed.
        """
        with self._cluster.call(self._process, "close"):
            event = None if self.client.closed else self.client.last_event()
            self.client.in_callback = event is not None
        if event is not None:
            self._serve(event)
        with self._cluster.lock:
            if self.client.instance_id is None:
                self._group.leave(self.client, self._cluster.clock.monotonic())
            else:
                self._group.detach(self.client)
            self.client.closed = True
            self._changed()

    def _take(self) -> Event | None:
        self._polled()
        if self.client.fenced:
            raise MemberFenced(f"another process joined {self._group.name} as {self.client.instance_id}")
        if self._cluster.plan.outage or self.client.frozen:
            return None
        event = self.client.next_event()
        self.client.in_callback = event is not None
        return event

    def _has_news(self) -> bool:
        if self.client.fenced:
            return True
        return bool(self.client.events) and not (self._cluster.plan.outage or self.client.frozen)

    def _polled(self) -> None:
        self.client.last_poll = self._cluster.clock.monotonic()
        if self.client.stalled:
            self.client.stalled = False
            self._changed()

    def _serve(self, event: Event) -> None:
        """Run one callback, without the lock: it may take its time and use other clients."""
        listener = self._listener
        try:
            if listener is None:
                return
            if event.call is Call.LOST:
                listener.on_lost(event.partitions)
            elif event.call is Call.REVOKED:
                listener.on_revoked(event.partitions, self.membership())
            else:
                listener.on_assigned(event.partitions, self.membership())
        finally:
            with self._cluster.lock:
                self.client.in_callback = False
                if not self._process.killed:
                    self._group.served(self.client, event, self._cluster.clock.monotonic())
                    self._changed()

    def _changed(self) -> None:
        self._cluster.touch()
        self._cluster.tick()


class _Place:
    """Where a reader stands in one partition."""

    __slots__ = ("failed", "paused", "position", "reported_end")

    def __init__(self, position: int) -> None:
        self.position = position
        self.reported_end = -1
        self.paused = False
        self.failed = False


class MemoryReader:
    """`base.Reader`."""

    def __init__(self, cluster: Cluster, process: Process, isolation: Isolation) -> None:
        self._cluster = cluster
        self._process = process
        self._isolation = isolation
        self._places: dict[TopicPartition, _Place] = {}

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        with self._cluster.call(self._process, "assign"):
            taken = self._places.keys() & starts.keys()
            if taken:
                raise BrokerError(f"assigned to this reader already: {sorted(taken)}")
            for partition, position in starts.items():
                self._places[partition] = _Place(position)
            self._cluster.notify()

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        with self._cluster.call(self._process, "unassign"):
            for partition in list(partitions):
                self._place(partition)
                del self._places[partition]

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._set_paused(partitions, True)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._set_paused(partitions, False)

    def fetch(self, limit: int, timeout: float) -> Batch:
        with self._cluster.call(self._process, "fetch"):
            pass
        batch = self._cluster.until(self._process, lambda: self._collect(limit), self._is_ready, timeout)
        return batch if batch is not None else Batch((), (), ())

    def position(self, partition: TopicPartition) -> int:
        """Raises:
        BrokerError: the partition is not assigned.
        """
        with self._cluster.call(self._process, "position"):
            return self._place(partition).position

    def close(self) -> None:
        with self._cluster.call(self._process, "close"):
            self._places.clear()

    def _set_paused(self, partitions: Iterable[TopicPartition], paused: bool) -> None:
        with self._cluster.call(self._process):
            for partition in partitions:
                if partition in self._places:
                    self._places[partition].paused = paused
            self._cluster.notify()

    def _place(self, partition: TopicPartition) -> _Place:
        place = self._places.get(partition)
        if place is None:
            raise BrokerError(f"{partition} is not assigned to this reader")
        return place

    def _is_ready(self) -> bool:
        return not self._cluster.plan.outage and any(
            self._has_news(partition, place) for partition, place in self._places.items()
        )

    def _has_news(self, partition: TopicPartition, place: _Place) -> bool:
        if place.paused or place.failed:
            return False
        try:
            log = self._cluster.log(partition)
        except BrokerError:
            return True
        end = log.end_for(self._isolation)
        return place.position < end or place.position != place.reported_end or place.position < log.start

    def _collect(self, limit: int) -> Batch | None:
        records: list[MemoryRecord] = []
        ends: list[End] = []
        faults: list[PartitionFault] = []
        if self._cluster.plan.outage:
            return None
        for partition in list(self._places):
            room = limit - len(records) - len(ends) - len(faults)
            if room <= 0:
                break
            place = self._places[partition]
            if not self._has_news(partition, place):
                continue
            try:
                self._read(partition, place, room, (records.extend, ends.append))
            except BrokerError as error:
                # As with auto.offset.reset=error: said once, then this partition stands still until assigned anew.
                place.failed = True
                faults.append(PartitionFault(partition, error))
            # The one that was served goes to the back, so that a deep partition starves no other.
            del self._places[partition]
            self._places[partition] = place
        return Batch(records, ends, faults) if records or ends or faults else None

    def _read(
        self,
        partition: TopicPartition,
        place: _Place,
        room: int,
        sinks: tuple[Callable[[list[MemoryRecord]], None], Callable[[End], None]],
    ) -> None:
        log = self._cluster.log(partition)
        found, place.position = log.read(place.position, room, self._isolation)
        add_records, add_end = sinks
        add_records(found)
        end = log.end_for(self._isolation)
        if place.position >= end and place.position != place.reported_end and len(found) < room:
            place.reported_end = place.position
            add_end(End(partition, place.position))
