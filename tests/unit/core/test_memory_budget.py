"""A line alone gets a lot, many lines share, and something is always left for one more."""

from __future__ import annotations

from processor.core.memory_budget import PART, MemoryBudget


def fill(budget: MemoryBudget, size: int = 10) -> int:
    """Let a new line take what it may; how many that were."""
    kept = 0
    while budget.fits(kept, kept * size, size):
        budget.take(size)
        kept += 1
    return kept


def test_lines_share_what_is_free() -> None:
    budget = MemoryBudget(900)
    assert fill(budget) == 100, "alone: one part of what stays free"
    lines = [fill(budget) for _ in range(10)]
    assert lines == sorted(lines, reverse=True)
    assert budget.share() > 0
    assert lines[0] > 80
    assert budget.records == 100 + sum(lines)


def test_room_is_never_overdrawn() -> None:
    budget = MemoryBudget(50, 300)
    while fill(budget):
        pass
    assert budget.records <= 50
    assert budget.bytes == 300
    assert budget.share() == 0
    budget.give(300, 30)
    assert budget.share() == max(50 // PART, 1)


def test_first_of_a_line_may_take_what_is_left() -> None:
    budget = MemoryBudget(100, 1000)
    assert budget.fits(0, 0, 900)
    assert not budget.fits(0, 0, 1001)
    assert not budget.fits(1, 10, 900)
