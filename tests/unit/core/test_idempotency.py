"""Keys: one mark each, packed and small, and which record under a key begins a life."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.dedupe import DedupeMarks, end_mark, idempotent_id, move_mark
from processor.core.idempotency import FINAL_HOP, KeyMark, KeyMarks, is_keyed, life_at, life_of
from processor.core.live import Home, LiveView
from processor.core.write_set import Origin
from processor.job import Job, Lane
from processor.wire.records import DedupeMark

DAY = 86_400_000
NOW = 1_800_000_000_000
quick = settings(max_examples=200, derandomize=True, deadline=None)
hops = st.sampled_from([0, 1, 7, FINAL_HOP])
lives = st.integers(1, 2**31 - 1)


def a_job(life: int = 5, payload: bytes = b"{}") -> Job:
    return Job(idempotent_id("q", None, "k"), "t", 1, "q", payload, NOW, life=life)


@given(
    lives,
    hops,
    st.integers(NOW, NOW + 3 * DAY),
    st.sampled_from(list(Lane)),
    st.integers(0, 2**40),
    st.integers(0, 65535),
)
@quick
def test_what_is_packed_comes_out_again(life: int, hop: int, at: int, lane: Lane, offset: int, check: int) -> None:
    marks = KeyMarks(DAY, DAY // 8)
    marks.put(1, DedupeMark("key-1", life, hop, at, 0, lane.value, offset, check))
    found = marks.get(1)
    assert found is not None
    assert found._replace(at=0) == KeyMark(life, hop, 0, lane, offset, check)
    assert 0 <= at - found.at <= DAY // 8 // 256 + 1
    assert marks.get(2) is None


@given(st.lists(st.tuples(lives, hops, st.integers(0, 2 * DAY)), min_size=1, max_size=8))
@quick
def test_the_highest_life_and_hop_count_in_whatever_order_marks_come(told: list[tuple[int, int, int]]) -> None:
    marks = KeyMarks(DAY, DAY // 8)
    for life, hop, at in told:
        marks.put(1, DedupeMark("key-1", life, hop, NOW + at))
    found = marks.get(1)
    assert found is not None
    assert found[:2] == max((life, hop) for life, hop, _ in told)
    assert len(marks) == 1, "one entry for a key, however often it was marked"


def test_a_key_is_kept_for_the_window_and_not_a_minute_longer() -> None:
    marks = DedupeMarks(DAY)
    job = a_job()
    marks.put(end_mark(job, NOW, None))
    assert marks.key(job.id, NOW + DAY) is not None
    assert marks.key(job.id, NOW + DAY + 60_000) is None
    marks.expire(NOW + 2 * DAY)
    assert len(marks) == 0


def test_a_job_that_comes_back_later_than_the_window_keeps_its_key_till_then() -> None:
    marks = DedupeMarks(DAY)
    job = a_job()
    marks.put(move_mark(job, NOW, Origin("ns.jobs.q", 0, 7), NOW + 3 * DAY))
    marks.expire(NOW + 3 * DAY)
    found = marks.key(job.id, NOW + 3 * DAY)
    assert found is not None
    assert (found.hop, found.lane, found.offset) == (0, Lane.NORMAL, 7)
    marks.put(end_mark(job._replace(hop=1), NOW + 3 * DAY, Origin("ns.jobs.q.due", 0, 1)))
    found = marks.key(job.id, NOW + 3 * DAY)
    assert found is not None
    assert (found.hop, found.lane, found.offset) == (FINAL_HOP, Lane.NORMAL, 7), "where the life began is not forgotten"


def test_a_live_key_takes_under_150_bytes() -> None:
    count = 44_000  # just beyond a step of the dict, where it is emptiest
    marks = DedupeMarks(DAY)
    ids = [idempotent_id("q", None, str(number)) for number in range(count)]
    tracemalloc.start()
    for number, job_id in enumerate(ids):
        marks.put(DedupeMark(job_id, life_at(NOW) + number, FINAL_HOP, NOW, 0, "normal", 10**12 + number, 65_535))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / count <= 150


def test_lives_grow_with_the_clock() -> None:
    assert life_at(0) == 1
    assert life_at(NOW + 1000) == life_at(NOW) + 1
    assert life_at(4_000_000_000_000 - 200_000_000_000) < 2**31, "until the 2090s"
    assert is_keyed(idempotent_id("q", None, "k"))


PLACE = ("ns.jobs.q", Lane.NORMAL, 20)


def view(*, ended: bool = False, home: Home | None = None, life: int = 3) -> LiveView:
    return LiveView(a_job().id, life, 0, b"progress", None, {}, {}, ended, home)


def mark(life: int = 3, hop: int = FINAL_HOP, lane: Lane | None = Lane.NORMAL, offset: int = 10) -> KeyMark:
    return KeyMark(life, hop, NOW, lane, offset, 0)


@pytest.mark.parametrize("until", ["window", "finished", "a newer version's"])
def test_nothing_begins_while_the_key_is_live(until: str) -> None:
    job = a_job()
    assert life_of(job, until, PLACE, None, None) == 5, "nothing is known"
    assert life_of(job, until, PLACE, view(), None) == 0
    assert life_of(job, until, PLACE, view(home=Home("ns.jobs.q", 10)), None) == 0, "another record's"
    assert life_of(job, until, PLACE, view(home=Home("ns.jobs.q", 20)), None) == 3, "its own: it goes on"
    assert life_of(job, until, PLACE, None, mark(hop=0)) == 0, "it was promoted, or waits for its retry"
    assert life_of(job, until, PLACE, view(ended=True), mark(hop=2)) == 0


def test_after_the_end_until_decides() -> None:
    job = a_job()
    assert life_of(job, "window", PLACE, None, mark()) == 0
    assert life_of(job, "later", PLACE, None, mark()) == 0, "what is not known keeps out"
    assert life_of(job, "finished", PLACE, None, mark()) == 5
    assert life_of(job, "finished", PLACE, view(ended=True), mark(life=9)) == 10, "higher than every life before"
    assert life_of(job, "finished", PLACE, None, mark(offset=20)) == 0, "this very record: its flush was torn"
    assert life_of(job, "finished", PLACE, None, mark(offset=25)) == 0, "one before it"
    assert life_of(job, "finished", PLACE, None, mark(lane=Lane.HIGH, offset=25)) == 5
