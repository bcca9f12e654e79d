"""Queues with a limit: what may be added between two looks, and what an enqueue at the limit does."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.client.backlog import BacklogGate, BacklogGates, Limit, QueueFull
from processor.clock import ManualClock
from processor.core.backlog import FINEST, BacklogSample, retry_after, room, waiting
from processor.errors import BrokerUnavailable


class Queue:
    """A queue that many producers fill."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.backlog = self.completed = self.looks = 0
        self.away = False

    def look(self) -> BacklogSample:
        self.looks += 1
        if self.away:
            raise BrokerUnavailable("nobody answers")
        return BacklogSample(at=self.clock.monotonic(), backlog=self.backlog, completed=self.completed)

    def gate(self, limit: int) -> BacklogGate:
        return BacklogGate("q", Limit(max_backlog=limit), self.look, self.clock)

    def fill(self, gate: BacklogGate) -> None:
        gate.admit("raise", lambda: None)
        self.backlog += 1


@given(st.integers(1, 200_000), st.integers(1, 8))
def test_producers_pass_a_limit_by_a_hundredth_each_at_most(limit: int, producers: int) -> None:
    queue = Queue()
    gates = [queue.gate(limit) for _ in range(producers)]
    open_gates = list(gates)
    while open_gates:
        gate = open_gates[queue.looks % len(open_gates)]
        before = queue.looks
        try:
            # All that it may without a look, while the others stand still: the worst that can happen.
            while queue.looks == before or gate.left > 0:
                queue.fill(gate)
                queue.backlog += gate.left
                gate.left = 0
        except QueueFull:
            open_gates.remove(gate)
    assert limit <= queue.backlog <= limit + max(limit // FINEST, 1) * producers + producers


def test_looks_are_few() -> None:
    queue = Queue()
    gate = queue.gate(100_000)

    def fill() -> None:
        while True:
            queue.fill(gate)

    with pytest.raises(QueueFull):
        fill()
    assert queue.looks < 60
    for _ in range(1000):
        with pytest.raises(QueueFull):
            queue.fill(gate)
    assert queue.looks < 60, "what was seen less than a second ago is believed"
    queue.backlog, queue.completed = 50_000, 50_000
    queue.clock.advance(1.1)
    queue.fill(gate)


def test_a_full_queue_tells_when_to_come_back() -> None:
    before = BacklogSample(at=10.0, backlog=120, completed=1000)
    now = BacklogSample(at=12.0, backlog=119, completed=1020)
    assert retry_after(before, now, 100) == 2.0, "20 jobs at 10 a second"
    assert retry_after(None, now, 100) == 1.0
    assert retry_after(before, replace(now, completed=1000), 100) == 60.0
    queue = Queue()
    queue.backlog = 7
    with pytest.raises(QueueFull, match="queue q is full: it holds 7 jobs, its limit is 5") as caught:
        queue.gate(5).admit("raise", lambda: None)
    assert (caught.value.backlog, caught.value.limit, caught.value.code) == (7, 5, "queue_full")
    assert caught.value.retry_after >= 1


def test_what_was_sent_is_in_the_log_before_a_look() -> None:
    queue = Queue()
    gate = queue.gate(1000)
    on_its_way = [3]

    def settle() -> None:
        queue.backlog += on_its_way[0]
        on_its_way[0] = 0

    gate.admit("raise", settle)
    assert gate.left == room(BacklogSample(at=0, backlog=3, completed=0), 1000) - 1


def test_a_cluster_that_does_not_answer_refuses_nothing() -> None:
    queue = Queue()
    queue.away = True
    for _ in range(3):
        queue.fill(queue.gate(1))
    assert queue.backlog == 3


def test_complete_ranges_do_not_wait() -> None:
    assert waiting(10, 30, [(12, 14), (20, 20)]) == 16
    assert waiting(10, 30, [(5, 7)]) == 20
    assert waiting(10, 5, []) == 0


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_waiting_ends_when_there_is_room(queue: Queue) -> None:
    gate = queue.gate(10)
    queue.backlog = 10
    done = threading.Event()

    def wait() -> None:
        gate.admit("wait", lambda: None)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while queue.looks < 1:
        assert thread.is_alive()
    queue.backlog = 2
    assert gate.refresh(anew=False)
    queue.clock.advance(2)
    assert gate.refresh(anew=False)
    assert done.wait(60)
    thread.join()


def test_queues_without_a_limit_are_never_looked_at(queue: Queue) -> None:
    def broker() -> None:
        raise AssertionError("nothing is to be opened")

    gates = BacklogGates("ns", broker, queue.clock, lambda name: None, lambda: None)  # type: ignore[arg-type]  # it is not called
    for _ in range(3):
        gates.admit("q")
    assert not gates.looks_next("q")
    gates.close()
