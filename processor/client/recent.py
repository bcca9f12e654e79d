"""The stretch of a partition that a reader has passed lately, so that who asks for a job in it costs no second reading.

Handles are often asked one after the other (a list of them, or each by a web request of its own), and the jobs of one
time lie close together. The stretch is bounded in bytes. It is kept in two halves; the older one goes when the newer
is full.
"""

from __future__ import annotations

import math

HALF_BYTES = 1024 * 1024
"""Of one partition; the topic has few."""
_RECORD_BYTES = 250
"""What Python keeps beside the bytes of a record, about."""


class Recent:
    """Records of one partition from an offset on, up to where the reader is."""

    __slots__ = ("_bytes", "_new", "_new_start", "_old", "_since", "start")

    def __init__(self, start: int, since: float = math.inf) -> None:
        self.start = start
        """No record from here on is missing."""
        self._since = since
        """The same as a time; infinite: not known."""
        self._old: dict[bytes, list[bytes]] = {}
        self._new: dict[bytes, list[bytes]] = {}
        self._new_start = start
        self._bytes = 0

    def add(self, offset: int, key: bytes, value: bytes) -> None:
        """The next record."""
        if self._bytes > HALF_BYTES:
            self._old, self._new, self._bytes = self._new, {}, 0
            if self._new_start != self.start:
                self._since = math.inf
            self.start, self._new_start = self._new_start, offset
        known = self._new.get(key)
        if known is None:
            self._new[key] = [value]
        else:
            known.append(value)
        self._bytes += len(value) + _RECORD_BYTES

    def covers_since(self, moment_ms: float) -> bool:
        """Whether it holds all records of this time or later, as far as the reader has read."""
        return moment_ms >= self._since

    def of(self, key: bytes) -> list[bytes]:
        """The records of a job, in the order of the log."""
        return [*self._old.get(key, ()), *self._new.get(key, ())]
