"""Where the jobs of one number are: taken, in the hands of a pool, parked, ended lately, or behind their earlier life.

Jobs that wait for their key are in the number's `KeyOrder`, what the log holds of them in its `LiveTable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

A = TypeVar("A")
"""An attempt."""

RECENT = 1000
"""Ended jobs of a number that are remembered at least."""


class Recent:
    """(life, hop) of the jobs of a number that ended last, `RECENT` at least, remembered without a mark in the log.

    Two dicts that take turns: forgetting one at a time costs more than remembering.
    """

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: dict[str, tuple[int, int]] = {}
        self._old: dict[str, tuple[int, int]] = {}

    def add(self, job_id: str, life: int, hop: int) -> None:
        """It has ended."""
        if len(self._new) >= RECENT:
            self._old, self._new = self._new, {}
        self._new[job_id] = (life, hop)

    def __contains__(self, job_id: str) -> bool:
        """Whether something of this job has ended lately."""
        return job_id in self._new or job_id in self._old

    def get(self, job_id: str) -> tuple[int, int]:
        """What ended last of this job; (0, 0) if nothing is known."""
        return self._new.get(job_id) or self._old.get(job_id) or (0, 0)


class Parked:
    """Jobs that wait in the checkpoint topic without a slot: of each only its id, and when to look at it again."""

    __slots__ = ("_again_at", "_wanted", "_written")

    def __init__(self) -> None:
        self._again_at: dict[str, int | None] = {}
        self._written: dict[str, tuple[int, int]] = {}
        """(epoch, sequence) of the record that parks a job, until it is known to be committed."""
        # Like a set, but in an order: what is looked at first must not depend on the hashes of ids.
        self._wanted: dict[str, None] = {}
        """Those that are to be looked at now: an operator wants something of them."""

    def __contains__(self, job_id: str) -> bool:
        """Whether this job is parked."""
        return job_id in self._again_at

    def __len__(self) -> int:
        return len(self._again_at)

    def put(
        self, job_id: str, again_at: int | None, *, wanted: bool = False, written: tuple[int, int] | None = None
    ) -> None:
        """A job is parked.

        Args:
            job_id: of the job.
            again_at: when to look at it again (ms); None: not by the clock.
            wanted: somebody wants it to be looked at now.
            written: (epoch, sequence) of the record that parks it, if that is still to be committed.
        """
        self._again_at[job_id] = again_at
        if wanted:
            self._wanted[job_id] = None
        if written is not None:
            self._written[job_id] = written

    def look_at(self, job_id: str) -> None:
        """An operator wants something of this one."""
        self._wanted[job_id] = None

    def look_at_all(self) -> None:
        """The same for every one of them."""
        self._wanted.update(dict.fromkeys(self._again_at))

    def due(self, now_ms: int) -> Iterator[str]:
        """Those whose time has come, and those that somebody wants looked at. The table may change meanwhile."""
        due = [job_id for job_id, at in self._again_at.items() if at is not None and now_ms >= at]
        return (job_id for job_id in dict.fromkeys((*due, *self._wanted)) if job_id in self._again_at)

    def looked_at(self, job_id: str, order: tuple[int, int]) -> bool:
        """Somebody looks at this one, as the record with this (epoch, sequence) tells; False: a newer one parks it."""
        if order < self._written.get(job_id, (0, 0)):
            return False
        self._written.pop(job_id, None)
        self._wanted.pop(job_id, None)
        return True

    def leave(self, job_id: str) -> None:
        """It goes on, or has ended; or it was not parked at all."""
        self._again_at.pop(job_id, None)
        self._written.pop(job_id, None)
        self._wanted.pop(job_id, None)


class Caution(Generic[A]):
    """A predecessor died: for a while a job starts only once the log says that it may."""

    __slots__ = ("held", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        """Monotonic seconds."""
        self.held: dict[str, list[tuple[A, bool]]] = {}
        """Those that wait for that by their kind of executor, and whether each follows in its key."""


class Successor(NamedTuple, Generic[A]):
    """A later life of a job that is still live: it waits for the end of the one before."""

    attempt: A
    in_line: bool
    """It has its place among the jobs that wait for its key."""


class PartitionJobs(Generic[A]):
    """The jobs of a number, by where they are."""

    __slots__ = ("attempts", "parked", "recent", "running", "successors")

    def __init__(self) -> None:
        self.attempts: dict[str, A] = {}
        """Jobs taken and not ended, by id."""
        self.running = 0
        """Attempts in the hands of a pool."""
        self.parked = Parked()
        self.recent = Recent()
        """The jobs that ended last: a repeated enqueue whose first record did arrive finds it here."""
        self.successors: dict[str, Successor[A]] = {}
        """By the id of the job."""
