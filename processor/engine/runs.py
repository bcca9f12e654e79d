"""Whether the last run of a schedule has ended, as the status topic tells: `skip` and `replace` need to know.

Why the status topic: a run's end stands there by the same transaction that makes it one, whatever the end is
(succeeded, dead, cancelled, expired, ...) and wherever the job was (in its lane, running, waiting for a retry, parked);
a run of which nothing stands there has not ended. The checkpoint topic knows only jobs that have begun and saved
something, and is another worker's.

What it costs: the one partition of the run is read from its start to its end, by key; while no run goes on, nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Isolation, TopicPartition
from processor.broker.partitioner import partition_for
from processor.errors import OffsetOutOfRange, RecordError, TopicMissing
from processor.states import TERMINAL
from processor.wire.codec import decode_status
from processor.wire.topics import status_topic

if TYPE_CHECKING:
    from processor.broker.base import Broker, Reader

log = events.logger(__name__)

FETCH = 2_000
AHEAD_KBYTES = 2_048
BEFORE_MS = 300_000
"""How much earlier than the start of a run its end is looked for: clocks of workers differ."""


@dataclass(slots=True)
class _Run:
    job_id: str
    place: TopicPartition
    over: bool = False
    asked: int | None = None
    """Where the partition ended when it was asked whether the run is over."""


class RunWatch:
    """The last runs of schedules, by the schedule's name. Used by the scheduler's thread alone."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        self._broker = broker
        self._topic = status_topic(namespace)
        self._reader: Reader | None = None
        self._partitions = 0
        self._runs: dict[str, _Run] = {}
        self._going: dict[bytes, _Run] = {}
        """Those that are not over, by their key in the status topic."""
        self._reading: set[TopicPartition] = set()

    def follow(self, name: str, job_id: str, since_ms: int | None) -> None:
        """The last run of a schedule is this job.

        Args:
            name: of the schedule.
            job_id: the job.
            since_ms: when it was started; None: it is not in the log yet.

        Raises:
            BrokerError: the cluster did not answer; nothing has changed.
        """
        place = TopicPartition(self._topic, partition_for(job_id.encode(), self._count()))
        if since_ms is not None or place not in self._reading:
            self._read_from(place, since_ms)
        self._forget(name)
        run = self._runs[name] = _Run(job_id, place)
        self._going[job_id.encode()] = run
        self._rest()

    def is_over(self, name: str, job_id: str, since_ms: int) -> bool | None:
        """Whether the last run of a schedule, started at `since_ms`, has ended; None: not known yet, ask again.

        The answer holds for a moment after the question was first asked: what is committed by then has been read.

        Raises:
            BrokerError: the cluster did not answer.
        """
        run = self._runs.get(name)
        if run is None or run.job_id != job_id:
            self.follow(name, job_id, since_ms)
            run = self._runs[name]
        if run.over:
            return True
        if run.asked is None:
            run.asked = self._broker.admin().end_offsets([run.place], Isolation.COMMITTED)[run.place]
        assert self._reader is not None
        if self._reader.position(run.place) < run.asked:
            return None
        run.asked = None
        return False

    def read(self) -> int:
        """Take in what has come; how many records."""
        if self._reader is None or not self._reading:
            return 0
        batch = self._reader.fetch(FETCH, 0.0)
        for record in batch.records:
            run = self._going.get(record.key() or b"")
            if run is not None and _ends(record.value()):
                run.over = True
                del self._going[run.job_id.encode()]
        for fault in batch.faults:
            if not isinstance(fault.error, OffsetOutOfRange):
                raise fault.error
            # What is wanted was deleted meanwhile: go on with what is kept.
            begin = self._broker.admin().begin_offsets([fault.partition])[fault.partition]
            self._reader.unassign([fault.partition])
            self._reader.assign({fault.partition: begin})
        self._rest()
        return len(batch.records)

    def close(self) -> None:
        """Forget everything and let go of the reader."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._runs.clear()
        self._going.clear()
        self._reading.clear()

    def _count(self) -> int:
        if not self._partitions:
            found = self._broker.admin().topics([self._topic]).get(self._topic)
            if found is None:
                raise TopicMissing(f"{self._topic}: no such topic", hint="create it: processor topics apply")
            self._partitions = found.partitions
        return self._partitions

    def _read_from(self, place: TopicPartition, since_ms: int | None) -> None:
        admin = self._broker.admin()
        start = None if since_ms is None else admin.offsets_at({place: since_ms - BEFORE_MS}).get(place)
        if start is None:
            # Nothing of it can be there yet.
            start = admin.end_offsets([place], Isolation.COMMITTED)[place]
        if self._reader is None:
            self._reader = self._broker.reader(ahead_kbytes=AHEAD_KBYTES)
        if place in self._reading:
            start = min(start, self._reader.position(place))
            self._reader.unassign([place])
        self._reader.assign({place: start})
        self._reading.add(place)

    def _forget(self, name: str) -> None:
        before = self._runs.pop(name, None)
        if before is not None:
            self._going.pop(before.job_id.encode(), None)

    def _rest(self) -> None:
        """Read only partitions in which a run is followed that is not over."""
        idle = self._reading - {run.place for run in self._going.values()}
        if idle and self._reader is not None:
            self._reader.unassign(idle)
            self._reading -= idle


def _ends(value: bytes | None) -> bool:
    if value is None:
        return False
    try:
        return decode_status(value).state in TERMINAL
    except RecordError as error:
        log.error("scheduler.status_unreadable", extra={"error": str(error)})
        return False
