"""What is known of one job's status, and from where on its records are looked for."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from processor.job_ids import made_at
from processor.states import TERMINAL, State
from processor.wire.records import StatusRecord

BEGINNING = 0
LATELY_MS = 86_400_000
"""Of an id that tells no time (an idempotency key's, say) the last day is read first, as long as keys are remembered
unless that is changed; if there is nothing, the whole partition."""
MARGINS_MS = (30_000, 15 * 60_000)
"""How far the clock of who made an id may be ahead of the clocks of the workers, tried in this order. The first is what
nearly all need, and keeps the stretch short that is read in vain; after the last the whole partition is read.
"""


class Waits(Protocol):
    """Waits of an event loop: `processor.client.async_waits.AsyncWaits`."""

    def ended(self, track: Track, timeout: float) -> Future[bool]: ...


class Tail(Protocol):
    """Who reads the status topic for tracks: `processor.client.status.StatusTail`. Times in seconds."""

    @property
    def waits(self) -> Waits: ...
    def catch_up(self, track: Track, timeout: float) -> bool: ...
    def wait_end(self, track: Track, timeout: float) -> bool: ...


class Track:
    """What is known of one job's status. Alive as long as a handle is; the log's order is merged into one answer."""

    __slots__ = (
        "__weakref__",
        "_made_at",
        "_moments",
        "_seen",
        "floor",
        "id",
        "latest",
        "origin",
        "partition",
        "start",
        "tail",
    )

    def __init__(self, tail: Tail, job_id: str, partition: int, start: int, now_ms: int) -> None:
        self.tail = tail
        """Who reads for it: another one after a fork or a close."""
        self.id = job_id
        self.partition = partition
        self.origin = start
        """Offset before which it has no record."""
        self.start = start
        """Offset to read from, at the latest."""
        self._made_at = made_at(job_id)
        self._moments: list[int] = []
        """Times to read from that are still to be tried."""
        if start == BEGINNING:
            made = self._made_at
            self._moments = (
                [now_ms - LATELY_MS - MARGINS_MS[-1]] if made is None else [made - margin for margin in MARGINS_MS]
            )
        self._seen: tuple[int, int] | None = None
        """A stretch in which it has no record."""
        self.latest: StatusRecord | None = None
        self.floor = 0
        """An end before this moment (milliseconds) is that of an earlier job under the same key."""

    @property
    def ended(self) -> bool:
        """Whether the highest life known has ended."""
        return self.latest is not None and self.latest.state in TERMINAL

    @property
    def final(self) -> bool:
        """Whether nothing can follow what is known."""
        return self.latest is not None and self.latest.state is State.SUCCEEDED and self._made_at is not None

    @property
    def since(self) -> int | None:
        """The time to read from, milliseconds since the epoch; None: `start` says where."""
        return self._moments[0] if self._moments else None

    @property
    def may_have_ended_before(self) -> bool:
        """Whether an end of it may lie before where it is read from."""
        return self.since is not None and self.since > self.floor

    @property
    def seen(self) -> tuple[int, int] | None:
        """Offsets between which it is known to have no record."""
        return self._seen

    @property
    def lost(self) -> bool:
        """Whether it was read to the end in vain, and not from the beginning."""
        return self.latest is None and bool(self._moments)

    def widen(self, seen_to: int) -> None:
        """It has no record from `start` to here: look further back."""
        self._seen = (self.start, seen_to)
        self.start = BEGINNING
        del self._moments[0]

    def read_to(self, offset: int) -> None:
        """All its records before this offset are known."""
        self.start = max(self.start, offset)
        self._moments.clear()

    def forget_before(self, floor: int) -> None:
        """An end before `floor` is no end of this job."""
        self.floor = max(self.floor, floor)
        if self.ended and self.latest is not None and self.latest.at < self.floor:
            self.latest = None

    def merge(self, record: StatusRecord) -> None:
        """A later life supersedes; within a life the first end is final, and before it the newest record counts."""
        if record.state in TERMINAL and record.at < self.floor:
            return
        if supersedes(record, self.latest):
            self.latest = record


def supersedes(record: StatusRecord, known: StatusRecord | None) -> bool:
    """Whether a status that the log holds behind the known one replaces it: a later life always, within a life until
    its first end. Not by their times: those are of the clocks of two workers.
    """
    if known is None or record.life != known.life:
        return known is None or record.life > known.life
    return known.state not in TERMINAL
