"""The status topic as a client reads it: one shared reader, driven by whoever waits.

There is no thread of our own: librdkafka prefetches on its threads, and the caller that waits for a job drives the
reader for all others who wait. So nothing has to be stopped at exit or revived after a fork, and a test with a clock
moved by hand reads in its own thread.

Where to start. A status that lies before the job's enqueue cannot be the job's. So a track begins

- at an offset that the topic's partition had reached before the enqueue, if that was made here;
- at the time in the id, if it tells one, less a margin for clocks that disagree. A job that is not found is looked for
  further back, and in the whole partition before it counts as unknown: no clock hides a job;
- else a day ago; a job that is not found there is looked for in the whole partition, too.

Where to stop. The success of a job whose id tells its time is its last word. Any other end may be followed by another
life (a redrive, an enqueue with the same id), so the rest is read.

Tracks of one partition are read together: a newcomer that begins further down sends the reader back once for all, and
what the reader has passed lately (`recent`) is not read again.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from processor.broker.base import Batch, Broker, Isolation, Reader, TopicPartition
from processor.broker.partitioner import partition_for
from processor.client.async_waits import AsyncWaits
from processor.client.recent import Recent
from processor.client.track import BEGINNING, Track
from processor.clock import Clock
from processor.errors import OffsetOutOfRange, RecordError, TopicMissing
from processor.signals import stop_if_asked
from processor.wire.codec import decode_status

_BEFORE_MS = 30_000
"""How much earlier the reader begins than it must: jobs are also asked for with the newest first."""
_BATCH = 500
_SLICE = 0.05
"""Seconds of one fetch: how soon another waiting thread gets its turn."""
_IDLE = 10.0
"""Seconds after which a partition that nobody asks for rests. One that has not been read to its end rests at once: else
it would be read on while others are asked for, far past the jobs that are asked for next.
"""


@dataclass(slots=True)
class _Position:
    """One partition of the status topic as it is being read."""

    offset: int
    """The next offset to read."""
    recent: Recent
    asked: float
    """When somebody asked for a job of it, seconds of the clock."""
    resting: bool = False
    """Whether the reader has let go of it, to go on at `offset` when it is asked for."""
    at_end: bool = False
    """Whether the reader has come to its end since."""
    skip: tuple[int, int] | None = None
    """What lies between these offsets is known already."""


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
        self._asking: Counter[int] = Counter()
        """Per partition, how many threads wait for a job of it."""
        self._reader: Reader | None = None
        self._partitions = 0
        self.waits = AsyncWaits(self, clock)
        """Of event loops."""

    # -- tracks ----------------------------------------------------------------------------------------------------

    def sample(self) -> None:
        """Learn how far the topic has got, once: before the first enqueue whose job may be asked for."""
        if self._bounds is not None:
            return
        partitions = [TopicPartition(self._topic, number) for number in range(self._count())]
        ends = self._broker().admin().end_offsets(partitions, Isolation.COMMITTED)
        self._bounds = {place.partition: offset for place, offset in ends.items()}

    def track(self, job_id: str, start: int | None = BEGINNING) -> Track:
        """The track of a job.

        Args:
            job_id: its id.
            start: an offset before which it has no record; None: it is enqueued after this call.
        """
        with self._guard:
            known = self._tracks.get(job_id)
        if known is not None:
            return known
        partition = partition_for(job_id.encode(), self._count())
        begin = self._start(partition) if start is None else start
        with self._guard:
            track = self._tracks.setdefault(job_id, Track(self, job_id, partition, begin, self._clock.now_ms()))
        self._add(partition, [track])
        return track

    def _add(self, partition: int, tracks: Iterable[Track]) -> None:
        with self._guard:
            self._new.setdefault(partition, weakref.WeakSet()).update(tracks)

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
        deadline = self._clock.monotonic() + timeout
        with self.asked(track):
            return self.catch_up_by(track, deadline)

    def wait_end(self, track: Track, timeout: float) -> bool:
        """Read until the job has ended; whether it did in time."""
        deadline = self._clock.monotonic() + timeout
        if track.ended:
            return True
        with self.asked(track):
            if track.may_have_ended_before and not self.catch_up_by(track, deadline):
                return track.ended
            return self.drive(lambda: track.ended, deadline)

    def catch_up_by(self, track: Track, deadline: float) -> bool:
        """As `catch_up`, while the track's partition is asked for.

        1. Look at what is known without reading. 2. Read to the end, or to the last word. 3. If there was nothing,
        look further back.
        """
        place = TopicPartition(self._topic, track.partition)
        if not self.drive(lambda: track.final or self._is_read(track), deadline):
            return False
        while not track.final:
            end = self._broker().admin().end_offsets([place], Isolation.COMMITTED)[place]
            if not self.drive(lambda: track.final or self._has_read(track, end), deadline):  # noqa: B023  (called here)
                return False
            if not track.lost:
                track.read_to(end)
                break
            self._look_back(track.partition)
        return True

    @contextmanager
    def asked(self, track: Track) -> Iterator[None]:
        """See that the track's partition is read: nobody may have asked for a while, or the reader was closed."""
        partition = track.partition
        with self._guard:
            self._asking[partition] += 1
            position = self._positions.get(partition)
            if position is None:
                self._new.setdefault(partition, weakref.WeakSet()).add(track)
            else:
                position.asked = self._clock.monotonic()
        try:
            yield
        finally:
            with self._guard:
                self._asking[partition] -= 1

    def _is_read(self, track: Track) -> bool:
        """Whether the reader reads for this track, wherever it is."""
        with self._guard:
            position = self._positions.get(track.partition)
            return track not in self._new.get(track.partition, ()) and position is not None and not position.resting

    def _has_read(self, track: Track, end: int) -> bool:
        position = self._positions.get(track.partition)
        return self._is_read(track) and position is not None and position.skip is None and position.offset >= end

    def _look_back(self, partition: int) -> None:
        """Send the reader back, once for all who wait for a job of this partition and have not found it."""
        with self._driving:
            position = self._positions.get(partition)
            with self._guard:
                new = self._new.get(partition, weakref.WeakSet())
                lost = [t for t in self._tracks.values() if t.partition == partition and t.lost and t not in new]
            for track in lost:
                track.widen(track.start if position is None else position.offset)
            self._add(partition, lost)

    def drive(self, done: Callable[[], bool], deadline: float) -> bool:
        """Fetch until `done`, or until another thread's fetches have made it so. A waiting handler can be stopped."""
        while not done():
            stop_if_asked()
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return False
            if self._driving.acquire(timeout=min(left, _SLICE)):
                try:
                    reader = self._opened()
                    self._take_new(reader)
                    if not done():
                        self._turn(reader)
                    if not done():
                        self._fetch(reader, min(left, _SLICE))
                finally:
                    self._driving.release()
        return True

    def _turn(self, reader: Reader) -> None:
        """Read the partitions that are asked for, and no others."""
        now = self._clock.monotonic()
        with self._guard:
            asked = {partition for partition, threads in self._asking.items() if threads}
        for partition, position in self._positions.items():
            place = TopicPartition(self._topic, partition)
            if partition in asked:
                position.asked = now
                if position.resting:
                    position.resting = position.at_end = False
                    reader.assign({place: position.offset})
            elif not position.resting and (not position.at_end or now - position.asked > _IDLE):
                position.resting = True
                reader.unassign([place])

    def _opened(self) -> Reader:
        if self._reader is None:
            self._reader = self._broker().reader()
        return self._reader

    def _fetch(self, reader: Reader, timeout: float) -> None:
        batch = reader.fetch(_BATCH, timeout)
        for record in batch.records:
            partition, offset, key = record.partition(), record.offset(), record.key() or b""
            position = None if partition is None else self._positions.get(partition)
            if position is None or offset is None or position.resting:
                continue
            position.offset = max(position.offset, offset + 1)
            value = record.value()
            if value is None:
                continue
            position.recent.add(offset, key, value)
            with self._guard:
                track = self._tracks.get(key.decode("utf-8", "replace"))
            if track is not None:
                _merge(track, value)
        self._reached(reader, batch)

    def _reached(self, reader: Reader, batch: Batch) -> None:
        for end in batch.ends:
            position = self._positions.get(end.partition.partition)
            if position is not None and not position.resting:
                position.offset = max(position.offset, end.offset)
                position.at_end = True
        for fault in batch.faults:
            self._restart(reader, fault.partition, fault.error)
        for partition, position in list(self._positions.items()):
            if position.skip is not None and position.offset >= position.skip[0]:
                self._assign(reader, partition, max(position.offset, position.skip[1]))

    def _take_new(self, reader: Reader) -> None:
        """Begin to read where newcomers need it."""
        with self._guard:
            new, self._new = self._new, {}
        missing: dict[int, list[Track]] = {}
        for partition, newcomers in new.items():
            position = self._positions.get(partition)
            if position is None:
                # After a close of the reader the others of the partition begin anew, too.
                with self._guard:
                    others = {track for track in self._tracks.values() if track.partition == partition}
                missing[partition] = list({track for track in others if not track.ended}.union(newcomers))
            elif unknown := [track for track in newcomers if not _recall(track, position)]:
                missing[partition] = unknown
        self._locate(missing)
        for partition, tracks in missing.items():
            self._begin(reader, partition, tracks)

    def _locate(self, missing: Mapping[int, list[Track]]) -> None:
        """Turn times into offsets, with one question for all partitions."""
        timed = {partition: [t for t in tracks if t.since is not None] for partition, tracks in missing.items()}
        first = {
            TopicPartition(self._topic, partition): max(0, min(t.since or 0 for t in tracks) - _BEFORE_MS)
            for partition, tracks in timed.items()
            if tracks
        }
        found = self._broker().admin().offsets_at(first) if first else {}
        for place in first:
            for track in timed[place.partition]:
                # Without a record so late there is nothing to be found but further back.
                track.start = found.get(place, BEGINNING)
                if place not in found:
                    track.read_to(BEGINNING)

    def _begin(self, reader: Reader, partition: int, tracks: list[Track]) -> None:
        start = min(track.start for track in tracks)
        position = self._positions.get(partition)
        if position is not None:
            position.skip = None  # the newcomers may need what lies between
            if start >= position.recent.start:
                for track in tracks:
                    _recall_all(track, position)
                return
        first = max(start, self._first(partition))
        seen = [track.seen for track in tracks if track.seen is not None]
        skip: tuple[int, int] | None = None
        if position is not None and len(seen) == len(tracks):
            skip = max(begin for begin, _ in seen), min(end for _, end in seen)
            if first >= skip[0] and position.offset >= skip[1]:
                return  # there is nothing before what was seen
        since = min((t.since for t in tracks if t.since is not None and t.start == start), default=None)
        self._assign(reader, partition, first, math.inf if since is None else since - _BEFORE_MS)
        if skip is not None and first < skip[0] <= skip[1]:
            self._positions[partition].skip = skip

    def _first(self, partition: int) -> int:
        place = TopicPartition(self._topic, partition)
        return self._broker().admin().begin_offsets([place])[place]

    def _assign(self, reader: Reader, partition: int, start: int, since: float = math.inf) -> None:
        place = TopicPartition(self._topic, partition)
        last = self._positions.pop(partition, None)
        if last is not None and not last.resting:
            reader.unassign([place])
        self._positions[partition] = _Position(start, Recent(start, since), self._clock.monotonic())
        reader.assign({place: start})

    def _restart(self, reader: Reader, place: TopicPartition, error: Exception) -> None:
        """Old statuses were deleted under the reader: go on at the first that is left."""
        if not isinstance(error, OffsetOutOfRange):
            raise error
        self._assign(reader, place.partition, self._first(place.partition), -math.inf)

    def close(self) -> None:
        """Let the reader go; the next wait makes a new one."""
        with self._driving:
            if self._reader is not None:
                self._reader.close()
            self._reader = None
            self._positions.clear()


def _recall(track: Track, position: _Position) -> bool:
    """Whether the reader's last stretch begins early enough for this track; then it is told what lies there."""
    since = track.since
    covered = track.start >= position.recent.start if since is None else position.recent.covers_since(since)
    if not covered or position.skip is not None:
        return False
    if since is not None:
        track.start = position.recent.start
    _recall_all(track, position)
    return True


def _recall_all(track: Track, position: _Position) -> None:
    for value in position.recent.of(track.id.encode()):
        _merge(track, value)


def _merge(track: Track, value: bytes | None) -> None:
    if value is None:
        return
    try:
        record = decode_status(value)
    except RecordError:
        return  # written by newer code: whoever can read it will see it
    track.merge(record)
