"""Idempotency keys: which record under a key begins a life, and which is one more wish for what is there already.

Every caller makes the same id out of (queue, ordering key, idempotency key), without asking anybody, and appends a
record. All records of an id lie in one number, so its owner alone decides, by what it knows of the id:

    live or on its way through the retry chain      the record is a copy, however long that lasts
    ended within the window, `until="window"`       a copy
    ended, `until="finished"`                       the next life, unless it is a record that was settled before
    ended longer ago than the window, or unknown    the next life

*Lives are counted by the clock.* After the window nobody remembers the last life, and yet the next one must be higher
everywhere (statuses, saved progress, ids of children). So a life is named by the second of its enqueue.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

from processor.core.live import LiveView
from processor.job import Job, Lane
from processor.wire.records import DedupeMark

WINDOW, FINISHED = "window", "finished"
UNTILS = (WINDOW, FINISHED)
"""Until when a key keeps others out: for the dedupe window after the end of its job, or until that end."""

FINAL_HOP = 2**31 - 1
"""In marks: the life has ended, so no copy of it runs, whatever its hop."""

_PREFIX = "key-"
_EPOCH_MS = 1_735_689_600_000
"""2025-01-01; seconds from here fit into the 31 bits of a life until 2093."""
LANES = (None, Lane.NORMAL, Lane.DUE, Lane.HIGH, Lane.LOW)
_FRACTION = 8
"""Bits of a moment within a slice."""


def is_keyed(job_id: str) -> bool:
    """Whether the id was made of an idempotency key (`processor.core.dedupe.idempotent_id`)."""
    return job_id.startswith(_PREFIX)


def prefixed(digest: str) -> str:
    """A digest as such an id."""
    return _PREFIX + digest


def life_at(now_ms: int) -> int:
    """The life that begins with an enqueue at this moment."""
    return max(1, 1 + (now_ms - _EPOCH_MS) // 1000)


def content_check(job: Job) -> int:
    """16 bits of what a job is to do, to notice a key that was given to something else."""
    return crc32(job.payload, crc32(job.type.encode())) & 0xFFFF


def copy_for(until: bytes | None) -> int:
    """Milliseconds after the last status of an earlier life in which a record is probably one more wish for that life;
    -1: it begins a life of its own.

    For those who only look on, and see neither the owner's memory nor the settings: the default of
    `topics.dedupe_window` counts. What is a new life nevertheless shows it as soon as it has a status.

    Args:
        until: what the record's header says; None: it has no idempotency key, or was sent back by an operator.
    """
    if until is None:
        return -1
    return 0 if until == FINISHED.encode() else 24 * 3600 * 1000


class KeyMark(NamedTuple):
    """What is remembered of a key."""

    life: int
    hop: int
    """`FINAL_HOP`: the life has ended; else it goes on, elsewhere."""
    at: int
    """When it was settled, or is to come back at the earliest, milliseconds since the epoch, to 1/256 of a slice."""
    lane: Lane | None
    offset: int
    """Of the record that began the life: it and those before it in its lane are settled."""
    check: int
    """As `content_check`."""


class KeyMarks:
    """The keys of a number that are spoken for, one entry each, for the length of the dedupe window.

    One integer per key, packed: with its digest and its place in a dict it takes under 150 bytes (measured in tests).
    """

    __slots__ = ("_slice_ms", "_slices", "_window_ms")

    def __init__(self, window_ms: int, slice_ms: int) -> None:
        self._window_ms = window_ms
        self._slice_ms = slice_ms
        self._slices: dict[int, dict[int, int]] = {}

    def put(self, key: int, mark: DedupeMark) -> None:
        """One more mark of a key, by its digest; the highest (life, hop) counts, and where its life began."""
        lane = Lane(mark.lane) if mark.lane else None
        new = KeyMark(mark.life, mark.hop, max(mark.at, mark.due), lane, mark.offset, mark.check)
        old = self.get(key)
        if old is not None:
            if old[:2] > new[:2]:
                new, old = old, new
            if new.lane is None:
                new = new._replace(lane=old.lane, offset=old.offset)
            for marks in self._slices.values():
                marks.pop(key, None)
        self._slices.setdefault(new.at // self._slice_ms, {})[key] = self._packed(new)

    def get(self, key: int) -> KeyMark | None:
        """What is remembered of a key, perhaps longer than the window."""
        for number, marks in self._slices.items():
            packed = marks.get(key)
            if packed is not None:
                return self._unpacked(number, packed)
        return None

    def within(self, key: int, now_ms: int) -> KeyMark | None:
        """What is remembered of a key, unless that is longer ago than the window."""
        mark = self.get(key)
        grain = (self._slice_ms >> _FRACTION) + 1
        return None if mark is None or now_ms - mark.at > self._window_ms + grain else mark

    def expire(self, oldest: int) -> None:
        """Forget the slices before this one."""
        for number in [number for number in self._slices if number < oldest]:
            del self._slices[number]

    def __len__(self) -> int:
        return sum(map(len, self._slices.values()))

    def _packed(self, mark: KeyMark) -> int:
        value = mark.life
        for part, bits in (
            (mark.hop, 31),
            ((mark.at % self._slice_ms << _FRACTION) // self._slice_ms, _FRACTION),
            (LANES.index(mark.lane), 3),
            (mark.offset + 1, 48),
            (mark.check, 16),
        ):
            value = value << bits | part
        return value

    def _unpacked(self, number: int, value: int) -> KeyMark:
        parts = []
        for bits in (16, 48, 3, _FRACTION, 31):
            parts.append(value & (1 << bits) - 1)
            value >>= bits
        check, offset, lane, fraction, hop = parts
        at = number * self._slice_ms + (fraction * self._slice_ms >> _FRACTION)
        return KeyMark(value, hop, at, LANES[lane], offset - 1, check)


def life_of(job: Job, until: str, place: tuple[str, Lane, int], view: LiveView | None, mark: KeyMark | None) -> int:
    """The life that a record under a key begins or goes on with; 0: it is a copy.

    Args:
        job: of the record.
        until: one of `UNTILS`; what is unknown (a newer version's) counts as `window`.
        place: topic, lane and offset of the record.
        view: what the checkpoint topic holds of the id.
        mark: what is remembered of the key, within the window.
    """
    topic, lane, offset = place
    if view is not None and not view.ended and (view.progress is not None or view.job is not None):
        # Live: this very record goes on where its last owner left it, every other one is a copy.
        return view.life if view.home is not None and view.home == (topic, offset) else 0
    if mark is None:
        return job.life
    if mark.hop < FINAL_HOP or until != FINISHED:
        return 0
    if mark.lane is lane and offset <= mark.offset:
        return 0
    return max(job.life, mark.life + 1)
