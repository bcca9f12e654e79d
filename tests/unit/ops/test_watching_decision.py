"""When an alert about a filter is told: opened and closed after as long as is wished, each new job once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from processor.ops.errors import FilterInvalid
from processor.ops.watching.decision import (
    GAP,
    GRACE,
    PAGE,
    REMEMBERED,
    Change,
    Fit,
    Standing,
    Wish,
    counted,
    listed,
    standing_of,
    unreadable,
)
from processor.ops.watching.wishing import wish_of, wished

NOW = 1_767_225_600_000
NEW = Standing(filter="state:dead")
STEP = 15_000

Looks = list[tuple[int, int]]
"""Seconds since the first look, and how many match then."""


@pytest.mark.parametrize(
    ("wish", "looks", "told"),
    [
        pytest.param(Wish(at_least=3), [(0, 2), (5, 3), (10, 9), (15, 3)], [(5, Change.OPENED)], id="once"),
        pytest.param(
            Wish(at_least=3),
            [(0, 3), (5, 2), (10, 4)],
            [(0, Change.OPENED), (5, Change.CLOSED), (10, Change.OPENED)],
            id="at once",
        ),
        pytest.param(
            Wish(at_least=3, hold_ms=60_000),
            [(0, 3), (30, 3), (59, 5), (60, 3), (90, 3)],
            [(60, Change.OPENED)],
            id="after so long",
        ),
        pytest.param(
            Wish(at_least=3, hold_ms=60_000),
            [(0, 3), (30, 3), (50, 2), (60, 3), (90, 3), (119, 3)],
            [],
            id="a break begins anew",
        ),
        pytest.param(
            Wish(at_least=3, hold_ms=20_000),
            [(0, 3), (20, 3), (30, 0), (40, 3), (45, 0), (60, 4), (70, 2), (89, 2), (90, 2), (95, 0)],
            [(20, Change.OPENED), (90, Change.CLOSED)],
            id="no flapping",
        ),
        pytest.param(
            Wish(at_least=1, hold_ms=100_000),
            [(0, 1), (50, 1), (200, 1), (250, 1), (299, 1), (300, 1)],
            [(300, Change.OPENED)],
            id="nobody looked for a while",
        ),
        pytest.param(
            Wish(at_least=1, hold_ms=60_000), [(0, 1), (60, 1)], [(60, Change.OPENED)], id="the longest step is no gap"
        ),
        pytest.param(Wish(at_least=1), [(0, 0), (5, 0)], [], id="nothing"),
    ],
)
def test_it_opens_and_closes(wish: Wish, looks: Looks, told: list[tuple[int, Change]]) -> None:
    standing, found = NEW, []
    for second, matches in looks:
        verdict = counted(standing, wish, matches, NOW + second * 1000)
        # As a process that starts here would find it.
        standing = standing_of(verdict.standing.text(), NEW.filter)
        assert standing == verdict.standing
        if verdict.change is not None:
            found.append((second, verdict.change))
    assert found == told


def test_as_long_as_nothing_turns_nothing_is_written() -> None:
    wish = Wish(at_least=3, hold_ms=60_000)
    assert counted(NEW, wish, 0, NOW).standing == NEW
    is_open = replace(NEW, is_open=True)
    assert counted(is_open, wish, 3, NOW + GAP).standing == is_open


def fit(job: str, changed: int, life: int = 1) -> Fit:
    return Fit(job_id=job, life=life, changed_at=NOW + changed)


def test_each_new_job_is_told_once_in_each_life() -> None:
    first = listed(NEW, [fit("b", 2), fit("a", 1)])
    assert (first.change, first.new) == (None, ()), "those that match already are known"
    second = listed(first.standing, [fit("d", 4), fit("c", 3), fit("b", 2), fit("a", 1)])
    assert (second.change, second.new) == (Change.NEW, ("d", "c"))
    # It goes on and changes, and then comes again in a next life.
    assert listed(second.standing, [fit("c", 9), fit("d", 4)]).change is None
    assert listed(second.standing, [fit("c", 9, life=2), fit("d", 4)]).new == ("c",)


def test_the_first_job_of_all_is_new() -> None:
    empty = listed(NEW, [])
    assert empty.change is None
    assert listed(empty.standing, [fit("a", 1)]).new == ("a",)


def test_a_job_that_comes_late_is_new_and_one_that_rises_from_below_is_not() -> None:
    begun = listed(NEW, [fit("b", 0)])
    assert listed(begun.standing, [fit("b", 0), fit("late", -GRACE)]).new == ("late",)
    assert listed(begun.standing, [fit("b", 0), fit("old", -GRACE - 1)]).change is None
    full = listed(NEW, [fit(f"j{number}", -number) for number in range(PAGE)])
    # Some that were newer match no longer, so that older ones are in the page.
    assert listed(full.standing, [fit("j0", 0), fit("below", -PAGE)]).change is None


def test_what_is_known_is_bounded() -> None:
    standing = listed(NEW, []).standing
    for number in range(REMEMBERED // PAGE + 2):
        page = [fit(f"j{number}-{place}", number * PAGE - place) for place in range(PAGE)]
        verdict = listed(standing, page)
        assert len(verdict.new) == PAGE
        standing = verdict.standing
        assert listed(standing, page).change is None
    assert len(standing.known) == REMEMBERED


def test_a_filter_that_cannot_be_read_is_told_once_until_it_can() -> None:
    first = unreadable(replace(NEW, is_open=True, turned_at=NOW), "nothing can be filtered by 'order_id'")
    assert first.change is Change.UNREADABLE
    assert unreadable(first.standing, "nothing can be filtered by 'order_id'").change is None
    back = counted(first.standing, Wish(at_least=1), 1, NOW)
    assert (back.change, back.standing.problem, back.standing.is_open) == (None, "", True)
    assert unreadable(back.standing, "again").change is Change.UNREADABLE


@pytest.mark.parametrize("kept", ["", "{", "[]", "null", '{"of_a_newer_version": 1}', replace(NEW, filter="x").text()])
def test_of_another_filter_or_a_standing_that_cannot_be_read_nothing_is_known(kept: str) -> None:
    assert standing_of(kept, "state:dead") == NEW


@pytest.mark.parametrize(
    ("at_least", "hold", "told"),
    [
        (None, "", "each new job"),
        (1, "", "at least 1 job"),
        (1000, "5m", "at least 1,000 jobs for 5m"),
        (2, "90", "at least 2 jobs for 1m30s"),
    ],
)
def test_a_wish_in_words(at_least: int | None, hold: str, told: str) -> None:
    assert wished(wish_of(at_least, hold)) == told


@pytest.mark.parametrize(
    ("at_least", "hold"), [(0, ""), (-1, ""), (10_001, ""), (1, "soon"), (1, "31d"), (1, "9" * 400), (None, "5m")]
)
def test_a_wish_that_cannot_be_meant_is_refused(at_least: int | None, hold: str) -> None:
    with pytest.raises(FilterInvalid):
        wish_of(at_least, hold)
