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
from processor.broker.base import Broker, GroupConsumer, Membership, TopicPartition
from processor.engine.batch import FlushBatch, FlushResult
from processor.engine.fence import Fence
from processor.engine.firing import Firing, Load
from processor.engine.flush import Flusher
from processor.engine.leadership import Leadership
from processor.engine.orphan_transactions import DeadSlots
from processor.engine.pace import Pace
from processor.errors import BrokerError, MemberFenced, StaleMembership
from processor.runtime import Inbox, Runtime
from processor.wire.groups import instance_name
from processor.wire.topics import schedules_topic

if TYPE_CHECKING:
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters

log = events.logger(__name__)

IDLE = 0.05
"""Seconds between two looks of the leader at most."""
BENCH = 0.2
"""The same for the others, who only wait to become it."""
AGAIN = 0.2
"""Seconds after an error of the cluster."""
LAZY_COMMIT = 5.0
"""Seconds after which the end of the topic is committed, so that its lag is zero."""
LET_GO = 5.0
"""Seconds that a revoke waits for the flush under way."""


class Scheduler:
    """Fires schedules while this worker is the leader, on a thread of its own. Implements `RebalanceListener`."""

    def __init__(self, runtime: Runtime, broker: Broker, config: WorkerConfig, counters: Counters) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        self._broker = broker
        self._config = config
        self._counters = counters
        self._inbox: Inbox[FlushResult[Load]] = Inbox(runtime)
        self._dead_slots = DeadSlots(broker, config, config.schedulers, config.scheduler_id)
        self._fence = Fence(config.schedulers)
        self._pace = Pace(config.membership_proof)
        self._assignments = 0
        self._lead: Leadership | None = None
        """There while this worker is the leader."""
        self._flusher: Flusher[Load] | None = None
        """There once it has been the leader: the others need none."""
        self._prepared = False
        self._prepares = False
        """A producer is to be made ready once the pace allows it: a successor in this slot is heard of before."""
        self._in_flight: FlushBatch[Load] | None = None
        self._watch_all = False
        self._lazy_at = 0.0
        self._stopping = False
        self._actor = runtime.start("scheduler", self._run)

    def stop(self, timeout: float) -> bool:
        """End the thread in good order; whether it ended in time."""
        self._stopping = True
        self._inbox.wake()
        return self._actor.join(timeout)

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        config = self._config
        self._firing = Firing(self._broker, config, self._clock, self._counters)
        instance = instance_name(config.schedulers, config.slot) if config.static else None
        self._member: GroupConsumer = self._broker.group_consumer(config.schedulers, instance_id=instance)
        try:
            self._serve()
        except MemberFenced as error:
            # Another process has this slot: the engine hears of it as well, and ends the process.
            log.error("scheduler.fenced", extra={"error": str(error)})
        finally:
            self._close()

    def _serve(self) -> None:
        self._member.subscribe([schedules_topic(self._config.namespace)], self)
        while not self._stopping:
            try:
                if not self._turn():
                    self._inbox.wait(self._pause())
            except MemberFenced:
                raise
            except BrokerError as error:
                log.warning("scheduler.retrying", extra={"error": str(error)})
                self._inbox.wait(AGAIN)
            except Exception:
                # All schedules of a namespace wait for it: it goes on, and says so.
                log.exception("scheduler.failed")
                self._counters.events["internal_errors"] += 1
                self._inbox.wait(AGAIN)
        self._leave()

    def _turn(self) -> int:
        """One round; how much happened."""
        now = self._clock.monotonic()
        busy = self._take_results()
        self._replace_stuck(now)
        self._member.poll(0.0)
        if self._prepares and self._flusher is not None and self._pace.allows(now):
            self._prepares = False
            self._flusher.prepare()
        lead = self._lead
        if lead is None or not self._prepared:
            return busy
        busy += lead.read(now)
        if lead.caught_up:
            busy += self._firing.read(lead.table)
            busy += self._flush_due(lead, now)
        return busy

    def _pause(self) -> float:
        """Seconds until there may be something to do."""
        if self._lead is None:
            return BENCH
        if self._in_flight is not None or not self._lead.caught_up:
            return IDLE
        return min(max(self._firing.seconds_left(), 0.001), IDLE)

    # --- the group -----------------------------------------------------------------------------------------------

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self._fence.heard(membership)
        for place in partitions:
            self._assignments += 1
            self._lead = Leadership(self._broker, self._config, self._dead_slots, place, self._assignments)
            self._firing.begin()
            if self._flusher is None:
                self._flusher = Flusher(
                    self._runtime,
                    self._broker,
                    self._config.scheduler_id(),
                    self._inbox.post,
                    name="schedule-flusher",
                )
                # That ends what a predecessor in this slot left open.
                self._flusher.prepare()
            log.info("scheduler.leads", extra={"slot": self._config.slot})

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self._fence.heard(membership)
        deadline = self._clock.monotonic() + LET_GO
        while partitions and self._in_flight is not None and self._clock.monotonic() < deadline:
            if not self._take_results():
                self._inbox.wait(0.01)
        self._drop(partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._fence.heard(None)
        self._drop(partitions)

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        lead = self._lead
        if lead is not None and lead.place in partitions:
            self._lead = None
            lead.close()
            self._firing.end()
            log.info("scheduler.no_longer_leads", extra={"slot": self._config.slot})

    # --- firing --------------------------------------------------------------------------------------------------

    def _flush_due(self, lead: Leadership, now: float) -> int:
        membership = self._fence.snapshot(now)
        if self._in_flight is not None or membership is None or not self._pace.allows(now):
            return 0
        load = lead.load(self._fence.group)
        if lead.claimed:
            self._firing.fill(load, lead.table)
            lazily = now >= self._lazy_at and lead.committed != load.offsets[0].offset
            if not load.says_something and not lazily:
                return 0
        self._lazy_at = now + LAZY_COMMIT
        batch = FlushBatch(
            parts=[load],
            memberships={self._fence.group: membership},
            watch_all=self._watch_all,
            records=len(load.creates) + len(load.announces),
        )
        self._in_flight = batch
        self._fence.froze()
        assert self._flusher is not None
        self._flusher.submit(batch)
        return batch.records

    # --- results -------------------------------------------------------------------------------------------------

    def _take_results(self) -> int:
        results = self._inbox.take()
        for result in results:
            self._flushed(result)
        return len(results)

    def _replace_stuck(self, now: float) -> None:
        if self._flusher is None or not self._flusher.is_stuck(now):
            return
        self._flusher, result = self._flusher.replaced()
        if not result.batch.parts:
            self._flusher.prepare()
            return
        self._flushed(result)

    def _flushed(self, result: FlushResult[Load]) -> None:
        if not result.batch.parts:
            self._prepared = result.error is None
            self._prepares = not self._prepared
            if result.error is not None:
                raise result.error
            return
        if result.batch is not self._in_flight:
            return
        self._in_flight = None
        now = self._clock.monotonic()
        self._pace.ended(result.error, now)
        if isinstance(result.error, StaleMembership):
            self._fence.refused(now)
        refused = {id(failure.record): failure.error for failure in result.acks.failures}
        self._watch_all = result.error is not None and not refused
        (load,) = result.batch.parts
        lead = self._lead
        if lead is None or not load.wanted:
            return
        if result.error is None:
            lead.committed, lead.claimed = load.offsets[0].offset, True
            self._firing.done(load, lead.table)
        else:
            self._firing.failed(load, refused)
            self._look_what_became_of_it(lead)

    def _look_what_became_of_it(self, lead: Leadership) -> None:
        """A flush that failed may be committed all the same. Decided anew as if it were not, `replace` would start a
        run beside one that nobody knows of. So a new producer ends its transaction, and the topic is read to its end.
        """
        lead.doubt()
        self._prepared, self._prepares = False, True

    # --- the end -------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        deadline = self._clock.monotonic() + 2.0
        self._member.unsubscribe()
        while self._lead is not None and self._clock.monotonic() < deadline:
            self._member.poll(0.0)
            self._inbox.wait(0.005)

    def _close(self) -> None:
        if self._flusher is not None:
            self._flusher.stop(1.0)
        if self._lead is not None:
            self._lead.close()
        self._firing.end()
        self._member.close()
