"""One at a time and in order per key; a blocked key blocks no other; a parent and its child of one key both finish."""

from __future__ import annotations

from collections import defaultdict, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.ordering import KeyOrder, Reclaimed, Spilled
from processor.core.room import Room

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
    order = KeyOrder[str](Room(records, size))
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


def test_blocked_key_blocks_no_other_key() -> None:
    order = KeyOrder[str](Room(2, 1000))
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
        order = KeyOrder[str](Room(bound))
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
    order = KeyOrder[str](Room(0))
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
    order = KeyOrder[str](Room(bound))
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
