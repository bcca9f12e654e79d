"""The table of transitions is sound, and the page about it says what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor.cli.reference_states import MEANINGS, render_states_markdown
from processor.states import TERMINAL, TRANSITIONS, State, may_move

PAGE = Path(__file__).parents[2] / "docs" / "job-states.md"
STARTS = frozenset({State.QUEUED, State.SCHEDULED})


def reachable(starts: frozenset[State]) -> frozenset[State]:
    found, front = set(starts), set(starts)
    while front:
        front = {new for old in front for new in TRANSITIONS[old]} - found
        found |= front
    return frozenset(found)


def test_every_state_has_its_moves_and_its_meaning() -> None:
    assert set(TRANSITIONS) == set(MEANINGS) == set(State)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_terminal_state_of_a_life_is_final(state: State) -> None:
    assert not TRANSITIONS[state]
    assert not any(may_move(state, other) for other in State)


def test_only_terminal_states_have_no_exit() -> None:
    assert {state for state in State if not TRANSITIONS[state]} == TERMINAL


def test_every_state_can_be_reached() -> None:
    assert reachable(STARTS) == set(State)


@pytest.mark.parametrize("state", sorted(set(State) - TERMINAL))
def test_every_open_state_can_end_well_and_badly(state: State) -> None:
    ends = reachable(frozenset({state})) & TERMINAL
    assert {State.SUCCEEDED, State.DEAD, State.CANCELLED, State.KILLED, State.DISCARDED} <= ends


@pytest.mark.parametrize("state", sorted(set(State) - TERMINAL))
def test_every_open_state_can_be_cancelled_and_killed_at_once(state: State) -> None:
    assert may_move(state, State.CANCELLED)
    assert may_move(state, State.KILLED)


@pytest.mark.parametrize("state", sorted(State))
def test_no_state_moves_to_itself(state: State) -> None:
    assert not may_move(state, state)


def test_the_page_shows_the_transitions() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_states_markdown()
