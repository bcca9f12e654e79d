"""A standstill is one only if nothing moved although it could, at every look."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.engine.watchdog import Sight, Standstill


def sight(mark: int = 10, *, could: bool = True, assignment: int = 1, low: int = 5) -> Sight:
    return Sight(assignment, ((mark, low),), could)


def test_time_counts_from_the_first_look_of_a_standstill() -> None:
    still = Standstill()
    assert still.seconds(sight(), 100.0) == 0.0
    assert still.seconds(sight(), 107.0) == 7.0


def test_any_movement_begins_anew() -> None:
    for moved in (sight(11), sight(low=6), sight(assignment=2)):
        still = Standstill()
        still.seconds(sight(), 100.0)
        assert still.seconds(moved, 130.0) == 0.0
        assert still.seconds(moved, 131.0) == 1.0


def test_a_look_at_which_it_could_not_move_counts_for_nothing_before_it() -> None:
    still = Standstill()
    still.seconds(sight(), 100.0)
    assert still.seconds(sight(could=False), 150.0) == 0.0
    assert still.seconds(sight(), 160.0) == 0.0
    assert still.seconds(sight(), 165.0) == 5.0


looks = st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.floats(0.1, 5.0)), min_size=1, max_size=30)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(looks)
def test_it_is_the_time_of_the_last_run_of_equal_looks_that_could_move(
    seen: list[tuple[int, bool, float]],
) -> None:
    still, now, moments, seconds = Standstill(), 0.0, [], 0.0
    for mark, could, gap in seen:
        now += gap
        seconds = still.seconds(sight(mark, could=could), now)
        moments.append((mark, could, now))
    mark, could, _ = moments[-1]
    if not could:
        assert seconds == 0.0
        return
    begin = now
    for other, able, at in reversed(moments):
        if (other, able) != (mark, True):
            break
        begin = at
    assert seconds == now - begin
