"""The partitions of the retry chain that a forwarder owns: what it has read of each and not moved on yet.

In a rung every record waits equally long, so only the head is looked at; behind it a little is kept ready. A partition
whose head is not due is read no further than that, whatever waits in it: a million records cost no memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from processor.broker.base import OffsetCommit, OutRecord, Record, TopicPartition
from processor.core.offset_metadata import OffsetMetadata, encode
from processor.core.retry_chain import leaves_at
from processor.wire.headers import DUE_AT, number_header

KEPT = 200
"""Records of a partition that are kept ready while its head is not due."""
KEPT_BYTES = 1024 * 1024


@dataclass(slots=True, eq=False)
class Rung:
    """One partition of a retry topic, owned."""

    place: TopicPartition
    delay: str
    """A key of `RETRY_DELAYS`."""
    assignment: int
    reading: bool = False
    """The reader has it."""
    held: deque[Record] = field(default_factory=deque)
    size: int = 0
    """Bytes of `held`."""
    committed: int = 0
    position: int = 0
    """The next offset that is neither held nor moved on."""
    end: int | None = None
    """The end of the partition as last seen, once everything before it has been read."""
    paused: bool = False
    leaves: int | None = None
    """When the head leaves, milliseconds since the epoch; None: nothing is held."""

    def take(self, record: Record) -> None:
        """One more was read."""
        offset = record.offset() or 0
        if offset < self.position:
            return  # delivered twice around a pause
        self.held.append(record)
        self.size += len(record.value() or b"")
        self.position = offset + 1
        self.end = None
        if self.leaves is None:
            self.leaves = self._leaves(record)

    def reached(self, offset: int) -> None:
        """The reader stands at the end of the partition."""
        if offset >= self.position:
            self.end = offset

    def pop_due(self, now_ms: int, limit: int) -> Iterator[Record]:
        """Take the heads that are due, at most `limit`."""
        while limit > 0 and self.leaves is not None and self.leaves <= now_ms:
            record = self.held.popleft()
            self.size -= len(record.value() or b"")
            self.leaves = self._leaves(self.held[0]) if self.held else None
            limit -= 1
            yield record

    def put_back(self, records: list[Record]) -> None:
        """Some could not be moved on: they are the heads again."""
        self.held.extendleft(reversed(records))
        self.size += sum(len(record.value() or b"") for record in records)
        self.leaves = self._leaves(self.held[0]) if self.held else None

    @property
    def full(self) -> bool:
        """Enough is kept ready."""
        return len(self.held) >= KEPT or self.size >= KEPT_BYTES

    @property
    def low(self) -> bool:
        """There should be more."""
        return len(self.held) < KEPT // 2 and self.size < KEPT_BYTES // 2

    def idle_end(self) -> int | None:
        """The offset past markers to commit when the partition is drained; None: it is not, or that is done."""
        return self.end if not self.held and self.end is not None and self.end > self.committed else None

    def _leaves(self, record: Record) -> int:
        return leaves_at(record.timestamp()[1], self.delay, number_header(record.headers(), DUE_AT))


@dataclass(slots=True, kw_only=True)
class Load:
    """What one rung contributes to a flush of the forwarder. Implements `processor.engine.batch.Cargo`."""

    rung: Rung
    group: str
    assignment: int
    records: list[Record]
    creates: list[OutRecord]
    announces: list[OutRecord]
    seals: list[OutRecord]
    offsets: list[OffsetCommit]
    watched: str = ""

    @property
    def wanted(self) -> bool:
        """Whether the rung is still this worker's."""
        return self.assignment == self.rung.assignment


def offset_of(rung: Rung, offset: int, slot: str) -> OffsetCommit:
    """The commit of a rung, with the slot beside it: who finds its transaction open must know whose it is."""
    text = encode(OffsetMetadata(epoch=1, slot=slot, read_mark=offset), offset).text
    return OffsetCommit(rung.place, offset, text)
