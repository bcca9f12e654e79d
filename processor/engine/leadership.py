"""Owning the partition of the schedules topic: taking it over, and reading what stands there, from its beginning on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import OffsetCommit, TopicPartition
from processor.core.offset_metadata import OffsetMetadata, encode
from processor.core.schedules import ScheduleTable
from processor.engine.firing import Load
from processor.errors import BrokerError, RecordError

if TYPE_CHECKING:
    from processor.broker.base import Broker, Reader
    from processor.engine.config import WorkerConfig
    from processor.engine.orphan_transactions import DeadSlots

log = events.logger(__name__)

FETCH = 2_000
AHEAD_KBYTES = 2_048


class Leadership:
    """One ownership of the schedules partition. Used by the scheduler's thread alone."""

    def __init__(
        self, broker: Broker, config: WorkerConfig, dead_slots: DeadSlots, place: TopicPartition, assignment: int
    ) -> None:
        self.place = place
        self.assignment = assignment
        self.table = ScheduleTable()
        self.committed = -1
        """The offset that this leader has committed last."""
        self.claimed = False
        """Its name stands beside the committed offset: whoever finds its transaction open can tell whose it is."""
        self.caught_up = False
        """Everything is read that was there when it took over."""
        self._broker = broker
        self._config = config
        self._dead_slots = dead_slots
        self._reader: Reader | None = None
        self._end: int | None = None
        """Where the topic ended when the last transaction before this was over; None: to be asked for."""
        self._stale_at = 0.0

    def read(self, now: float) -> int:
        """Take in what has come; how many records. The first call takes the partition over.

        Raises:
            BrokerError: the cluster did not answer; call it again.
        """
        if self._reader is None:
            self._begin(now)
        assert self._reader is not None
        if self._end is None:
            self._end = self._broker.admin().end_offsets([self.place])[self.place]
            self._stale_at = now + self._config.stable_wait
        batch = self._reader.fetch(FETCH, 0.0)
        for record in batch.records:
            try:
                self.table.apply(record.key(), record.value())
            except RecordError as error:
                # One schedule of a newer version must not keep the others from being fired.
                log.error("scheduler.unreadable", extra={"offset": record.offset(), "error": str(error)})
        for fault in batch.faults:
            self._read_anew(fault.error)
        if not self.caught_up:
            self._look_for_end(now)
        return len(batch.records)

    def doubt(self) -> None:
        """A flush failed, and may be committed all the same: what it wrote is read before anything is decided again.
        Call it when the producer of that flush is fenced, so that its transaction is over.
        """
        self.caught_up = False
        self._end = None

    def load(self, group: str) -> Load:
        """An empty load, which commits how far the topic has been read."""
        assert self._reader is not None
        offset = self._reader.position(self.place)
        text = encode(OffsetMetadata(epoch=1, slot=self._config.slot, read_mark=offset), offset).text
        return Load(
            lead=self, group=group, assignment=self.assignment, offsets=[OffsetCommit(self.place, offset, text)]
        )

    def close(self) -> None:
        """It is over: what is still on its way counts no more."""
        self.assignment = -1
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _begin(self, now: float) -> None:
        """Wait for the last leader's transaction, or end it if that one is dead; begin to read."""
        place = self.place
        self._dead_slots.stable_committed([place])
        # It may have died before its offset was in its transaction: the job that it was firing holds up a lane then.
        self._dead_slots.shoot_seen([place])
        admin = self._broker.admin()
        begin, self._end = admin.begin_offsets([place])[place], admin.end_offsets([place])[place]
        reader = self._broker.reader(ahead_kbytes=AHEAD_KBYTES)
        reader.assign({place: begin})
        self._reader, self._stale_at = reader, now + self._config.stable_wait

    def _look_for_end(self, now: float) -> None:
        assert self._reader is not None
        assert self._end is not None
        if self._reader.position(self.place) >= self._end:
            self.caught_up = True
            log.info("scheduler.caught_up", extra={"schedules": len(self.table.standings)})
        elif now >= self._stale_at:
            # An open transaction hides the end.
            self._stale_at = now + self._config.stable_wait
            self._dead_slots.shoot_seen([self.place])

    def _read_anew(self, error: BrokerError) -> None:
        log.error("scheduler.lost_its_place", extra={"error": str(error)})
        assert self._reader is not None
        begin = self._broker.admin().begin_offsets([self.place])[self.place]
        self._reader.unassign([self.place])
        self._reader.assign({self.place: begin})
