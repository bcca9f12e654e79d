"""Who is a suspect of a death: whoever was there, has not ended, and saved nothing since."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.process_deaths import (
    GIVEN_UP,
    HOPELESS,
    QUARANTINE,
    REMEMBERED,
    Death,
    deaths_of,
    noted,
)

quick = settings(max_examples=200, derandomize=True, deadline=None)
marks = st.lists(st.builds(Death, st.integers(1, 30), st.integers(0, 100)), max_size=12)


def test_a_healthy_number_has_no_marks() -> None:
    assert noted((), None, 10) == ()
    assert deaths_of((), 10, 0) == 0


def test_a_death_with_nothing_unfinished_below_its_mark_is_nobodys() -> None:
    assert noted((), Death(3, 10), 10) == ()
    assert noted((), Death(3, 11), 10) == (Death(3, 11),)


def test_who_was_not_read_yet_was_not_there() -> None:
    death = (Death(3, 10),)
    assert deaths_of(death, 9, 0) == 1
    assert deaths_of(death, 10, 0) == 0


def test_who_saved_in_that_epoch_or_later_is_none_of_its_suspects() -> None:
    deaths = (Death(3, 10), Death(5, 10))
    assert deaths_of(deaths, 9, 2) == 2
    assert deaths_of(deaths, 9, 3) == 1
    assert deaths_of(deaths, 9, 5) == 0


def test_marks_alone_never_give_a_job_up() -> None:
    deaths = tuple(Death(epoch, 10) for epoch in range(1, 20))
    assert deaths_of(deaths, 0, 0) == QUARANTINE
    assert QUARANTINE < GIVEN_UP < HOPELESS


@quick
@given(marks, st.integers(0, 100), st.integers(0, 100), st.integers(0, 30))
def test_dropping_served_marks_changes_no_verdict(deaths: list[Death], low: int, ahead: int, saved_in: int) -> None:
    kept = noted(deaths[:-1], deaths[-1] if deaths else None, low)
    assert len(kept) <= REMEMBERED
    offset = low + ahead  # what is below the low watermark is done
    if len([death for death in deaths if death.mark > low]) <= REMEMBERED:
        assert deaths_of(kept, offset, saved_in) == deaths_of(deaths, offset, saved_in)
    else:
        assert deaths_of(kept, offset, saved_in) <= deaths_of(deaths, offset, saved_in)


@quick
@given(marks, st.integers(0, 100), st.integers(0, 30))
def test_progress_never_makes_a_job_more_suspect(deaths: list[Death], offset: int, saved_in: int) -> None:
    assert deaths_of(deaths, offset, saved_in + 1) <= deaths_of(deaths, offset, saved_in)
