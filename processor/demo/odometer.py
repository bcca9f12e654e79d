"""What a run of the walk did, seen from outside, also when its process is killed: four numbers in a mapped file.

The kernel keeps a mapped page when its process dies, so no line that was really handled goes uncounted. A run is one
start of the handler; a resume is a new run with a file of its own.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_LAYOUT = struct.Struct("=qqqq")
_BEGAN, _AFTER, _FIRST, _LINES = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, as read from its file."""

    process: int
    began_ns: int
    """When the handler started, nanoseconds since the epoch."""
    after: int
    """The line it resumed after; -1: it began at the beginning."""
    first_ns: int
    """When it got its first line; 0: not yet."""
    lines: int
    """Lines it handled."""


class Odometer:
    """The writing side: one per run, closed at its end."""

    def __init__(self, folder: Path) -> None:
        began = time.time_ns()
        with (folder / f"{began}-{os.getpid()}.run").open("w+b") as file:
            file.write(_LAYOUT.pack(began, -1, 0, 0))
            file.flush()
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._numbers = memoryview(self._map).cast("q")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._numbers.release()
        self._map.close()

    def resumed(self, after: int | None) -> None:
        """The loop goes on after this line."""
        self._numbers[_AFTER] = -1 if after is None else after

    def line(self) -> None:
        """One line more."""
        numbers = self._numbers
        if not numbers[_LINES]:
            numbers[_FIRST] = time.time_ns()
        numbers[_LINES] += 1


def runs(folder: Path) -> list[Run]:
    """All runs so far, in the order of their starts."""
    found = []
    for path in folder.glob("*.run"):
        data = path.read_bytes()
        if len(data) == _LAYOUT.size:  # else it is being made just now
            began, after, first, lines = _LAYOUT.unpack(data)
            process = int(path.stem.partition("-")[2])
            found.append(Run(process=process, began_ns=began, after=after, first_ns=first, lines=lines))
    return sorted(found, key=lambda run: run.began_ns)
