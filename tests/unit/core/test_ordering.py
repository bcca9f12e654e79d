"""One at a time and in order per key; a blocked key blocks no other; a parent and its child of one key both finish."""

from __future__ import annotations

import random
from collections import defaultdict, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.memory_budget import MemoryBudget
from processor.core.ordering import REFILL, Again, KeyOrder, Reclaimed, Spilled

quick = settings(max_examples=150, derandomize=True, deadline=None)


def place(job_id: str) -> Spilled:
    return Spilled("due" if int(job_id) % 2 else "normal", int(job_id))


def offer(order: KeyOrder[str], key: str, job_id: str, parent: str | None = None) -> bool:
    return order.offer(key, job_id, job_id, place(job_id), 10, parent)


def read_again(order: KeyOrder[str], key: str, nxt: str | Spilled | Reclaimed | None) -> str | None:
    """What a worker does with the answer of `finished`."""
    if isinstance(nxt, Spilled):
        order.hold(key, str(nxt.offset))
        return str(nxt.offset)
    return nxt.holder if isinstance(nxt, Reclaimed) else nxt


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("kmn")), max_size=80),
    st.integers(0, 6),
    st.integers(0, 60),
)
@quick
def test_jobs_of_a_key_run_one_at_a_time_in_order(actions: list[tuple[bool, str]], records: int, size: int) -> None:
    order = KeyOrder[str](MemoryBudget(records, size))
    arrived: dict[str, list[str]] = defaultdict(list)
    started: dict[str, list[str]] = defaultdict(list)
    running: dict[str, str] = {}
    for number, (arrives, key) in enumerate(actions):
        if arrives:
            arrived[key].append(str(number))
            may_start = offer(order, key, str(number))
            assert may_start is (key not in running), "blocked_key_blocks_no_other_key"
            nxt: str | None = str(number) if may_start else None
        elif key in running:
            nxt = read_again(order, key, order.finished(key, running.pop(key)))
        else:
            continue
        if nxt is not None:
            assert key not in running
            running[key] = nxt
            started[key].append(nxt)
        assert order.waiting_count <= records
        assert order.waiting_bytes <= size
        waiting = sum(map(len, arrived.values())) - sum(map(len, started.values()))
        assert order.waiting_count + order.spilled_count == waiting
        assert order.held_keys == len(running), "a free key costs nothing"
    for key, holder in running.items():
        current: str | None = holder
        while current is not None:
            current = read_again(order, key, order.finished(key, current))
            started[key] += [current] if current else []
    assert started == arrived
    assert (order.held_keys, order.waiting_count, order.waiting_bytes, order.spilled_count) == (0, 0, 0, 0)


class Refilled:
    """Numbers that share a room, one for each key, with a worker that reads again what they want."""

    def __init__(self, records: int, size: int) -> None:
        self.budget = MemoryBudget(records, size)
        self.orders = {key: KeyOrder[str](self.budget) for key in "kmn"}
        self.arrived: dict[str, list[str]] = defaultdict(list)
        self.started: dict[str, list[str]] = defaultdict(list)
        self.running: dict[str, str | None] = {}
        """None: its record is being read again."""
        self.asks: list[tuple[str, Spilled]] = []

    def arrive(self, key: str, job_id: str) -> None:
        self.arrived[key].append(job_id)
        if offer(self.orders[key], key, job_id):
            self.start(key, job_id)

    def start(self, key: str, job_id: str) -> None:
        self.running[key] = job_id
        self.started[key].append(job_id)

    def end(self, key: str) -> None:
        order = self.orders[key]
        nxt = order.finished(key, self.running.pop(key))
        if isinstance(nxt, Spilled):
            self.running[key] = None
        elif isinstance(nxt, str):
            self.start(key, nxt)
        wanted = [(key, where) for where in order.wants(key)]
        assert not set(wanted) & set(self.asks), "each place is asked for once"
        self.asks += wanted

    def answer(self, index: int) -> None:
        key, where = self.asks.pop(index)
        order, job_id = self.orders[key], str(where.offset)
        again = order.again(key, where, 10)
        if again is Again.NEXT:
            assert self.running[key] is None
            order.hold(key, job_id)
            self.start(key, job_id)
        elif again is Again.WAITS:
            order.refill(key, job_id, job_id, 10)

    def finish(self) -> None:
        while self.running:
            while self.asks:
                self.answer(0)
            for key in list(self.running):
                assert self.running[key] is not None, "whose turn has come is asked for"
                self.end(key)


@given(
    st.lists(st.tuples(st.sampled_from(["arrives", "ends", "answer"]), st.sampled_from("kmn")), max_size=120),
    st.integers(0, 40),
    st.integers(0, 400),
    st.randoms(use_true_random=False),
)
@quick
def test_refilled_lines_keep_their_order(
    actions: list[tuple[str, str]], records: int, size: int, draw: random.Random
) -> None:
    made = Refilled(records, size)
    for number, (what, key) in enumerate(actions):
        if what == "arrives":
            made.arrive(key, str(number))
        elif what == "ends" and made.running.get(key) is not None:
            made.end(key)
        elif what == "answer" and made.asks:
            made.answer(draw.randrange(len(made.asks)))
        whole = sum(order.waiting_count for order in made.orders.values())
        assert (made.budget.records, made.budget.bytes) == (whole, 10 * whole)
        assert whole <= records
        assert 10 * whole <= size
    made.finish()
    assert made.started == made.arrived
    assert (made.budget.records, made.budget.bytes) == (0, 0)
    assert all(order.spilled_count == order.held_keys == 0 for order in made.orders.values())


def test_short_line_is_refilled_many_at_a_time() -> None:
    order = KeyOrder[str](MemoryBudget(8 * 1000))
    for number in range(5_000):
        offer(order, "k", str(number))
    asked = []
    current: str | None = "0"
    for number in range(1, 5_000):
        assert current is not None
        nxt = order.finished("k", current)
        assert not isinstance(nxt, Spilled), "no job waits until it is read again"
        current = read_again(order, "k", nxt)
        assert current == str(number)
        places = order.wants("k")
        asked += [len(places)] if places else []
        for where in places:
            assert order.again("k", where, 10) is Again.WAITS
            order.refill("k", str(where.offset), str(where.offset), 10)
    assert sum(asked) == 5_000 - 1 - 889
    assert sum(count >= REFILL // 2 for count in asked) >= len(asked) - 1


def test_read_again_job_that_needs_no_run_leaves_its_line() -> None:
    order = KeyOrder[str](MemoryBudget(8))
    for number in range(4):
        offer(order, "k", str(number))
    assert order.finished("k", "0") == "1"
    [where] = order.wants("k")
    assert order.wants("k") == [], "it is asked for already"
    assert order.again("k", where, 10) is Again.WAITS
    order.skip("k")
    assert order.finished("k", "1") == Spilled("due", 3)
    assert order.wants("k") == [Spilled("due", 3)]


def test_spilled_child_that_is_read_again_still_takes_the_lent_key() -> None:
    order = KeyOrder[str](MemoryBudget(8))
    for number in range(3):
        offer(order, "k", str(number))
    offer(order, "k", "3", parent="1")
    assert order.finished("k", "0") == "1"
    [where] = order.wants("k")
    assert order.again("k", where, 10) is Again.WAITS
    order.refill("k", "2", "2", 10)
    assert order.lend("k", "1") == Spilled("due", 3)
    [where] = order.wants("k")
    assert order.again("k", where, 10) is Again.NEXT
    order.hold("k", "3")
    assert order.finished("k", "3") is None
    assert order.reclaim("k", "1")
    assert order.finished("k", "1") == "2"
    assert order.finished("k", "2") is None
    assert order.held_keys == 0


def test_blocked_key_blocks_no_other_key() -> None:
    order = KeyOrder[str](MemoryBudget(2, 1000))
    order.block("k", "0")
    for number in range(1, 10_001):
        assert not offer(order, "k", str(number))
    assert (order.waiting_count, order.spilled_count) == (1, 9_999)
    assert offer(order, "other", "10001")
    current: str | None = "0"
    for number in range(1, 10_001):
        assert current is not None
        current = read_again(order, "k", order.finished("k", current))
        assert current == str(number)


def test_parent_and_child_of_one_key_both_finish() -> None:
    for bound in (0, 10):
        order = KeyOrder[str](MemoryBudget(bound))
        assert offer(order, "k", "1")
        assert not offer(order, "k", "2"), "a stranger"
        assert not offer(order, "k", "3", parent="1"), "the parent runs on until it waits"
        assert read_again(order, "k", order.lend("k", "1")) == "3"
        assert not offer(order, "k", "4", parent="1"), "one child at a time"
        assert read_again(order, "k", order.finished("k", "3")) == "4"
        assert order.finished("k", "4") is None
        assert not offer(order, "k", "6"), "a stranger, though the key is idle"
        assert offer(order, "k", "5", parent="1"), "lent and idle"
        assert not order.reclaim("k", "1")
        assert order.finished("k", "5") == Reclaimed("1")
        assert read_again(order, "k", order.finished("k", "1")) == "2"
        assert read_again(order, "k", order.finished("k", "2")) == "6"
        assert order.finished("k", "6") is None
        assert order.held_keys == 0


def test_a_grandchild_of_the_same_key_finishes_too() -> None:
    order = KeyOrder[str]()
    assert offer(order, "k", "1")
    order.lend("k", "1")
    assert offer(order, "k", "2", parent="1")
    order.lend("k", "2")
    assert offer(order, "k", "3", parent="2")
    assert order.finished("k", "3") is None
    assert order.reclaim("k", "2")
    assert order.finished("k", "2") is None
    assert order.reclaim("k", "1")
    assert order.finished("k", "1") is None
    assert order.held_keys == 0


def test_a_child_its_parent_did_not_wait_for_keeps_its_place_in_the_line() -> None:
    order = KeyOrder[str]()
    assert offer(order, "k", "1")
    assert not offer(order, "k", "2")
    assert not offer(order, "k", "3", parent="1")
    assert order.finished("k", "1") == "2"
    assert order.finished("k", "2") == "3"
    assert order.finished("k", "3") is None


def test_a_lender_that_is_killed_leaves_the_key_to_its_running_child() -> None:
    order = KeyOrder[str]()
    assert offer(order, "k", "1")
    order.lend("k", "1")
    assert offer(order, "k", "2", parent="1")
    assert not offer(order, "k", "3")
    assert order.finished("k", "1") is None
    assert order.finished("k", "2") == "3"


def test_restored_jobs_hold_their_keys_before_anything_is_read() -> None:
    order = KeyOrder[str]()
    order.block("k", "1")
    order.lend("k", "1")
    order.block("k", "2")
    order.block("k", "2")
    assert not offer(order, "k", "3", parent="1")
    assert order.finished("k", "2") == "3"
    assert order.finished("k", "3") is None
    assert order.reclaim("k", "1")


def test_a_spilled_job_that_needs_no_run_frees_its_key() -> None:
    order = KeyOrder[str](MemoryBudget(0))
    assert offer(order, "k", "1")
    assert not offer(order, "k", "2")
    assert order.finished("k", "1") == Spilled("normal", 2)
    assert order.finished("k", None) is None
    assert not order.is_held("k")


def test_unknown_holders_and_keys_change_nothing() -> None:
    order = KeyOrder[str]()
    assert order.finished("k", "1") is None
    assert order.lend("k", "1") is None
    assert not order.reclaim("k", "1")
    assert offer(order, "k", "1")
    assert order.finished("k", "2") is None
    assert order.is_held("k")
    order.drop_all()
    assert not order.is_held("k")


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 5))
@quick
def test_a_family_of_one_key_always_comes_to_its_end(births: list[int], bound: int) -> None:
    """Every job waits for all its children; each child is of the same key, strangers in between."""
    order = KeyOrder[str](MemoryBudget(bound))
    children: dict[str, set[str]] = defaultdict(set)
    jobs: list[str] = []
    parents: dict[str, str] = {}
    for number, pick in enumerate(births):
        if pick and jobs:
            parents[str(number)] = jobs[-min(pick, len(jobs))]
            children[parents[str(number)]].add(str(number))
        jobs.append(str(number))
    ready: deque[str] = deque(job for job in jobs if offer(order, "k", job, parents.get(job)))
    ended: list[str] = []
    while ready:
        job = ready.popleft()
        if children[job] - set(ended):
            nxt = order.lend("k", job)
        else:
            order.reclaim("k", job)
            ended.append(job)
            nxt = order.finished("k", job)
            parent = parents.get(job)
            if nxt is None and parent and not children[parent] - set(ended) and order.reclaim("k", parent):
                ready.append(parent)
        found = read_again(order, "k", nxt)
        if found:
            ready.append(found)
    assert sorted(ended, key=int) == jobs
    assert order.held_keys == 0
