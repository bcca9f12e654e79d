"""The status topic as a client reads it: one shared reader, driven by whoever waits.

There is no thread of our own: librdkafka prefetches on its threads, and the caller that waits for a job drives the
reader for all others who wait. So nothing has to be stopped at exit or revived after a fork, and a test with a clock
moved by hand reads in its own thread.

Where to start: a status that lies before the job's enqueue cannot be the job's. So a track begins at an offset that the
topic's partition had reached before the enqueue; or, for an id from elsewhere, at the partition's first record.
Tracks of one partition are read together: a newcomer that begins further down sends the reader back once for all.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from processor.broker.base import Broker, Isolation, Reader, TopicPartition
from processor.broker.partitioner import partition_for
from processor.clock import Clock
from processor.errors import OffsetOutOfRange, RecordError, TopicMissing
from processor.states import TERMINAL
from processor.wire.codec import decode_status
from processor.wire.records import StatusRecord

BEGINNING = 0
_BATCH = 500
_SLICE = 0.05
"""Seconds of one fetch: how soon another waiting thread gets its turn."""


class Track:
    """What is known of one job's status. Alive as long as a handle is; the log's order is merged into one answer."""

    __slots__ = ("__weakref__", "id", "latest", "partition", "start", "tail")

    def __init__(self, tail: StatusTail, job_id: str, partition: int, start: int) -> None:
        self.tail = tail
        """Who reads for it: another one after a fork or a close."""
        self.id = job_id
        self.partition = partition
        self.start = start
        """Offset to read from, at the latest."""
        self.latest: StatusRecord | None = None

    @property
    def ended(self) -> bool:
        """Whether the highest life known has ended."""
        return self.latest is not None and self.latest.state in TERMINAL

    def merge(self, record: StatusRecord) -> None:
        """A later life supersedes; within a life the first end is final, and before it the newest record counts."""
        known = self.latest
        if known is None or record.life > known.life or (record.life == known.life and known.state not in TERMINAL):
            self.latest = record


@dataclass(slots=True)
class _Position:
    """One partition of the status topic as it is being read."""

    offset: int
    """The next offset to read."""


class StatusTail:
    """Reads the status topic for the handles of one client. Thread-safe."""

    def __init__(self, broker: Callable[[], Broker], topic: str, clock: Clock) -> None:
        self._broker = broker
        self._topic = topic
        self._clock = clock
        self._driving = threading.Lock()
        """Held by the one thread that drives the reader."""
        self._guard = threading.Lock()
        """Guards the tracks, for moments only."""
        self._tracks: weakref.WeakValueDictionary[str, Track] = weakref.WeakValueDictionary()
        self._new: dict[int, weakref.WeakSet[Track]] = {}
        self._bounds: dict[int, int] | None = None
        self._positions: dict[int, _Position] = {}
        self._reader: Reader | None = None
        self._partitions = 0

    # -- tracks ----------------------------------------------------------------------------------------------------

    def sample(self) -> None:
        """Learn how far the topic has got, once: before the first enqueue whose job may be asked for."""
        if self._bounds is not None:
            return
        partitions = [TopicPartition(self._topic, number) for number in range(self._count())]
        ends = self._broker().admin().end_offsets(partitions, Isolation.COMMITTED)
        self._bounds = {place.partition: offset for place, offset in ends.items()}

    def track(self, job_id: str, start: int | None) -> Track:
        """The track of a job, read from `start`; None: it is enqueued after this call, so only what follows counts."""
        with self._guard:
            known = self._tracks.get(job_id)
        if known is not None:
            return known
        partition = partition_for(job_id.encode(), self._count())
        begin = self._start(partition) if start is None else start
        with self._guard:
            track = self._tracks.setdefault(job_id, Track(self, job_id, partition, begin))
            self._new.setdefault(partition, weakref.WeakSet()).add(track)
        return track

    def _start(self, partition: int) -> int:
        position = self._positions.get(partition)
        if position is not None:
            return position.offset
        return BEGINNING if self._bounds is None else self._bounds.get(partition, BEGINNING)

    def _count(self) -> int:
        if not self._partitions:
            info = self._broker().admin().topics([self._topic]).get(self._topic)
            if info is None:
                raise TopicMissing(f"topic {self._topic} does not exist", hint="create it: processor topics apply")
            self._partitions = info.partitions
        return self._partitions

    # -- reading ---------------------------------------------------------------------------------------------------

    def catch_up(self, track: Track, timeout: float) -> bool:
        """Read what the log holds of the job by now; whether that was possible in time."""
        self._enlist(track)
        place = TopicPartition(self._topic, track.partition)
        end = self._broker().admin().end_offsets([place], Isolation.COMMITTED)[place]
        return self._drive(lambda: self._has_read(track, end), timeout)

    def wait_end(self, track: Track, timeout: float) -> bool:
        """Read until the job has ended; whether it did in time."""
        self._enlist(track)
        return self._drive(lambda: track.ended, timeout)

    def _enlist(self, track: Track) -> None:
        """See that the track's partition is read: nobody may have asked for a while, or the reader was closed."""
        with self._guard:
            if track.partition not in self._positions:
                self._new.setdefault(track.partition, weakref.WeakSet()).add(track)

    def _has_read(self, track: Track, end: int) -> bool:
        position = self._positions.get(track.partition)
        with self._guard:
            waiting = bool(self._new.get(track.partition))
        return not waiting and position is not None and position.offset >= end

    def _drive(self, done: Callable[[], bool], timeout: float) -> bool:
        """Fetch until `done`, or until another thread's fetches have made it so."""
        deadline = self._clock.monotonic() + timeout
        while not done():
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return False
            if self._driving.acquire(timeout=min(left, _SLICE)):
                try:
                    if not done():
                        self._fetch(min(left, _SLICE))
                finally:
                    self._driving.release()
        return True

    def _fetch(self, timeout: float) -> None:
        reader = self._reader
        if reader is None:
            reader = self._reader = self._broker().reader()
        self._take_new(reader)
        batch = reader.fetch(_BATCH, timeout)
        for record in batch.records:
            partition, offset, key = record.partition(), record.offset(), record.key()
            position = None if partition is None else self._positions.get(partition)
            if position is None or offset is None:
                continue
            with self._guard:
                track = self._tracks.get((key or b"").decode("utf-8", "replace"))
            if track is not None:
                _merge(track, record.value())
            position.offset = max(position.offset, offset + 1)
        for end in batch.ends:
            position = self._positions.get(end.partition.partition)
            if position is not None:
                position.offset = max(position.offset, end.offset)
        for fault in batch.faults:
            self._restart(reader, fault.partition, fault.error)

    def _take_new(self, reader: Reader) -> None:
        """Begin to read where newcomers need it; leave partitions alone that nobody asks for any more."""
        with self._guard:
            new, self._new = self._new, {}
            open_tracks = [track for track in self._tracks.values() if not track.ended] if new else []
        if not new:
            return
        for partition, newcomers in new.items():
            starts = [track.start for track in newcomers]
            position = self._positions.get(partition)
            if position is None:
                starts += [track.start for track in open_tracks if track.partition == partition]
            if starts and (position is None or position.offset > min(starts)):
                self._assign(reader, partition, min(starts))
        wanted = {track.partition for track in open_tracks} | set(new)
        for partition in [partition for partition in self._positions if partition not in wanted]:
            del self._positions[partition]
            reader.unassign([TopicPartition(self._topic, partition)])

    def _assign(self, reader: Reader, partition: int, start: int) -> None:
        place = TopicPartition(self._topic, partition)
        if self._positions.pop(partition, None) is not None:
            reader.unassign([place])
        begin = max(start, self._broker().admin().begin_offsets([place])[place])
        self._positions[partition] = _Position(begin)
        reader.assign({place: begin})

    def _restart(self, reader: Reader, place: TopicPartition, error: Exception) -> None:
        """Old statuses were deleted under the reader: go on at the first that is left."""
        if not isinstance(error, OffsetOutOfRange):
            raise error
        self._assign(reader, place.partition, BEGINNING)

    def close(self) -> None:
        """Let the reader go; the next wait makes a new one."""
        with self._driving:
            if self._reader is not None:
                self._reader.close()
            self._reader = None
            self._positions.clear()


def _merge(track: Track, value: bytes | None) -> None:
    if value is None:
        return
    try:
        record = decode_status(value)
    except RecordError:
        return  # written by newer code: whoever can read it will see it
    track.merge(record)
