"""How often a worker process looks for garbage in cycles: seldom by the count of objects, and whenever it has grown.

A cycle of few objects can hold much: with 1 MB in each job's, a thousand jobs held 1 GB before anybody looked.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

YOUNG = 50_000
"""Objects made and still alive between two looks. With Python's 700, every few jobs start one, and thousands of jobs in
flight are looked through again and again: a tenth of all processor time (measured: 19.0 against 17.4 us of a no-op
job). Jobs leave no cycles behind; handlers may, and find them collected all the same.
"""
MIDDLE = 20
OLD = 20
"""Looks at the younger ones between two at the next older ones."""


def collect_seldom() -> None:
    """Call it once, after the imports: what is there now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


GROWTH = 64 * 1024 * 1024
"""Bytes that a process may grow between two full collections."""
BUSY = 5.0
"""A collection stops every thread: after one there is none for this many times as long."""
UNSEEN = 30.0
"""Seconds between two full collections where the memory in use cannot be seen."""
_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class GrowthWatch:
    """Collects when the process has grown. Looking costs some microseconds; the owner does so ten times a second."""

    def __init__(self) -> None:
        self._least = resident()
        self._next = 0.0

    def turn(self, now: float) -> bool:
        """Look, and collect if it is time; whether it was. `now`: monotonic seconds."""
        if now < self._next:
            return False
        size = resident()
        if size and size - self._least < GROWTH:
            self._least = min(self._least, size)
            return False
        # Of the processor: on a busy machine much of the other time is not this one's.
        began = time.thread_time()
        gc.collect()
        spent = time.thread_time() - began
        # What is in use now is no garbage, however much it is.
        self._least = resident()
        self._next = now + (BUSY * spent if size else UNSEEN)
        return True


def resident() -> int:
    """Bytes of this process in memory; 0 where that cannot be seen."""
    try:
        with _STATM.open("rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
