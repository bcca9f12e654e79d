"""How long a supervisor waits before it starts a dead child again."""

from __future__ import annotations

from processor.process.supervisor import DELAYS, HEALTHY_AFTER, RestartDelay


def test_a_first_death_costs_no_time() -> None:
    assert RestartDelay().after(lived=3600.0, exit_code=None) == 0.0


def test_a_child_that_keeps_dying_young_waits_longer_each_time_up_to_a_bound() -> None:
    delay = RestartDelay()
    waits = [delay.after(lived=0.3, exit_code=1) for _ in range(len(DELAYS) + 3)]
    assert waits == [*DELAYS, DELAYS[-1], DELAYS[-1], DELAYS[-1]]


def test_a_long_life_makes_the_next_death_a_first_one() -> None:
    delay = RestartDelay()
    for _ in range(5):
        delay.after(lived=0.3, exit_code=1)
    assert delay.after(lived=HEALTHY_AFTER, exit_code=None) == 0.0
    assert delay.after(lived=0.3, exit_code=None) == DELAYS[1]


def test_a_worker_that_was_refused_never_comes_back_at_once() -> None:
    """Another process has its slot, or the cluster refuses it: both need somebody else to act."""
    assert RestartDelay().after(lived=3600.0, exit_code=3) == 1.0
