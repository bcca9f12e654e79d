"""Committed offsets of a group, pending ones included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from processor.broker.base import Committed, OffsetCommit, TopicPartition

_NOTHING = Committed(None, "")


class GroupOffsets:
    """What a group has committed, and what open transactions would commit.

    As in Kafka the write order decides, not the order in which transactions end: each commit has a sequence number, and
    a pending one that was written before the present one does not replace it.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._committed: dict[TopicPartition, tuple[int, Committed]] = {}
        self._pending: dict[int, dict[TopicPartition, tuple[int, Committed]]] = {}

    def commit(self, offsets: Iterable[OffsetCommit]) -> None:
        for partition, offset, metadata in offsets:
            self._committed[partition] = (self._next(), Committed(offset, metadata))

    def add_pending(self, producer_id: int, offsets: Iterable[OffsetCommit]) -> None:
        pending = self._pending.setdefault(producer_id, {})
        for partition, offset, metadata in offsets:
            pending[partition] = (self._next(), Committed(offset, metadata))

    def finish(self, producer_id: int, *, commit: bool) -> None:
        """The transaction of this producer has ended."""
        for partition, (sequence, committed) in self._pending.pop(producer_id, {}).items():
            present = self._committed.get(partition)
            if commit and (present is None or present[0] < sequence):
                self._committed[partition] = (sequence, committed)

    def is_pending(self, partitions: Iterable[TopicPartition]) -> bool:
        wanted = set(partitions)
        return any(not wanted.isdisjoint(pending) for pending in self._pending.values())

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        return {p: self._committed[p][1] if p in self._committed else _NOTHING for p in partitions}

    def forget(self, partitions: Iterable[TopicPartition] | None) -> None:
        """Offsets expire in real clusters when a group is idle or no longer subscribes to a topic."""
        for partition in list(self._committed if partitions is None else partitions):
            self._committed.pop(partition, None)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence
