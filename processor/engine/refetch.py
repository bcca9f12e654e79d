"""Reading spilled records again: jobs that waited for a busy key and were kept as their place only. On its own thread.

Giving a reader a new place to read from takes about 10 ms, whatever is read then. So all that is asked for at a time is
answered together: one assignment for all partitions, and in each of them a scan over places that lie near each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from processor import events
from processor.broker.base import Batch, Broker, Reader, Record, TopicPartition
from processor.core.ordering import Spilled
from processor.errors import BrokerError
from processor.runtime import Inbox, Runtime

if TYPE_CHECKING:
    from processor.engine.queue_partition import QueuePartition

log = events.logger(__name__)

AHEAD = 500
"""Records read at once."""
NEAR = 2_000
"""Offsets between two wanted records up to which reading those between costs less than a new place."""


class Refetch(NamedTuple):
    """An ask, and its answer: `records` in the order of `places`, None where the log holds it no longer."""

    number: QueuePartition
    assignment: int
    key: str
    places: Sequence[Spilled]
    records: Sequence[Record | None] = ()

    def partition(self, place: Spilled) -> TopicPartition:
        """Where a place of this ask lies."""
        return TopicPartition(place.lane, self.number.partition)


class Scan:
    """What one assignment reads: in each partition the wanted offsets near the one that was asked for first. Pure."""

    def __init__(self, asks: Sequence[Refetch], have: Callable[[TopicPartition, int], bool]) -> None:
        wanted: dict[TopicPartition, list[int]] = {}
        for ask in asks:
            for place in ask.places:
                partition = ask.partition(place)
                if not have(partition, place.offset):
                    wanted.setdefault(partition, []).append(place.offset)
        self.wanted = {partition: _near_the_first(offsets) for partition, offsets in wanted.items()}
        """Offsets that are neither found nor known to be gone."""
        self.found: dict[tuple[TopicPartition, int], Record | None] = {}

    @property
    def starts(self) -> dict[TopicPartition, int]:
        """What to assign."""
        return {partition: min(offsets) for partition, offsets in self.wanted.items()}

    def take(self, batch: Batch) -> list[TopicPartition]:
        """What was read; returns the partitions in which nothing is left to be read."""
        passed: dict[TopicPartition, int] = {}
        for record in batch.records:
            partition = TopicPartition(record.topic() or "", record.partition() or 0)
            offset = passed[partition] = record.offset() or 0
            offsets = self.wanted.get(partition)
            if offsets is not None and offset in offsets:
                offsets.remove(offset)
                self.found[partition, offset] = record
        passed.update((partition, offset - 1) for partition, offset in batch.ends)
        done = []
        for partition, last in passed.items():
            if partition in self.wanted:
                self._gone(partition, last)
                if not self.wanted[partition]:
                    done.append(partition)
        for fault in batch.faults:
            if fault.partition in self.wanted:
                self._gone(fault.partition, max(self.wanted[fault.partition]))
                done.append(fault.partition)
        for partition in done:
            self.wanted.pop(partition, None)
        return done

    def _gone(self, partition: TopicPartition, last: int) -> None:
        """Reading has passed `last`: what was not found up to there is not in the log."""
        offsets = self.wanted[partition]
        for offset in [offset for offset in offsets if offset <= last]:
            offsets.remove(offset)
            self.found[partition, offset] = None


def _near_the_first(offsets: Sequence[int]) -> set[int]:
    """Of the wanted offsets those that one scan reads along with the first."""
    ordered = sorted(set(offsets))
    first = last = ordered.index(offsets[0])
    while first > 0 and ordered[first] - ordered[first - 1] <= NEAR:
        first -= 1
    while last + 1 < len(ordered) and ordered[last + 1] - ordered[last] <= NEAR:
        last += 1
    return set(ordered[first : last + 1])


class Refetcher:
    """Reads spilled records again, on a thread of its own."""

    def __init__(self, runtime: Runtime, broker: Broker, reply: Callable[[Refetch], None]) -> None:
        self._runtime = runtime
        self._broker = broker
        self._reply = reply
        self._inbox: Inbox[Refetch | None] = Inbox(runtime)
        self._asks: list[Refetch] = []
        self._found: dict[tuple[TopicPartition, int], Record | None] = {}
        """Of the asks that are not complete yet."""
        self._reader: Reader | None = None
        self._stopping = False
        self._actor = runtime.start("rereader", self._run)

    def read_again(self, number: QueuePartition, key: str, places: Sequence[Spilled]) -> None:
        """Read the records of a number at these places, for jobs of this key."""
        self.ask(Refetch(number, number.assignment, key, places))

    def ask(self, ask: Refetch) -> None:
        """Read records again; the answer goes to `reply`, all of them together."""
        self._inbox.post(ask)

    def stop(self, timeout: float) -> bool:
        """End the thread; whether it ended in time."""
        self._stopping = True
        self._inbox.post(None)
        return self._actor.join(timeout)

    def _run(self) -> None:
        try:
            while not self._stopping:
                if not self._asks:
                    self._inbox.wait(None)
                self._asks += [ask for ask in self._inbox.take() if ask is not None]
                self._asks = [ask for ask in self._asks if ask.assignment == ask.number.assignment]
                if self._asks:
                    self._serve()
        finally:
            if self._reader is not None:
                self._reader.close()

    def _serve(self) -> None:
        """One scan, and the answers that are complete with it."""
        scan = Scan(self._asks, lambda partition, offset: (partition, offset) in self._found)
        try:
            self._read(scan)
        except BrokerError as error:
            log.warning("reread.retrying", extra={"error": str(error)})
            self._runtime.signal().wait(0.2)
        except Exception:
            # The number of whoever asked is held; the others' asks are served.
            log.exception("reread.failed")
            for ask in self._asks:
                self._reply(ask._replace(records=[None] * len(ask.places)))
            self._asks = []
            return
        self._found.update(scan.found)
        rest = []
        for ask in self._asks:
            wheres = [(ask.partition(place), place.offset) for place in ask.places]
            if all(where in self._found for where in wheres):
                self._reply(ask._replace(records=[self._found[where] for where in wheres]))
            else:
                rest.append(ask)
        self._asks = rest
        open_ = {(ask.partition(place), place.offset) for ask in rest for place in ask.places}
        self._found = {where: record for where, record in self._found.items() if where in open_}

    def _read(self, scan: Scan) -> None:
        if not scan.wanted:
            return
        reader = self._reader = self._reader or self._broker.reader()
        assigned = set(scan.starts)
        reader.assign(scan.starts)
        try:
            while scan.wanted and not self._stopping:
                done = scan.take(reader.fetch(AHEAD, 0.5))
                if done:
                    reader.unassign(done)
                    assigned.difference_update(done)
        finally:
            if assigned:
                reader.unassign(assigned)
