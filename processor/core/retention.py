"""What the owner of a lane may delete: below the low watermark *and* older than the replay time, nothing else.

Time-based retention of the broker cannot know which jobs are unfinished, so lanes have none; the owner deletes. How old
a record is, is known from the records that were read: every record below one that was appended at t is older than t.
One sample per grain of time is enough, and after a restart `probe` names the offset worth reading for a first one.
"""

from __future__ import annotations

from collections import deque


class Retention:
    """Ages of one lane partition's records, sparsely."""

    __slots__ = ("_grain_ms", "_replay_ms", "_samples")

    def __init__(self, replay_ms: int, grain_ms: int | None = None) -> None:
        self._replay_ms = replay_ms
        self._grain_ms = max(1, replay_ms // 100) if grain_ms is None else grain_ms
        self._samples: deque[tuple[int, int]] = deque()
        """(offset, append time), ascending, about a grain of time apart: as many as grains fit into the replay time."""

    def observe(self, offset: int, appended_at: int) -> None:
        """A record was read, in ascending order or as `probe` asked; `appended_at` in milliseconds.

        A clock that ran ahead delays a deletion. One that ran behind hastens it, of records that are complete anyway.
        """
        samples = self._samples
        if not samples or offset < samples[0][0]:
            samples.appendleft((offset, appended_at))
        elif offset > samples[-1][0] and appended_at >= samples[-1][1] + self._grain_ms:
            samples.append((offset, appended_at))

    def deletable(self, low: int, begin: int, now: int) -> int | None:
        """Delete the records below this offset; None: nothing to delete.

        Args:
            low: the low watermark that is durably committed.
            begin: the first offset the log still holds.
            now: milliseconds since the epoch.
        """
        samples, before = self._samples, now - self._replay_ms
        while len(samples) > 1 and samples[1][1] <= before:
            samples.popleft()
        if not samples or samples[0][1] > before:
            return None
        offset = min(samples[0][0], low)
        return offset if offset > begin else None

    def probe(self, low: int, begin: int) -> int | None:
        """The offset of a record whose age is worth knowing; None: something below the low watermark is known.

        The middle: however often the process restarts, a lane holds at most twice the replay time.
        """
        if low <= begin or (self._samples and self._samples[0][0] < low):
            return None
        return (begin + low) // 2
