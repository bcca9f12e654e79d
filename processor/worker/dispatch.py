"""Which attempt goes to which pool, and when: the local backlog of each queue and the keys that jobs wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
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


TURNS_OF_FOLLOWERS = 3
"""While others wait too, so many followers of a key start for each of those."""
SHORT = 0.001
"""Seconds of a job up to which it is its cost that counts: many are handled at a time. The time of longer jobs is spent
waiting: there it counts that a slot, or a key, goes on at once."""
SHORT_AHEAD = 600
"""So many short ones are kept ready. With more of them the processor's caches no longer hold what is touched next
(measured, jobs that do nothing: 2 % fewer a second with 2,000, 6 % with 5,000; 1 % with 250, by fetching more often).
"""
FEW = 32
"""So few more are not worth a fetch."""


class Shelf:
    """Attempts of one queue and executor kind that may start: handed to the pool a little ahead of its slots."""

    __slots__ = ("_ended", "_peak", "_seconds", "_turn", "followers", "pool", "running", "waiting")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.waiting: deque[Attempt] = deque()
        self.followers: deque[Attempt] = deque()
        """Next of their key: they have waited already, and behind all the others a hot key would hardly move."""
        self.running: dict[Attempt, None] = {}
        """Handed to the pool and not ended, in that order."""
        self._ended = 0
        self._peak = 0.0
        """Attempts that ended between two turns of the owner, about the most of late."""
        self._seconds = 1.0
        """How long an attempt ran, the mean of late."""
        self._turn = 0

    @property
    def ready(self) -> int:
        """How many may start and wait for a slot."""
        return len(self.waiting) + len(self.followers)

    @property
    def outstanding(self) -> int:
        """How many the pool has in its hands."""
        return len(self.running)

    @property
    def ahead(self) -> int:
        """How many the pool may hold: its slots and what they end while the owner is busy, or they would be idle.

        If jobs are short, about as many again. Else no more: what the pool holds goes before the next of a key.
        """
        slots = self.pool.slots
        most = 2 * slots + 128
        return most if self._seconds < SHORT else min(slots + 16 + int(self._peak), most)

    @property
    def lacks(self) -> int:
        """How many should be read: with enough here, reading on would bring nothing but more that waits.

        Nor more at once than is needed: while the owner admits records, the executors wait for the interpreter lock.
        """
        if self._seconds < SHORT:
            return SHORT_AHEAD if self.ready < SHORT_AHEAD else 0
        lacks = 2 * self.ahead - self.ready
        return lacks if lacks >= FEW else 0

    def ended(self, attempt: Attempt) -> None:
        """The pool gave one back."""
        del self.running[attempt]
        self._ended += 1
        self._seconds += (attempt.run_seconds - self._seconds) * 0.03

    def turn(self) -> int:
        """The owner comes by; how many more the pool may hold."""
        self._peak = max(self._ended, self._peak * 0.98)
        self._ended = 0
        return self.ahead - self.outstanding

    def next(self) -> Attempt:
        """Take the one that starts next."""
        if self.followers:
            self._turn += 1
            if self._turn <= TURNS_OF_FOLLOWERS or not self.waiting:
                return self.followers.popleft()
            self._turn = 0
        return self.waiting.popleft()


class Dispatch:
    """See the module."""

    def __init__(
        self,
        desk: Desk,
        make_pool: Callable[[str, int, str], Pool],
        park: Callable[[Attempt], None],
        reread: Callable[[Number, str, Sequence[Spilled]], None],
    ) -> None:
        self._desk = desk
        self._make_pool = make_pool
        self._park_unknown = park
        self._reread = reread
        self.shelves: dict[tuple[str, str], Shelf] = {}

    def ready(self, attempt: Attempt, *, follows: bool = False) -> None:
        """The attempt may start as soon as a slot is free. `follows`: it has waited for its key."""
        job_type = attempt.job_type
        if job_type is None:
            self._park_unknown(attempt)
            return
        kind = "async" if job_type.kind == "async" else job_type.executor
        queue = attempt.number.queue.name
        shelf = self.shelves.get((queue, kind))
        if shelf is None:
            shelf = self._new_shelf(queue, kind)
        attempt.shelf = shelf
        (shelf.followers if follows else shelf.waiting).append(attempt)

    def _new_shelf(self, queue: str, kind: str) -> Shelf:
        pool = self._make_pool(queue, self._desk.queues[queue].concurrency, kind)
        shelf = self.shelves[queue, kind] = Shelf(pool)
        return shelf

    def hand_out(self) -> int:
        """Give the pools what they have room for; how many attempts were handed out."""
        handed = 0
        for shelf in self.shelves.values():
            room = shelf.turn()
            if room > 0 and (shelf.waiting or shelf.followers):
                handed += self._hand_out(shelf, room)
            if shelf.outstanding:
                shelf.pool.nudge()
        return handed

    def _hand_out(self, shelf: Shelf, room: int) -> int:
        waiting, followers = shelf.waiting, shelf.followers
        batch: list[Attempt] = []
        while len(batch) < room and (waiting or followers):
            attempt = shelf.next() if followers else waiting.popleft()
            # Jobs of a number that was given up meanwhile are not ours to start.
            if attempt.number.assignment == attempt.assignment and attempt.number.standing is Standing.ACTIVE:
                batch.append(attempt)
                attempt.number.running += 1
        if batch:
            job = batch[0].job
            due = job.enqueued_at if job.due_at is None else job.due_at
            self._desk.tally.waited(job.queue, max(self._desk.clock.now_ms() - due, 0) / 1000)
        shelf.running.update(dict.fromkeys(batch))
        shelf.pool.submit(batch)
        return len(batch)

    def ended(self, attempt: Attempt) -> None:
        """A pool gave an attempt back."""
        if attempt.shelf is not None:
            attempt.shelf.ended(attempt)
            attempt.number.running -= 1

    def offer_key(self, attempt: Attempt, key: str) -> bool:
        """Whether the attempt holds its key now and may start; else it waits for it, whole or as its place only."""
        number, origin = attempt.number, attempt.origin
        order = number.order
        spilled = order.spilled_count
        place = Spilled(origin.topic, origin.offset)
        if order.offer(key, attempt.job.id, attempt, place, len(attempt.raw), attempt.job.parent):
            return True
        if order.spilled_count > spilled:
            # Kept as its offset: the memory is free again, and reading goes on for other keys.
            self._desk.forget(attempt)
        return False

    def release_key(self, number: Number, key: str | None, holder: str | None) -> None:
        """A job is done with its ordering key: the next of that key may start."""
        if key is None:
            return
        order = number.order
        follower = order.finished(key, holder)
        if follower is None:
            return
        if not isinstance(follower, Spilled | Reclaimed):
            self.ready(follower, follows=True)
        places = order.wants(key)
        if places:
            if isinstance(follower, Spilled) and len(places) > 1:
                # Its turn has come: it does not wait until the others are found.
                self._reread(number, key, places[:1])
                places = places[1:]
            self._reread(number, key, places)

    def lacks(self) -> int:
        """How many records should be read: 0 if no slot would take what they bring.

        A reader serves all queues, and what it brings next may be for any kind of executor: one that has not enough is
        reason to read on, even if the others get more than they need. The bounds of what is in flight hold anyway.
        """
        lacks = max((shelf.lacks for shelf in self.shelves.values()), default=0)
        if lacks > 0:
            return lacks
        known = {queue for queue, _ in self.shelves}
        return self._desk.config.fetch_records if any(n.queue.name not in known for n in self._desk.active()) else 0

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
        return sum(shelf.ready for shelf in self.shelves.values())
