"""A line alone gets a lot, many lines share, and something is always left for one more."""

from __future__ import annotations

from processor.core.room import PART, Room


def fill(room: Room, size: int = 10) -> int:
    """Let a new line take what it may; how many that were."""
    kept = 0
    while room.fits(kept, kept * size, size):
        room.take(size)
        kept += 1
    return kept


def test_lines_share_what_is_free() -> None:
    room = Room(900)
    assert fill(room) == 100, "alone: one part of what stays free"
    lines = [fill(room) for _ in range(10)]
    assert lines == sorted(lines, reverse=True)
    assert room.share() > 0
    assert lines[0] > 80
    assert room.records == 100 + sum(lines)


def test_room_is_never_overdrawn() -> None:
    room = Room(50, 300)
    while fill(room):
        pass
    assert room.records <= 50
    assert room.bytes == 300
    assert room.share() == 0
    room.give(300, 30)
    assert room.share() == max(50 // PART, 1)


def test_first_of_a_line_may_take_what_is_left() -> None:
    room = Room(100, 1000)
    assert room.fits(0, 0, 900)
    assert not room.fits(0, 0, 1001)
    assert not room.fits(1, 10, 900)
