"""What may start and waits for a slot, of one queue and one kind of executor: who is next, how many to keep ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from processor.job import Lane

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.pool import Pool

TURNS_OF_FOLLOWERS = 3
"""While others wait too, so many followers of a key start for each of those."""
SHORT = 0.001
"""Seconds of a job up to which it is its cost that counts: many are handled at a time. The time of longer jobs is spent
waiting: there it counts that a slot, or a key, goes on at once."""
SHORT_AHEAD = 600
"""So many short ones are kept ready. With more of them the processor's caches no longer hold what is touched next
(measured, jobs that do nothing: 2 % fewer a second with 2,000, 6 % with 5,000; 1 % with 250, by fetching more often).
"""
DUE_SHARE = 3
"""Of ten slots, those for jobs from the `due` lane while others wait too."""
FEW = 32
"""So few more are not worth a fetch."""


class ReadyQueue:
    """Attempts of one queue and executor kind that may start: handed to the pool a little ahead of its slots."""

    __slots__ = (
        *("_credit", "_ended", "_peak", "_seconds", "_turn"),
        *("alone", "due", "followers", "pool", "running", "stuck", "waiting"),
    )

    def __init__(self, pool: Pool, *, alone: bool = False) -> None:
        self.pool = pool
        self.alone = alone
        """For suspects: none is handed out before there is a slot for it, and before it is in the log by its name."""
        self.waiting: deque[Attempt] = deque()
        self.due: deque[Attempt] = deque()
        """From the `due` lane: they share the slots with the others by weight, so neither side starves."""
        self.followers: deque[Attempt] = deque()
        """Next of their key: they have waited already, and behind all the others a hot key would hardly move."""
        self.running: dict[Attempt, None] = {}
        """Handed to the pool and not ended, in that order."""
        self.stuck = False
        """Its pool gives nothing back any more: a handler holds up the event loop."""
        self._ended = 0
        self._peak = 0.0
        """Attempts that ended between two turns of the owner, about the most of late."""
        self._seconds = 1.0
        """How long an attempt ran, the mean of late."""
        self._turn = 0
        self._credit = 0

    @property
    def ready(self) -> int:
        """How many may start and wait for a slot."""
        return len(self.waiting) + len(self.followers) + len(self.due)

    @property
    def outstanding(self) -> int:
        """How many the pool has in its hands."""
        return len(self.running)

    @property
    def is_short(self) -> bool:
        """Whether its jobs take no time of late: slots are free again at once."""
        return self._seconds < SHORT

    @property
    def ahead(self) -> int:
        """How many the pool may hold: its slots and what they end while the owner is busy, or they would be idle.

        If jobs are short, about as many again. Else no more: what the pool holds goes before the next of a key.
        """
        slots = self.pool.slots
        if self.alone:
            return slots
        most = 2 * slots + 128
        return most if self.is_short else min(slots + 16 + int(self._peak), most)

    @property
    def lacks(self) -> int:
        """How many should be read: with enough here, reading on would bring nothing but more that waits.

        Nor more at once than is needed: while the owner admits records, the executors wait for the interpreter lock.
        """
        return self._lacks(len(self.waiting) + len(self.followers))

    @property
    def lacks_due(self) -> int:
        """The same for the `due` lane, for itself: else what one side has ready would keep the other unread."""
        return self._lacks(len(self.due))

    def _lacks(self, ready: int) -> int:
        if self.is_short:
            return SHORT_AHEAD if ready < SHORT_AHEAD else 0
        lacks = 2 * self.ahead - ready
        return lacks if lacks >= FEW else 0

    def submit(self, attempt: Attempt) -> None:
        """Give the pool one by itself: it was held back, or is to come back as it is."""
        self.pool.submit([attempt])

    def holds(self, attempt: Attempt) -> bool:
        """Whether the pool has it in its hands."""
        return attempt in self.running

    def nudge(self) -> None:
        """Wake the pool."""
        self.pool.nudge()

    def ended(self, attempt: Attempt) -> None:
        """The pool gave one back."""
        del self.running[attempt]
        self._ended += 1
        self._seconds += (attempt.run_seconds - self._seconds) * 0.03

    def back(self, attempts: Sequence[Attempt]) -> None:
        """The pool gave some back that nobody had begun: they go on first when it goes on."""
        for attempt in reversed(attempts):
            del self.running[attempt]
            (self.due if is_due(attempt) else self.waiting).appendleft(attempt)

    def turn(self) -> int:
        """The owner comes by; how many more the pool may hold."""
        self._peak = max(self._ended, self._peak * 0.98)
        self._ended = 0
        if self.alone:
            # One that is said to run and waits for its process to start would be blamed for deaths meanwhile.
            return min(self.ahead, self.pool.warmed(self.ready + self.outstanding)) - self.outstanding
        return self.ahead - self.outstanding

    def next(self) -> Attempt:
        """Take the one that starts next."""
        if self.due:
            self._credit += DUE_SHARE
            if self._credit >= 10 or not (self.waiting or self.followers):
                self._credit = max(self._credit - 10, 0)
                return self.due.popleft()
        if self.followers:
            self._turn += 1
            if self._turn <= TURNS_OF_FOLLOWERS or not self.waiting:
                return self.followers.popleft()
            self._turn = 0
        return self.waiting.popleft()


def is_due(attempt: Attempt) -> bool:
    """Whether it came out of the `due` lane."""
    return attempt.lane is not None and attempt.lane.lane is Lane.DUE
