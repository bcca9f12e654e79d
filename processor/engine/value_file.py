"""Values of the checkpoint topic that are too large to stay in memory: in a file without a name on the local disk.

A worker may own a hundred thousand parked jobs of 100 KB each. It looks at few of them, at any time, and at once: so it
does not keep their records in memory, and does not ask the brokers for them either. The log alone counts: the file dies
with the process, and whoever takes a number over reads the log.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from threading import Lock

from processor import events

log = events.logger(__name__)

SMALL = 256
"""Bytes; a value up to this stays in memory: its place would cost nearly as much."""


class StoredValue:
    """A value in the file. Its room is free again once nobody holds this any more."""

    __slots__ = ("_file", "_place", "_size")

    def __init__(self, file: ValueFile, place: int, size: int) -> None:
        self._file = file
        self._place = place
        self._size = size

    def read(self) -> bytes:
        """The value.

        Raises:
            OSError: the disk does not give it back.
        """
        return self._file.read(self._place, self._size)

    def __del__(self) -> None:
        self._file.free(self._place, self._size)


class ValueFile:
    """Made at the first large value. Pieces are powers of two, so that what is freed serves again. For all threads."""

    def __init__(self, folder: str | None = None) -> None:
        """`folder`: where; None: where temporary files lie (`TMPDIR`)."""
        self._folder = folder
        self._descriptor: int | None = None
        self._end = 0
        self._lock = Lock()
        # A deque, since a value may be forgotten by the garbage collector at any moment, in the middle of `keep` too.
        self._freed: dict[int, deque[int]] = {bits: deque() for bits in range(64)}

    def keep(self, value: bytes) -> bytes | StoredValue:
        """The value itself if it is small, or if the disk does not take it."""
        size = len(value)
        if size <= SMALL:
            return value
        place = -1
        try:
            place = self._room((size - 1).bit_length())
            if os.pwrite(self._opened(), value, place) == size:
                return StoredValue(self, place, size)
        except OSError as error:
            log.warning("values.not_stored", extra={"error": str(error), "size": size})
        if place >= 0:
            self.free(place, size)
        return value

    def read(self, place: int, size: int) -> bytes:
        """What lies there."""
        value = os.pread(self._opened(), size, place)
        if len(value) != size:
            raise OSError(f"{size} bytes were stored at {place}, {len(value)} are left")
        return value

    def free(self, place: int, size: int) -> None:
        """Nobody needs what lies there."""
        self._freed[(size - 1).bit_length()].append(place)

    @property
    def size(self) -> int:
        """Bytes of the file, with what is free in it."""
        return self._end

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _room(self, bits: int) -> int:
        try:
            return self._freed[bits].pop()
        except IndexError:
            with self._lock:
                place = self._end
                self._end += 1 << bits
            return place

    def _opened(self) -> int:
        if self._descriptor is None:
            with self._lock:
                if self._descriptor is None:
                    self._descriptor = _unnamed(self._folder)
        return self._descriptor


def _unnamed(folder: str | None) -> int:
    descriptor, path = tempfile.mkstemp(prefix="processor-values-", dir=folder)
    os.unlink(path)
    return descriptor
