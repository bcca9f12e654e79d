"""What the reader of statuses has passed lately."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from processor.client import recent
from processor.client.recent import HALF_BYTES, Recent


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, HALF_BYTES // 2)), max_size=40))
def test_from_its_start_on_nothing_is_missing_and_it_stays_bounded(written: list[tuple[bytes, int]]) -> None:
    kept = Recent(100)
    log = [(100 + place, key, b"x" * (size % 7) + b"%d" % place) for place, (key, size) in enumerate(written)]
    for (offset, key, value), (_, size) in zip(log, written, strict=True):
        kept.add(offset, key, value.ljust(size))
        assert kept.start <= offset
        for wanted in (b"a", b"b", b"c"):
            held = [each.rstrip() for each in kept.of(wanted)]
            there = [value for at, key, value in log if at <= offset and key == wanted]
            since = [value for at, key, value in log if kept.start <= at <= offset and key == wanted]
            assert held[len(held) - len(since) :] == since, "all from its start on, in the order of the log"
            assert there[len(there) - len(held) :] == held
    assert sum(len(value) for key in (b"a", b"b", b"c") for value in kept.of(key)) <= 2 * (HALF_BYTES + HALF_BYTES // 2)


def fill(kept: Recent, offset: int) -> int:
    """Records until one half is over-full; the next offset."""
    for _ in range(3):
        kept.add(offset, b"k", b"x" * (HALF_BYTES // 2))
        offset += 1
    return offset


def test_a_time_is_covered_while_the_stretch_begins_where_that_time_was_looked_up() -> None:
    kept = Recent(0, since=5_000.0)
    assert kept.covers_since(5_000)
    assert not kept.covers_since(4_999)
    offset = fill(kept, 0)
    assert kept.covers_since(5_000), "the older half is still there"
    fill(kept, fill(kept, offset))
    assert kept.start > 0
    assert not kept.covers_since(math.nextafter(math.inf, 0)), "what went with the older half may be that late"


def test_without_a_time_no_time_is_covered() -> None:
    assert not Recent(0).covers_since(10**18)
    assert Recent(0, -math.inf).covers_since(0), "what was deleted before is nobody's"


def test_small_records_count_by_what_they_cost_in_memory() -> None:
    kept = Recent(0)
    for offset in range(2 * HALF_BYTES // recent._RECORD_BYTES + 10):
        kept.add(offset, b"%d" % offset, b"")
    assert kept.start > 0
