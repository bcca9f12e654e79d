"""A window never lets a commit pass an unread record or an unfinished job, and skips what is complete."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.window import Window, merge_ranges

quick = settings(max_examples=100, derandomize=True, deadline=None)

LOG = st.lists(st.integers(1, 4), max_size=60).map(lambda steps: [sum(steps[: n + 1]) for n in range(len(steps))])
"""Ascending offsets with gaps."""
ACTIONS = st.lists(st.tuples(st.sampled_from(["read", "read_many", "complete", "reread", "end"]), st.integers(0, 99)))


class Model:
    """The window as sets, slowly."""

    def __init__(self, start: int) -> None:
        self.read: set[int] = set()
        self.done: set[int] = set()
        self.mark = start

    @property
    def low(self) -> int:
        return min(self.read - self.done, default=self.mark)


def play(window: Window, model: Model, log: list[int], actions: list[tuple[str, int]], skipped: set[int]) -> None:
    unread = [offset for offset in log if offset >= model.mark]
    for action, pick in actions:
        if action == "read" and unread:
            offset = unread.pop(0)
            assert window.add(offset) is (offset not in skipped)
            model.read.add(offset)
            model.mark = offset + 1
        elif action == "read_many" and unread:
            batch = [unread.pop(0) for _ in range(min(len(unread), pick % 5 + 1))]
            assert list(window.add_many(batch)) == [offset for offset in batch if offset not in skipped]
            model.read.update(batch)
            model.mark = batch[-1] + 1
        elif action == "complete" and model.read:
            offset = sorted(model.read)[pick % len(model.read)]
            assert window.complete(offset) is (offset not in model.done | skipped)
            model.done.add(offset)
        elif action == "reread" and model.read:
            assert not window.add(sorted(model.read)[pick % len(model.read)])
        elif action == "end":
            model.mark = max(model.mark, (unread[0] if unread else model.mark + pick % 3))
            window.reached(model.mark)
        model.done |= model.read & skipped
        check(window, model, unread)


def check(window: Window, model: Model, unread: list[int]) -> None:
    left = sorted(model.read - model.done)
    assert window.low == model.low
    assert not unread or window.low <= unread[0], "a commit would pass an unread record"
    assert list(window.incomplete()) == left
    assert window.incomplete_count == len(left)
    assert window.oldest_incomplete == (left[0] if left else None)
    assert window.read_mark == model.mark
    assert window.width == model.mark - model.low
    ranges = window.done_ranges()
    covered = {offset for first, last in ranges for offset in range(first, last + 1)}
    assert {offset for offset in covered if offset < model.mark} == set(range(model.low, model.mark)) - set(left)
    assert ranges == merge_ranges(ranges), "sorted and not adjacent"
    assert all(window.is_complete(offset) is (offset in covered) for offset in range(model.low, model.mark + 5))


@given(LOG, ACTIONS)
@quick
def test_committed_end_never_passes_an_unread_record(log: list[int], actions: list[tuple[str, int]]) -> None:
    play(Window(0), Model(0), log, actions, set())


@given(LOG, ACTIONS, ACTIONS)
@quick
def test_a_restored_window_skips_what_was_complete_and_nothing_else(
    log: list[int], before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    first, model = Window(0), Model(0)
    play(first, model, log, before, set())
    start, ranges = first.low, first.done_ranges()
    skipped = {offset for offset in log if start <= offset < model.mark and offset in model.done}
    second = Window(start, ranges)
    assert second.low == start, "the reader has to get there first"
    assert second.done_ranges() == ranges
    play(second, Model(start), log, after, skipped)


def test_ranges_of_an_unfinished_restore_survive_a_second_crash() -> None:
    window = Window(10, [(11, 12), (15, 20)])
    assert window.add(10)
    assert not window.add(11)
    assert window.done_ranges() == [(11, 12), (15, 20)]
    assert window.add(13)
    window.complete(13)
    assert window.done_ranges() == [(11, 13), (15, 20)]
    assert window.low == 10


def test_inside_a_restored_range_the_rest_of_it_stays() -> None:
    window = Window(10, [(11, 15)])
    assert window.add(10)
    window.complete(10)
    assert not window.add(12)
    assert (window.low, window.done_ranges()) == (13, [(13, 15)])
    assert [offset for offset in range(9, 18) if window.is_complete(offset)] == [9, 10, 11, 12, 13, 14, 15]


def test_an_offset_that_was_never_delivered_cannot_be_completed() -> None:
    window = Window(5)
    assert not window.complete(7)
    window.complete_many([7, 8])
    assert window.add(7)
    assert window.low == 7


def test_a_batch_with_a_repetition_is_taken_once() -> None:
    window = Window(0)
    assert list(window.add_many([1, 2, 2, 1, 3])) == [1, 2, 3]
    assert list(window.add_many([])) == []
    window.complete_many([1, 3])
    assert (window.low, window.done_ranges()) == (2, [(3, 3)])
