"""The log of the memory broker: partitions with offsets, transaction markers, visibility, compaction and deletion.

A transaction leaves one `Span` in each partition that it wrote to. Records point to their span, so ending a transaction
decides the fate of all of its records at once. Its marker takes an offset of its own, as in Kafka; hence the gaps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from processor.broker.base import Headers, Isolation, OutRecord, TopicPartition
from processor.errors import OffsetOutOfRange, RecordRefused, TopicRefused

_CREATE_TIME = 1
_APPEND_TIME = 2
_ENVELOPE_BYTES = 70
"""About what Kafka adds to a record that travels alone."""

DEFAULT_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
}
"""What matters here, as Kafka has it when nobody configured it."""


class Fate(Enum):
    """What became of a transaction."""

    OPEN = auto()
    COMMITTED = auto()
    ABORTED = auto()


class Span:
    """The part of one transaction that lies in one partition."""

    __slots__ = ("fate", "first_offset")

    def __init__(self) -> None:
        self.fate = Fate.OPEN
        self.first_offset: int | None = None


class MemoryRecord:
    """A record as it lies in the log; read through methods, like a message of confluent_kafka."""

    __slots__ = ("_headers", "_key", "_offset", "_partition", "_timestamp", "_value", "span")

    def __init__(
        self, place: tuple[TopicPartition, int], record: OutRecord, timestamp: tuple[int, int], span: Span | None
    ) -> None:
        self._partition, self._offset = place
        self._key = record.key
        self._value = record.value
        # A copy: what the writer does to its list afterwards must not reach the log.
        self._headers = list(record.headers) if record.headers else None
        self._timestamp = timestamp
        self.span = span

    def topic(self) -> str:
        return self._partition.topic

    def partition(self) -> int:
        return self._partition.partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Headers | None:
        return list(self._headers) if self._headers else None

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp

    def __repr__(self) -> str:
        return f"<{self.topic()}-{self.partition()}@{self._offset} {self._key!r}={self._value!r}>"


@dataclass(frozen=True, slots=True)
class _Marker:
    """The end of a transaction; never delivered, but it takes an offset."""

    written_ms: int


class PartitionLog:
    """One partition."""

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.start = 0
        self.end = 0
        self._offsets: list[int] = []
        self._entries: list[MemoryRecord | _Marker] = []
        self._open: set[Span] = set()

    def append(self, record: OutRecord, timestamp: tuple[int, int], span: Span | None) -> int:
        """Write one record; its offset."""
        offset = self.end
        if span is not None and span.first_offset is None:
            span.first_offset = offset
            self._open.add(span)
        self._entries.append(MemoryRecord((self.partition, offset), record, timestamp, span))
        self._offsets.append(offset)
        self.end = offset + 1
        return offset

    def close_span(self, span: Span, fate: Fate, now_ms: int) -> None:
        """Write the marker that ends a transaction here. Kafka writes it also where the transaction left no record."""
        span.fate = fate
        self._open.discard(span)
        self._entries.append(_Marker(now_ms))
        self._offsets.append(self.end)
        self.end += 1

    @property
    def stable_end(self) -> int:
        """The last stable offset: where the earliest open transaction begins, else the end."""
        if not self._open:
            return self.end
        return max(self.start, min(span.first_offset or 0 for span in self._open))

    def end_for(self, isolation: Isolation) -> int:
        """Where a reader of this isolation stops."""
        return self.stable_end if isolation is Isolation.COMMITTED else self.end

    def first_at(self, moment_ms: int) -> int | None:
        """Offset of the first record of this time or later; a marker of a transaction counts, as in Kafka."""
        for offset, entry in zip(self._offsets, self._entries, strict=True):
            written = entry.written_ms if isinstance(entry, _Marker) else entry.timestamp()[1]
            if offset >= self.start and written >= moment_ms:
                return offset
        return None

    def read(self, position: int, limit: int, isolation: Isolation) -> tuple[list[MemoryRecord], int]:
        """Up to `limit` visible records from `position` on, and the next position: the end if nothing is left to see.

        Raises:
            OffsetOutOfRange: the position is not in the log.
        """
        if not self.start <= position <= self.end:
            raise OffsetOutOfRange(f"{position} is not in [{self.start}, {self.end}] of {self.partition}")
        committed = isolation is Isolation.COMMITTED
        end = self.end_for(isolation)
        found: list[MemoryRecord] = []
        entries = self._entries
        for index in range(bisect_left(self._offsets, position), bisect_left(self._offsets, end)):
            entry = entries[index]
            if isinstance(entry, _Marker):
                continue
            span = entry.span
            if committed and span is not None and span.fate is not Fate.COMMITTED:
                continue
            if len(found) == limit:
                return found, found[-1].offset() + 1 if found else position
            found.append(entry)
        return found, max(position, end)

    def records(self, isolation: Isolation) -> list[MemoryRecord]:
        """Every record a reader would see now."""
        return self.read(self.start, len(self._entries), isolation)[0]

    def delete_before(self, offset: int) -> None:
        """Drop the head of the log.

        Raises:
            OffsetOutOfRange: the offset lies past the end.
        """
        if offset > self.end:
            raise OffsetOutOfRange(f"cannot delete before {offset}: {self.partition} ends at {self.end}")
        if offset <= self.start:
            return
        kept = bisect_left(self._offsets, offset)
        del self._entries[:kept]
        del self._offsets[:kept]
        self.start = offset

    def expire_before(self, cutoff_ms: int) -> None:
        """Retention by time: drop the head that is older than the cutoff, up to the last stable offset."""
        limit = self.stable_end
        for offset, entry in zip(self._offsets, self._entries, strict=True):
            written = entry.written_ms if isinstance(entry, _Marker) else entry.timestamp()[1]
            if offset >= limit or written >= cutoff_ms:
                self.delete_before(min(offset, limit))
                return
        self.delete_before(limit)

    def compact(self, *, drop_tombstones: bool) -> None:
        """Keep the last committed record of each key; aborted ones and markers go. Stops at the LSO."""
        limit = self.stable_end
        last = {record.key(): record.offset() for record in self._committed_below(limit)}
        kept: list[tuple[int, MemoryRecord | _Marker]] = []
        for offset, entry in zip(self._offsets, self._entries, strict=True):
            if offset >= limit or self._survives(entry, last, drop_tombstones):
                kept.append((offset, entry))
        self._offsets = [offset for offset, _ in kept]
        self._entries = [entry for _, entry in kept]

    def _committed_below(self, limit: int) -> Iterator[MemoryRecord]:
        for offset, entry in zip(self._offsets, self._entries, strict=True):
            if offset >= limit:
                return
            if isinstance(entry, MemoryRecord) and (entry.span is None or entry.span.fate is Fate.COMMITTED):
                yield entry

    @staticmethod
    def _survives(entry: MemoryRecord | _Marker, last: Mapping[bytes | None, int], drop_tombstones: bool) -> bool:
        if isinstance(entry, _Marker):
            return False
        if last.get(entry.key()) != entry.offset():
            return False
        return not (drop_tombstones and entry.value() is None)


class Topic:
    """A topic: its partitions and its configuration."""

    def __init__(self, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> None:
        self.name = name
        self.replication = replication
        self.config: dict[str, str] = {}
        """What was set; `setting` knows the defaults."""
        self.partitions: list[PartitionLog] = []
        self.configure(config)
        self.add_partitions(partitions)

    def configure(self, config: Mapping[str, str]) -> None:
        """Change some settings; the others stay."""
        self.config.update(config)
        self._max_bytes = int(self.setting("max.message.bytes"))
        self._timestamp_type = (
            _APPEND_TIME if self.setting("message.timestamp.type") == "LogAppendTime" else _CREATE_TIME
        )
        self.cleanup = frozenset(policy.strip() for policy in self.setting("cleanup.policy").split(","))
        self._needs_key = "compact" in self.cleanup

    def setting(self, name: str) -> str:
        return self.config.get(name, DEFAULT_CONFIG[name])

    def add_partitions(self, total: int) -> None:
        for number in range(len(self.partitions), total):
            self.partitions.append(PartitionLog(TopicPartition(self.name, number)))

    def timestamp(self, now_ms: int) -> tuple[int, int]:
        """The timestamp of a record that is written now."""
        return (self._timestamp_type, now_ms)

    def check(self, record: OutRecord, max_record_bytes: int) -> None:
        """Raises:
        RecordRefused: the record can never be written here.
        """
        _, key, value, headers, partition = record
        size = _ENVELOPE_BYTES + len(key or b"") + len(value or b"")
        for name, text in headers or ():
            size += len(name) + len(text or b"") + 2
        if size > max_record_bytes or size > self._max_bytes:
            limit = min(max_record_bytes, self._max_bytes)
            raise RecordRefused(f"a record of {size} bytes is over the limit of {limit} of {self.name}")
        if key is None and self._needs_key:
            raise RecordRefused(f"{self.name} is compacted: a record needs a key")
        if partition >= len(self.partitions):
            raise TopicRefused(f"{self.name} has no partition {partition}")
