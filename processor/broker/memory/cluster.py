"""What all clients of the memory broker share: one lock, one clock, topics, groups, transactions and planned faults."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from processor.broker.base import TopicPartition
from processor.broker.memory.faults import FaultPlan, PlannedError, ProcessKilled
from processor.broker.memory.groups import Group
from processor.broker.memory.log import PartitionLog, Topic
from processor.broker.memory.transactions import Coordinator
from processor.broker.memory.wait import ThreadWait, WaitFor
from processor.clock import Clock
from processor.errors import BrokerError, BrokerUnavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """Times and sizes of the memory broker; the defaults are those we run Kafka with."""

    session_seconds: float = 10.0
    """A member without heartbeats for so long is thrown out."""
    poll_seconds: float = 300.0
    """A member that does not poll for so long leaves (max.poll.interval.ms); also the longest rebalance."""
    transaction_seconds: float = 30.0
    """An open transaction is aborted after so long ..."""
    transaction_scan_seconds: float = 10.0
    """... rounded up to a multiple of this."""
    record_bytes: int = 1_048_576
    """Largest record, headers included."""
    metadata_bytes: int = 4095
    """Largest text beside a committed offset."""
    delivery_seconds: float = 30.0
    """A plain producer gives a record up after so long."""
    buffered_records: int = 100_000
    """What a plain producer holds while no broker answers; then `append` waits."""
    admin_seconds: float = 10.0
    """Time limit of admin calls without one of their own."""


class Process:
    """The operating system process that clients belong to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False
        self.frozen = False

    def is_running(self) -> bool:
        return not (self.killed or self.frozen)


class Cluster:
    """Shared state. `lock` guards all of it; whoever waits does so without the lock."""

    def __init__(self, clock: Clock, wait: WaitFor | None, limits: MemoryLimits) -> None:
        self.clock = clock
        self.limits = limits
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._wait: WaitFor = wait or ThreadWait(clock, self._changed)
        self.plan = FaultPlan()
        self.outages = 0
        """How many outages have begun so far."""
        self.topics: dict[str, Topic] = {}
        self._groups: dict[str, Group] = {}
        self.transactions = Coordinator(
            timeout_seconds=limits.transaction_seconds,
            scan_seconds=limits.transaction_scan_seconds,
            now_ms=clock.now_ms,
        )
        self._next_due = -math.inf

    # Topics and groups

    def log(self, partition: TopicPartition) -> PartitionLog:
        """Raises:
        BrokerError: no such topic or partition.
        """
        topic = self.topics.get(partition.topic)
        if topic is None or not 0 <= partition.partition < len(topic.partitions):
            raise BrokerError(f"unknown topic or partition {partition.topic}-{partition.partition}")
        return topic.partitions[partition.partition]

    def partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        found = [self.topics[name] for name in topics if name in self.topics]
        return [log.partition for topic in found for log in topic.partitions]

    def group(self, name: str) -> Group:
        if name not in self._groups:
            self._groups[name] = Group(
                name,
                session_seconds=self.limits.session_seconds,
                poll_seconds=self.limits.poll_seconds,
                partitions=self.partitions,
            )
        return self._groups[name]

    def topics_changed(self, topic: str) -> None:
        for group in self._groups.values():
            group.topics_changed(topic, self.clock.monotonic())

    # Time

    def touch(self) -> None:
        """Something changed by which timers or waiting calls may go on; call it under the lock."""
        self._next_due = -math.inf
        self._changed.notify_all()

    def notify(self) -> None:
        """Records or offsets changed, but no timer; call it under the lock."""
        self._changed.notify_all()

    def tick(self) -> None:
        """Let happen what is due by the clock; call it under the lock. Does nothing while no broker is up."""
        now = self.clock.monotonic()
        if now < self._next_due or self.plan.outage:
            return
        due = self.transactions.tick(now)
        for group in self._groups.values():
            due = min(due, group.tick(now))
        self._next_due = due
        self._changed.notify_all()

    def set_outage(self, on: bool) -> None:
        """All brokers go away, or come back with everything they had."""
        self.tick()
        was, self.plan.outage = self.plan.outage, on
        self.outages += on and not was
        if was and not on:
            for group in self._groups.values():
                group.renew_sessions(self.clock.monotonic())
        self.touch()

    # Calls of clients

    def enter(self, process: Process, operation: str, transactional_id: str | None = None) -> PlannedError | None:
        """What every call of a client begins with; the error that a test planned for it.

        Raises:
            ProcessKilled: the client's process is dead.
            BrokerError: a planned error that comes before the call takes effect.
        """
        self.wait_running(process)
        with self.lock:
            self.tick()
            planned = self.plan.take_error(operation, process.name, transactional_id) if self.plan.errors else None
        if planned is not None and not planned.after:
            raise planned.error
        return planned

    @contextmanager
    def call(self, process: Process, operation: str = "") -> Iterator[None]:
        """The frame around a call that waits for nothing: under the lock, with the planned error if there is one."""
        planned = self.enter(process, operation)
        with self.lock:
            yield
        if planned is not None:
            raise planned.error

    def wait_running(self, process: Process) -> None:
        """A frozen process does nothing until it is thawed.

        Raises:
            ProcessKilled: it is dead.
        """
        while process.frozen and not process.killed:
            self._wait(lambda: process.killed or not process.frozen, math.inf)
        if process.killed:
            raise ProcessKilled(process.name)

    def until(
        self, process: Process, attempt: Callable[[], T | None], ready: Callable[[], bool], timeout: float
    ) -> T | None:
        """Try until `attempt` gives something, waiting for `ready` in between; None after `timeout` seconds.

        `attempt` runs under the lock and may change things; `ready` may be asked at any time and changes nothing.
        """

        def wakes() -> bool:
            with self.lock:
                self.tick()
                return process.killed or ready()

        deadline = self.clock.monotonic() + timeout
        while True:
            self.wait_running(process)
            with self.lock:
                self.tick()
                result = attempt()
            remaining = deadline - self.clock.monotonic()
            if result is not None or remaining <= 0:
                return result
            self._wait(wakes, remaining)

    def reachable(self, process: Process, timeout: float) -> None:
        """Wait for a broker to answer.

        Raises:
            BrokerUnavailable: none did in time.
        """
        if self.until(process, lambda: not self.plan.outage or None, lambda: not self.plan.outage, timeout) is None:
            raise BrokerUnavailable("no broker answers")
