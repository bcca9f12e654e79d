"""Derived ids are the same every time and differ by place; marks last as long as the window, and are small."""

from __future__ import annotations

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.dedupe import DedupeMarks, child_id, idempotent_id

quick = settings(max_examples=100, derandomize=True, deadline=None)
PLACES = st.tuples(st.text(max_size=3), st.integers(1, 3), st.text(max_size=3), st.text(max_size=3))
PARTS = st.tuples(PLACES, st.integers(0, 3) | st.text(max_size=3))


@given(PARTS, PARTS)
@quick
def test_children_of_different_places_have_different_ids(
    one: tuple[tuple[str, int, str, str], int | str], two: tuple[tuple[str, int, str, str], int | str]
) -> None:
    same = one == two and type(one[1]) is type(two[1])
    assert (child_id(*one[0], one[1]) == child_id(*two[0], two[1])) is same


def test_ids_are_stable_over_releases() -> None:
    assert child_id("p", 1, "rows[5]", "notify", 0) == "bb6eec920ced95f73125dffe6734f4e9"
    assert idempotent_id("bulk", "customer", "order-7") == "key-2c90af12ad17da5a993aa2f8dae6b27b"


def test_separators_cannot_be_forged() -> None:
    assert child_id("a", 1, "b", "c", "0") != child_id("a", 1, "b", "c", 0)
    assert child_id("a", 1, "b", "c", "#0") != child_id("a", 1, "b", "c", 0)
    assert idempotent_id("q", None, "k") != idempotent_id("q", "", "k")
    assert idempotent_id("q", "a", "bc") != idempotent_id("q", "ab", "c")
    assert child_id("p", 1, "", "t", 0) != child_id("p", 2, "", "t", 0), "redrive_from_zero_gets_new_children"


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.integers(0, 3), st.integers(0, 4000)), max_size=20)
)
@quick
def test_marks_are_kept_for_the_window_and_little_longer(marks: list[tuple[str, int, int, int]]) -> None:
    dedupe, window = DedupeMarks(800), 800
    for job_id, life, hop, at in marks:
        dedupe.mark(job_id, life, hop, at)
    for now in range(0, 6000, 500):
        dedupe.expire(now)
        for job_id in "ab":
            for pair in ((1, 0), (1, 3), (2, 1), (3, 3)):
                seen = dedupe.seen(job_id, *pair)
                covering = [at for other, life, hop, at in marks if other == job_id and (life, hop) >= pair]
                assert seen or not any(now - at <= window for at in covering)
                assert not seen or any(now - at <= window + 2 * window // 8 for at in covering)


def test_a_later_life_is_never_dropped_as_seen() -> None:
    dedupe = DedupeMarks(1000)
    dedupe.mark("a", 1, 7, 0)
    dedupe.mark("a", 1, 2, 0)
    assert dedupe.seen("a", 1, 7)
    assert dedupe.seen("a", 1, 0)
    assert not dedupe.seen("a", 1, 8)
    assert not dedupe.seen("a", 2, 0), "redriven_job_is_never_dropped_as_seen"
    assert not dedupe.seen("b", 1, 0)
    assert len(dedupe) == 1


def test_a_million_marks_take_under_a_hundred_megabytes() -> None:
    count = 50_000  # per mark, so that the test is quick: a slice's dict grows in steps of two, its worst case is here
    dedupe = DedupeMarks(86_400_000)
    tracemalloc.start()
    for number in range(count):
        dedupe.mark(f"{number:032x}", 1, number % 3, 0)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / count < 100
