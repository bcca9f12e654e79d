"""Which attempt goes to which pool, and when: the local backlog of each queue and the keys that jobs wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from processor.core.ordering import Reclaimed, Spilled
from processor.worker.attempt import Attempt
from processor.worker.number import Number, Standing

if TYPE_CHECKING:
    from processor.worker.desk import Desk


class Pool(Protocol):
    """Runs attempts of one queue with one kind of executor; posts each to the owner's inbox when it has ended."""

    slots: int

    def submit(self, attempts: list[Attempt]) -> None: ...

    def nudge(self) -> None:
        """Called every turn of the loop: wake somebody if work waits and hands are idle."""
        ...

    def stop(self, timeout: float) -> bool:
        """End the pool; whether everything in it ended in time."""
        ...


class Shelf:
    """Attempts of one queue and executor kind that may start: handed to the pool a little ahead of its slots."""

    __slots__ = ("pool", "running", "waiting")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.waiting: deque[Attempt] = deque()
        self.running: dict[Attempt, None] = {}
        """Handed to the pool and not ended, in that order."""

    @property
    def outstanding(self) -> int:
        """How many the pool has in its hands."""
        return len(self.running)

    @property
    def ahead(self) -> int:
        """How many the pool may hold: its slots and about as many again, or slots idle while the owner is busy."""
        return 2 * self.pool.slots + 128


class Dispatch:
    """See the module."""

    def __init__(
        self,
        desk: Desk,
        make_pool: Callable[[str, int, str], Pool],
        park: Callable[[Attempt], None],
        reread: Callable[[Number, str, Spilled], None],
    ) -> None:
        self._desk = desk
        self._make_pool = make_pool
        self._park_unknown = park
        self._reread = reread
        self.shelves: dict[tuple[str, str], Shelf] = {}

    def ready(self, attempt: Attempt) -> None:
        """The attempt may start as soon as a slot is free."""
        job_type = attempt.job_type
        if job_type is None:
            self._park_unknown(attempt)
            return
        kind = "async" if job_type.kind == "async" else job_type.executor
        queue = attempt.number.queue.name
        shelf = attempt.shelf = self.shelves.get((queue, kind)) or self._new_shelf(queue, kind)
        shelf.waiting.append(attempt)

    def _new_shelf(self, queue: str, kind: str) -> Shelf:
        pool = self._make_pool(queue, self._desk.queues[queue].concurrency, kind)
        shelf = self.shelves[queue, kind] = Shelf(pool)
        return shelf

    def hand_out(self) -> int:
        """Give the pools what they have room for; how many attempts were handed out."""
        handed = 0
        for shelf in self.shelves.values():
            room = shelf.ahead - shelf.outstanding
            if shelf.waiting and room > 0:
                handed += self._hand_out(shelf, room)
            if shelf.outstanding:
                shelf.pool.nudge()
        return handed

    def _hand_out(self, shelf: Shelf, room: int) -> int:
        waiting = shelf.waiting
        batch: list[Attempt] = []
        while waiting and len(batch) < room:
            attempt = waiting.popleft()
            # Jobs of a number that was given up meanwhile are not ours to start.
            if attempt.number.assignment == attempt.assignment and attempt.number.standing is Standing.ACTIVE:
                batch.append(attempt)
                attempt.number.running += 1
        shelf.running.update(dict.fromkeys(batch))
        shelf.pool.submit(batch)
        return len(batch)

    def ended(self, attempt: Attempt) -> None:
        """A pool gave an attempt back."""
        if attempt.shelf is not None:
            del attempt.shelf.running[attempt]
            attempt.number.running -= 1

    def release_key(self, number: Number, key: str | None, holder: str | None) -> None:
        """A job is done with its ordering key: the next of that key may start."""
        if key is None:
            return
        follower = number.order.finished(key, holder)
        if follower is None:
            return
        if isinstance(follower, Spilled):
            self._reread(number, key, follower)
        elif not isinstance(follower, Reclaimed):
            self.ready(follower)

    @property
    def outstanding(self) -> int:
        """Attempts in the hands of pools."""
        return sum(shelf.outstanding for shelf in self.shelves.values())

    def has_free_slot(self, queue: str) -> bool:
        """Whether a job of this queue would start at once, in at least one kind of executor."""
        shelves = [shelf for (name, _), shelf in self.shelves.items() if name == queue]
        return not shelves or any(shelf.outstanding < shelf.pool.slots for shelf in shelves)

    @property
    def waiting(self) -> int:
        """Attempts that may start and wait for a slot."""
        return sum(len(shelf.waiting) for shelf in self.shelves.values())
