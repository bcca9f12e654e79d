"""Who starts next, and how many are kept ready: weights that starve nobody, and no more read than is of use."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.engine.attempt import Attempt
from processor.engine.pool import Pool
from processor.engine.ready_queue import FEW, SHORT_AHEAD, ReadyQueue, is_due
from processor.job import Lane

quick = settings(max_examples=150, derandomize=True, deadline=None)


class Slots:
    """As much of a pool as the decisions look at."""

    def __init__(self, slots: int, warm: int = 0) -> None:
        self.slots = slots
        self.warm = warm

    def warmed(self, wanted: int) -> int:
        return min(wanted, self.warm)


def queue(slots: int = 4, *, alone: bool = False, warm: int = 0) -> ReadyQueue:
    return ReadyQueue(cast("Pool", Slots(slots, warm)), alone=alone)


def attempt(name: str, lane: Lane = Lane.NORMAL, seconds: float = 1.0) -> Attempt:
    return cast("Attempt", SimpleNamespace(name=name, lane=SimpleNamespace(lane=lane), run_seconds=seconds))


def filled(normal: int, due: int, followers: int = 0) -> ReadyQueue:
    ready = queue()
    ready.waiting.extend(attempt(f"n{i}") for i in range(normal))
    ready.due.extend(attempt(f"d{i}", Lane.DUE) for i in range(due))
    ready.followers.extend(attempt(f"f{i}") for i in range(followers))
    return ready


def order(ready: ReadyQueue) -> list[str]:
    return [cast("Any", ready.next()).name for _ in range(ready.ready)]


def test_due_and_normal_share_thirty_to_seventy() -> None:
    first = order(filled(100, 100))[:100]
    assert Counter(name[0] for name in first) == {"d": 30, "n": 70}
    assert all(any(name[0] == "d" for name in first[at : at + 5]) for at in range(0, 95)), "evenly, not in runs"


def test_followers_of_keys_pass_the_others_three_to_one() -> None:
    first = order(filled(100, 0, 100))[:40]
    assert Counter(name[0] for name in first) == {"f": 30, "n": 10}


@quick
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_everybody_starts_once_and_each_side_in_its_order(normal: int, due: int, followers: int) -> None:
    started = order(filled(normal, due, followers))
    assert len(started) == normal + due + followers
    for side, count in (("n", normal), ("d", due), ("f", followers)):
        assert [name for name in started if name[0] == side] == [f"{side}{i}" for i in range(count)]


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_no_side_waits_longer_than_its_weight(normal: int, due: int, followers: int) -> None:
    started = order(filled(normal, due, followers))
    assert started.index("d0") <= 4
    assert started.index("n0") <= 8


def test_a_side_alone_gets_all() -> None:
    assert order(filled(0, 5)) == [f"d{i}" for i in range(5)]
    assert order(filled(5, 0)) == [f"n{i}" for i in range(5)]


def run(ready: ReadyQueue, one: Attempt) -> None:
    ready.running[one] = None
    ready.ended(one)


def test_long_jobs_are_kept_few_ahead_and_short_ones_many() -> None:
    long, short = queue(slots=4), queue(slots=4)
    for at in range(400):
        run(long, cast("Attempt", _Hashed(f"l{at}", 2.0)))
        run(short, cast("Attempt", _Hashed(f"s{at}", 0.000_1)))
    assert long.ahead == 4 + 16
    assert short.ahead == 2 * 4 + 128
    assert short.lacks == SHORT_AHEAD
    assert long.lacks == 2 * long.ahead


class _Hashed:
    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.run_seconds = seconds
        self.lane = None


def test_what_ends_between_two_turns_is_kept_ready_for_the_next() -> None:
    ready = queue(slots=4)
    for at in range(60):
        run(ready, cast("Attempt", _Hashed(f"l{at}", 2.0)))
    ready.turn()
    assert ready.ahead == 4 + 16 + 60
    for _ in range(400):
        ready.turn()
    assert ready.ahead == 4 + 16, "a burst is forgotten"


def test_a_few_more_are_not_worth_a_fetch() -> None:
    ready = queue(slots=4)
    ready.waiting.extend(attempt(str(at)) for at in range(2 * ready.ahead - FEW + 1))
    assert ready.lacks == 0
    ready.waiting.pop()
    assert ready.lacks == FEW
    assert ready.lacks_due == 2 * ready.ahead, "the other side is read for itself"


def test_of_suspects_none_is_handed_out_before_its_process_is_warm() -> None:
    ready = queue(slots=1, alone=True, warm=0)
    ready.waiting.append(attempt("suspect"))
    assert ready.turn() == 0
    cast("Slots", ready.pool).warm = 1
    assert ready.turn() == 1
    ready.running[cast("Attempt", _Hashed("other", 1.0))] = None
    assert ready.turn() == 0, "one at a time"


def test_what_nobody_had_begun_goes_on_first_in_its_order() -> None:
    ready = queue()
    ready.waiting.append(attempt("behind"))
    ready.due.append(attempt("due-behind", Lane.DUE))
    given_back = [_Lane("a", Lane.NORMAL), _Lane("x", Lane.DUE), _Lane("b", Lane.NORMAL)]
    for one in given_back:
        ready.running[cast("Attempt", one)] = None
    ready.back([cast("Attempt", one) for one in given_back])
    assert [cast("Any", one).name for one in ready.waiting] == ["a", "b", "behind"]
    assert [cast("Any", one).name for one in ready.due] == ["x", "due-behind"]
    assert ready.outstanding == 0


class _Lane(_Hashed):
    def __init__(self, name: str, lane: Lane) -> None:
        super().__init__(name, 1.0)
        self.lane = SimpleNamespace(lane=lane)  # type: ignore[assignment]


@pytest.mark.parametrize(("lane", "due"), [(Lane.DUE, True), (Lane.NORMAL, False), (Lane.HIGH, False), (None, False)])
def test_a_promoted_job_has_no_lane_and_is_not_due(lane: Lane | None, due: bool) -> None:
    one = SimpleNamespace(lane=None if lane is None else SimpleNamespace(lane=lane))
    assert is_due(cast("Attempt", one)) is due
