"""Offset metadata survives its text, never claims more than was written, and never fails to be read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.offset_metadata import LIMIT, OffsetMetadata, base36, decode, encode, fits
from processor.core.window import merge_ranges

quick = settings(max_examples=100, derandomize=True, deadline=None)
OFFSETS = st.integers(0, 2**62)


@st.composite
def metas(draw: st.DrawFn) -> tuple[OffsetMetadata, int]:
    committed = draw(OFFSETS)
    steps = draw(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=80))
    ranges: list[tuple[int, int]] = []
    after = committed
    for skip, length in steps:
        ranges.append((after + skip, after + skip + length))
        after = ranges[-1][1] + 1
    meta = OffsetMetadata(
        epoch=draw(OFFSETS),
        slot=draw(st.text(max_size=30)),
        released=draw(st.booleans()),
        read_mark=committed + draw(st.integers(0, 10**9)),
        hint=draw(st.none() | OFFSETS),
        ranges=tuple(merge_ranges(ranges)),
    )
    return meta, committed


@given(metas())
@quick
def test_metadata_survives_its_text(case: tuple[OffsetMetadata, int]) -> None:
    meta, committed = case
    encoded = encode(meta, committed)
    assert not encoded.overflow
    assert encoded.text.isascii()
    assert decode(encoded.text, committed) == meta


@given(metas(), st.integers(0, 600))
@quick
def test_over_the_limit_the_last_ranges_are_dropped_and_said_so(case: tuple[OffsetMetadata, int], budget: int) -> None:
    meta, committed = case
    bare = len(encode(replace(meta, ranges=()), committed).text)
    encoded = encode(meta, committed, bare + budget)
    assert len(encoded.text) <= bare + budget
    back = decode(encoded.text, committed)
    assert back is not None
    assert back.ranges == meta.ranges[: len(meta.ranges) - encoded.dropped]
    assert encoded.overflow is (encoded.dropped > 0) is not fits(meta, committed, bare + budget)


@given(st.text() | st.from_regex(r"kjp[0-9];[0-9a-z;,._%-]*"), OFFSETS)
@quick
def test_any_text_can_be_read(text: str, committed: int) -> None:
    decode(text, committed)


@given(metas(), st.integers(0, 10_000), st.text(max_size=1))
@quick
def test_damaged_text_can_be_read(case: tuple[OffsetMetadata, int], place: int, replacement: str) -> None:
    meta, committed = case
    text = encode(meta, committed).text
    place %= len(text)
    decode(text[:place] + replacement + text[place + 1 :], committed)
    decode(text[:place], committed)


@pytest.mark.parametrize(
    "text", [None, "", "kjp2;0;1;a;0;0;;", "someone else's", "kjp1;0;1;a;0;0;;\n", "kjp1;1;1;a;0;0;;"]
)
def test_what_is_missing_foreign_newer_or_of_another_offset_says_nothing(text: str | None) -> None:
    assert decode(text, 0) is None


@pytest.mark.parametrize("ranges", [((4, 5),), ((10, 9),), ((12, 13), (11, 11))])
def test_ranges_out_of_order_are_refused(ranges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="range"):
        encode(OffsetMetadata(epoch=1, slot="a", read_mark=20, ranges=ranges), 10)


def test_a_read_mark_below_the_offset_and_a_huge_slot_name_are_refused() -> None:
    with pytest.raises(ValueError, match="read mark"):
        encode(OffsetMetadata(epoch=1, slot="a", read_mark=9), 10)
    with pytest.raises(ValueError, match="slot"):
        encode(OffsetMetadata(epoch=1, slot="a" * LIMIT, read_mark=10), 10)


def test_a_window_of_many_holes_stays_small() -> None:
    ranges = tuple((offset, offset) for offset in range(10**12, 10**12 + 1400, 2))
    meta = OffsetMetadata(epoch=7, slot="host-3", read_mark=10**12 + 1400, hint=10**12, ranges=ranges)
    assert fits(meta, 10**12 - 1)


def test_every_byte_of_the_limit_is_used_and_none_more() -> None:
    meta = OffsetMetadata(epoch=1, slot="a", read_mark=40, ranges=((11, 11), (13, 13), (15, 30)))
    whole = encode(meta, 10)
    assert (len(encode(meta, 10, len(whole.text)).text), whole.dropped) == (len(whole.text), 0)
    assert encode(meta, 10, len(whole.text) - 1).dropped == 1
    assert encode(meta, 10, len(whole.text) - 4).dropped == 1
    assert encode(meta, 10, len(whole.text) - 5).dropped == 2


def test_base36_reads_back() -> None:
    assert [int(base36(number), 36) for number in (0, 35, 36, 10**15)] == [0, 35, 36, 10**15]
    with pytest.raises(ValueError, match="negative"):
        base36(-1)
