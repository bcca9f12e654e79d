"""The scheduler: in every worker, and in one of them at a time it fires the schedules of the namespace.

A role of its own with its own consumer group, producer and thread, built like the forwarder: the *leader* is whoever
owns the one partition of the schedules topic. Firing is one transaction: the job's record, then how far the schedule is
(`name#fired`), and the offset of the partition, which fences: who has lost the partition can commit none of it. So each
instant is fired once, also when the leader is killed at that moment: either all of it is there, or the next leader
fires it. Should a torn transaction show the job alone, the next leader writes the same id again, and the drop rule
makes one of the two.

1. Take what the flusher says, serve the group.
2. A new leader waits for its predecessor's transaction, and ends it if that one is dead; it reads the topic to its true
   end, and claims the partition: from now on its name stands beside the offset.
3. Read what is declared, and which runs have ended (`processor.engine.runs`).
4. Fire what is due (`processor.engine.firing`, which asks `processor.core.schedules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Broker, TopicPartition
from processor.engine.firing import Firing, Load
from processor.engine.flush import Flusher
from processor.engine.leadership import Leadership
from processor.engine.orphan_transactions import DeadSlots
from processor.engine.role import IDLE, Refused, Role
from processor.runtime import Runtime
from processor.wire.topics import schedules_topic

if TYPE_CHECKING:
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters

log = events.logger(__name__)

BENCH = 0.2
"""Seconds between two looks of those that only wait to become the leader."""
LAZY_COMMIT = 5.0
"""Seconds after which the end of the topic is committed, so that its lag is zero."""


class Scheduler(Role[Load]):
    """Fires schedules while this worker is the leader."""

    name = "scheduler"

    def __init__(self, runtime: Runtime, broker: Broker, config: WorkerConfig, counters: Counters) -> None:
        super().__init__(runtime, broker, config, counters, config.schedulers)
        self._dead_slots = DeadSlots(broker, config, config.schedulers, config.scheduler_id)
        self._lead: Leadership | None = None
        """There while this worker is the leader."""
        self._lazy_at = 0.0
        self.start()

    def _topics(self) -> Sequence[str]:
        return [schedules_topic(self._config.namespace)]

    def _open(self) -> None:
        self._firing = Firing(self._broker, self._config, self._clock, self._counters)

    @property
    def _owns(self) -> bool:
        return self._lead is not None

    def _work(self, now: float) -> int:
        lead = self._lead
        if lead is None or not self._flush.prepared:
            return 0
        busy = lead.read(now)
        if lead.caught_up:
            busy += self._firing.read(lead.table)
            busy += self._flush_due(lead, now)
        return busy

    def _pause(self) -> float:
        if self._lead is None:
            return BENCH
        if self._flush.in_flight is not None or not self._lead.caught_up:
            return IDLE
        return min(max(self._firing.seconds_left(), 0.001), IDLE)

    # --- the group -----------------------------------------------------------------------------------------------

    def _take(self, place: TopicPartition, assignment: int) -> None:
        self._lead = Leadership(self._broker, self._config, self._dead_slots, place, assignment)
        self._firing.begin()
        if self._flush.flusher is None:
            # There once it has been the leader: the others need none. Its producer ends what a predecessor in this
            # slot left open.
            post, slot = self._inbox.post, self._config.scheduler_id()
            self._flush.begin(Flusher(self._runtime, self._broker, slot, post, name="schedule-flusher"))
        log.info("scheduler.leads", extra={"slot": self._config.slot})

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        lead = self._lead
        if lead is not None and lead.place in partitions:
            self._lead = None
            lead.close()
            self._firing.end()
            log.info("scheduler.no_longer_leads", extra={"slot": self._config.slot})

    # --- firing --------------------------------------------------------------------------------------------------

    def _flush_due(self, lead: Leadership, now: float) -> int:
        membership = self._flush.membership(now)
        if membership is None:
            return 0
        load = lead.load(self._flush.fence.group)
        if lead.claimed:
            self._firing.fill(load, lead.table)
            lazily = now >= self._lazy_at and lead.committed != load.offsets[0].offset
            if not load.says_something and not lazily:
                return 0
        self._lazy_at = now + LAZY_COMMIT
        records = len(load.creates) + len(load.announces)
        self._flush.submit([load], membership, records)
        return records

    # --- results -------------------------------------------------------------------------------------------------

    def _committed(self, load: Load) -> None:
        lead = self._lead
        if lead is not None:
            lead.committed, lead.claimed = load.offsets[0].offset, True
            self._firing.done(load, lead.table)

    def _failed(self, load: Load, refused: Refused) -> None:
        if self._lead is not None:
            self._firing.failed(load, refused)
            self._look_what_became_of_it(self._lead)

    def _look_what_became_of_it(self, lead: Leadership) -> None:
        """A flush that failed may be committed all the same. Decided anew as if it were not, `replace` would start a
        run beside one that nobody knows of. So a new producer ends its transaction, and the topic is read to its end.
        """
        lead.doubt()
        self._flush.renew()

    # --- the end -------------------------------------------------------------------------------------------------

    def _shut(self) -> None:
        if self._lead is not None:
            self._lead.close()
        self._firing.end()
