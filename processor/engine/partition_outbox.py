"""The outbox of one number: what its jobs have to write, until the next flush takes it.

It counts what is put into it, for itself and for all outboxes of the worker: by that the worker knows when a flush is
due, and when it has no more room. What is in a flush counts until that is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from processor.broker.base import OutRecord
from processor.clock import Clock
from processor.core.group_commit import GroupCommit
from processor.core.live import step_key
from processor.core.write_set import SavedOut, WriteSet

A = TypeVar("A")
"""An attempt."""
S = TypeVar("S")
"""Somebody who waits for durability."""


class OutboxMark(NamedTuple):
    """How much lay in an outbox at a moment."""

    creates: int
    saves: int
    announces: int


class OutboxLoad:
    """How much all outboxes of a worker hold, in records and bytes of their values, and since when."""

    __slots__ = ("_clock", "flushed_records", "flushed_size", "group_commit", "oldest_at", "records", "size", "urgent")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.group_commit = GroupCommit()
        """Of those who wait for durability."""
        self.records = 0
        self.size = 0
        self.flushed_records = 0
        """Of the flush under way."""
        self.flushed_size = 0
        self.oldest_at: float | None = None
        """When the oldest of it was put there, or a flush was asked for (monotonic seconds); None: nothing to flush."""
        self.urgent = False
        """A flush is wanted at once: nothing of a number can start before it is claimed."""

    def wrote(self, records: int, size: int) -> None:
        """Records went into an outbox."""
        self.records += records
        self.size += size
        if self.oldest_at is None:
            self.oldest_at = self._clock.monotonic()

    def took_back(self, records: Sequence[OutRecord]) -> None:
        """Records left an outbox unwritten."""
        self.records = max(self.records - len(records), 0)
        self.size = max(self.size - _size(records), 0)

    def request_flush(self, *, urgent: bool = False) -> None:
        """There is something to commit, perhaps without a record."""
        self.urgent = self.urgent or urgent
        if self.oldest_at is None:
            self.oldest_at = self._clock.monotonic()

    def freeze(self, left: Iterable[tuple[int, int]]) -> None:
        """All of it goes into a flush but `left`: (records, bytes) of outboxes that cannot be flushed for now."""
        self.flushed_records, self.flushed_size = self.records, self.size
        self.records = self.size = 0
        self.oldest_at = None
        self.urgent = False
        for records, size in left:
            self.flushed_records = max(self.flushed_records - records, 0)
            self.flushed_size = max(self.flushed_size - size, 0)
            self.wrote(records, size)

    def committed(self) -> None:
        """The flush under way has ended well, or was not needed."""
        self.flushed_records = self.flushed_size = 0

    def put_back(self) -> None:
        """It has not: what it carried waits again."""
        self.wrote(self.flushed_records, self.flushed_size)
        self.flushed_records = self.flushed_size = 0


@dataclass(slots=True, kw_only=True)
class Contents(Generic[A, S]):
    """What one outbox gave to a flush."""

    creates: list[OutRecord]
    saves: list[SavedOut]
    announces: list[OutRecord]
    burials: list[bytes]
    """Of the keys and of the steps."""
    step_burials: list[tuple[str, str]]
    later: list[bytes]
    syncs: list[S]
    named: list[A]
    ending: dict[str, A]


class PartitionOutbox(Generic[A, S]):
    """The records of one number that wait for the next flush, and who waits for them. On the owning thread."""

    __slots__ = (
        *("announces", "burials", "creates", "ending", "later", "load", "named", "news", "saves", "step_burials"),
        "syncs",
    )

    def __init__(self, load: OutboxLoad) -> None:
        self.load = load
        """Of all outboxes of the worker."""
        self.creates: list[OutRecord] = []
        self.saves: list[SavedOut] = []
        """Creating records of the checkpoint topic, in order."""
        self.announces: list[OutRecord] = []
        self.later: list[bytes] = []
        """Keys to bury once everything now in `saves` is committed."""
        self.burials: list[bytes] = []
        """Keys to bury with the next flush."""
        self.step_burials: list[tuple[str, str]] = []
        """Steps (job id, name) whose item is done, as the progress now in `saves` says."""
        self.news: list[A] = []
        """Attempts with something to drain at the next freeze."""
        self.syncs: list[S] = []
        self.ending: dict[str, A] = {}
        """Jobs whose end, move or promotion is here, by id: if a record of it is refused, all of it is."""
        self.named: list[A] = []
        """Suspects that start once their promotion is committed."""

    def __bool__(self) -> bool:
        """Whether anything, or anybody, waits for the next flush."""
        return bool(self.saves or self.announces or self.creates or self.news or self.syncs)

    def create(self, *records: OutRecord) -> None:
        """Records without which those that announce would be wrong: children, copies, dead letters, marks."""
        self.creates += records
        self.load.wrote(len(records), _size(records))

    def save(self, saved: SavedOut) -> None:
        """A creating record of the checkpoint topic."""
        self.saves.append(saved)
        self.load.wrote(1, len(saved.out.value or b""))

    def announce(self, record: OutRecord) -> None:
        """A status."""
        self.announces.append(record)
        self.load.wrote(1, len(record.value or b""))

    def add(self, writes: WriteSet, children: Sequence[OutRecord] = ()) -> None:
        """The records of one end or move, whole."""
        self.creates += children
        self.creates += writes.creates
        self.saves += writes.saves
        self.announces += writes.announces
        self.later += writes.later
        outs = [*children, *writes.creates, *writes.announces, *(saved.out for saved in writes.saves)]
        self.load.wrote(len(outs), _size(outs))

    def bury(self, keys: Sequence[bytes]) -> None:
        """Tombstones for these keys leave with the next flush."""
        if keys:
            self.burials += keys
            self.load.wrote(len(keys), 0)

    def keep_from_burial(self, keys: set[bytes]) -> None:
        """These are written over instead."""
        self.burials = [key for key in self.burials if key not in keys]
        self.later = [key for key in self.later if key not in keys]

    def drop_saves(self, job_id: str) -> None:
        """Nothing of this job that is still to be saved is to bring it back."""
        dropped = [saved.out for saved in self.saves if saved.record.id == job_id]
        self.saves = [saved for saved in self.saves if saved.record.id != job_id]
        self.load.took_back(dropped)

    def mark(self) -> OutboxMark:
        """To be able to take back what comes."""
        return OutboxMark(len(self.creates), len(self.saves), len(self.announces))

    def roll_back(self, mark: OutboxMark) -> None:
        """Take back what was put here since."""
        taken = [*self.creates[mark.creates :], *self.announces[mark.announces :]]
        taken += [saved.out for saved in self.saves[mark.saves :]]
        del self.creates[mark.creates :]
        del self.saves[mark.saves :]
        del self.announces[mark.announces :]
        self.load.took_back(taken)

    def held(self) -> tuple[int, int]:
        """Records that wait here, and bytes of their values."""
        records = [*self.creates, *self.announces, *(saved.out for saved in self.saves)]
        return len(records), _size(records)

    def freeze(self) -> Contents[A, S]:
        """All there is, for a flush; nothing is left here but what comes from now on."""
        # A job that came back from the retry chain writes over what was to be buried of its earlier hop.
        anew = {saved.out.key for saved in self.saves} if self.burials else ()
        burials = [key for key in self.burials if key not in anew]
        burials += [step_key(job_id, name) for job_id, name in self.step_burials]
        contents = Contents(
            creates=self.creates,
            saves=self.saves,
            announces=self.announces,
            burials=burials,
            step_burials=self.step_burials,
            later=self.later,
            syncs=self.syncs,
            named=self.named,
            ending=self.ending,
        )
        self.creates, self.saves, self.announces, self.burials = [], [], [], []
        self.step_burials, self.later, self.syncs = [], [], []
        self.named, self.ending = [], {}
        return contents

    def put_back(self, contents: Contents[A, S]) -> None:
        """What a failed flush carried goes to the front, in its order; its load is put back for all at once."""
        self.creates[:0] = contents.creates
        self.announces[:0] = contents.announces
        self.saves[:0] = contents.saves
        steps = {step_key(job_id, name) for job_id, name in contents.step_burials}
        self.burials[:0] = [key for key in contents.burials if key not in steps]
        self.step_burials[:0] = contents.step_burials
        self.later[:0] = contents.later
        self.syncs[:0] = contents.syncs
        self.named[:0] = contents.named
        self.ending = {**contents.ending, **self.ending}


def _size(records: Iterable[OutRecord]) -> int:
    return sum(len(record.value or b"") for record in records)
