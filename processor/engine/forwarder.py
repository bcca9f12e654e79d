"""The forwarder: in every worker, moves records of the retry chain on when their time in a rung is over.

A role of its own with its own consumer group, producer and thread, built like the engine: consume, decide (pure, in
`processor.core.forwarding`), flush. A record leaves a rung and arrives in the next place in one transaction with the
offset, so it is neither lost nor sent twice.

1. Take what the flusher says, serve the group.
2. New rungs go on at their stable committed offsets.
3. Read, and hold what is not due (`processor.engine.rungs`).
4. What is due goes on in one flush.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Broker, GroupConsumer, Membership, OutRecord, Reader, Record, TopicPartition
from processor.engine.batch import FlushBatch, FlushResult
from processor.engine.fence import Fence
from processor.engine.flush import Flusher
from processor.engine.orphan_transactions import DeadSlots
from processor.engine.pace import Pace
from processor.engine.rungs import Load, Rung, offset_of
from processor.engine.upkeep import Upkeep
from processor.engine.way_home import WayHome
from processor.errors import BrokerError, MemberFenced, StaleMembership
from processor.runtime import Inbox, Runtime
from processor.wire.groups import instance_name
from processor.wire.topics import RETRY_DELAYS, parse_topic, retry_topic

if TYPE_CHECKING:
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters

log = events.logger(__name__)

FETCH = 2_000
AHEAD_KBYTES = 2_048
"""Of what waits, very much may lie in the rungs: with the usual 16 MB it cost a worker a fifth of its memory."""
FLUSH_RECORDS = 4_000
"""Records of one flush at most: larger ones do not move more a second, and hold others up."""
FLUSH_BYTES = 16 * 1024 * 1024
IDLE = 0.05
"""Seconds between two looks at most."""
AGAIN = 0.2
"""Seconds after an error of the cluster."""
LAZY_COMMIT = 1.0
"""Seconds after which the end of a drained rung is committed, so that its lag is zero."""
LET_GO = 5.0
"""Seconds that a revoke waits for the flush under way."""


class Forwarder:
    """Moves due records of the retry chain on, on a thread of its own. Implements `RebalanceListener`."""

    def __init__(self, runtime: Runtime, broker: Broker, config: WorkerConfig, counters: Counters) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        self._broker = broker
        self._config = config
        self._counters = counters
        self._inbox: Inbox[FlushResult[Load]] = Inbox(runtime)
        self._dead_slots = DeadSlots(broker, config, config.forwarders, config.forwarder_id)
        self._fence = Fence(config.forwarders)
        self._assignments = 0
        self._rungs: dict[TopicPartition, Rung] = {}
        self._new: list[Rung] = []
        """Assigned, and not read yet."""
        self._pace = Pace(config.membership_proof)
        self._in_flight: FlushBatch[Load] | None = None
        self._watch_all = False
        self._way_home = WayHome(broker, config, runtime.clock, counters)
        self._lazy_at = 0.0
        self._prepared = False
        self._stopping = False
        self._actor = runtime.start("forwarder", self._run)

    def stop(self, timeout: float) -> bool:
        """End the thread in good order; whether it ended in time."""
        self._stopping = True
        self._inbox.wake()
        return self._actor.join(timeout)

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        config = self._config
        self._flusher: Flusher[Load] = Flusher(
            self._runtime, self._broker, config.forwarder_id(), self._inbox.post, name="forward-flusher"
        )
        self._upkeep = Upkeep(self._runtime, self._broker, config, lambda _: None)
        self._reader: Reader = self._broker.reader(ahead_kbytes=AHEAD_KBYTES)
        instance = instance_name(config.forwarders, config.slot) if config.static else None
        self._member: GroupConsumer = self._broker.group_consumer(config.forwarders, instance_id=instance)
        try:
            self._serve()
        except MemberFenced as error:
            # Another process has this slot: the engine hears of it as well, and ends the process.
            log.error("forwarder.fenced", extra={"error": str(error)})
        finally:
            self._close()

    def _serve(self) -> None:
        self._flusher.prepare()
        subscribed = False
        while not self._stopping:
            if self._prepared and not subscribed:
                topics = [retry_topic(self._config.namespace, delay) for delay in RETRY_DELAYS]
                self._member.subscribe(topics, self)
                subscribed = True
            try:
                if not self._turn(subscribed=subscribed):
                    self._inbox.wait(self._pause())
            except MemberFenced:
                raise
            except BrokerError as error:
                log.warning("forwarder.retrying", extra={"error": str(error)})
                self._inbox.wait(AGAIN)
            except Exception:
                # The chain of a whole namespace waits for it: it goes on, and says so.
                log.exception("forwarder.failed")
                self._counters.events["internal_errors"] += 1
                self._inbox.wait(AGAIN)
        if subscribed:
            self._leave()

    def _turn(self, *, subscribed: bool) -> int:
        """One round; how much happened."""
        now = self._clock.monotonic()
        busy = self._take_results()
        if self._flusher.is_stuck(now):
            self._flusher, result = self._flusher.replaced()
            self._flushed(result)
            if not result.batch.parts:
                self._flusher.prepare()
        if subscribed:
            self._member.poll(0.0)
            self._begin_new()
            busy += self._read()
            busy += self._flush_due(now)
            self._upkeep.turn(now, lambda: {self._config.forwarders: list(self._rungs)})
        return busy

    def _pause(self) -> float:
        """Seconds until there may be something to do."""
        if self._in_flight is not None:
            return IDLE
        heads = [rung.leaves for rung in self._rungs.values() if rung.leaves is not None]
        if not heads:
            return IDLE
        return min(max((min(heads) - self._clock.now_ms()) / 1000, 0.001), IDLE)

    # --- the group -----------------------------------------------------------------------------------------------

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self._fence.heard(membership)
        for place in partitions:
            name = parse_topic(place.topic)
            if name is None or name.delay is None:
                continue
            self._assignments += 1
            rung = self._rungs[place] = Rung(place, name.delay, self._assignments)
            self._new.append(rung)

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self._fence.heard(membership)
        deadline = self._clock.monotonic() + LET_GO
        while self._in_flight is not None and self._clock.monotonic() < deadline:
            if not self._take_results():
                self._inbox.wait(0.01)
        self._drop(partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._fence.heard(None)
        self._drop(partitions)

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        gone = [rung for place in partitions if (rung := self._rungs.pop(place, None)) is not None]
        for rung in gone:
            rung.assignment = -1
        self._new = [rung for rung in self._new if rung.assignment != -1]
        self._reader.unassign([rung.place for rung in gone if rung.reading])

    def _begin_new(self) -> None:
        """Rungs that were assigned go on where the last owner's last transaction left off."""
        if not self._new:
            return
        places = [rung.place for rung in self._new]
        committed = self._dead_slots.stable_committed(places)
        begins = self._broker.admin().begin_offsets(places)
        rungs = list(self._new)
        for rung in rungs:
            offset = committed[rung.place].offset
            rung.position = max(begins.get(rung.place, 0), offset or 0)
            rung.committed = offset or 0
        self._reader.assign({rung.place: rung.position for rung in rungs})
        for rung in rungs:
            rung.reading = True
        self._new = []
        log.info("forwarder.begins", extra={"rungs": len(rungs)})

    # --- reading -------------------------------------------------------------------------------------------------

    def _read(self) -> int:
        ready = sum(len(rung.held) for rung in self._rungs.values() if rung.leaves is not None and not rung.paused)
        if not self._rungs or ready > 2 * FLUSH_RECORDS:
            return 0
        batch = self._reader.fetch(FETCH, 0.0)
        rungs = self._rungs
        for record in batch.records:
            rung = rungs.get((record.topic(), record.partition()))  # type: ignore[call-overload]  # None only for errors
            if rung is not None:
                rung.take(record)
        for end in batch.ends:
            if (rung := rungs.get(end.partition)) is not None:
                rung.reached(end.offset)
        for fault in batch.faults:
            self._read_anew(fault.partition, fault.error)
        self._hold_back()
        return len(batch.records)

    def _hold_back(self) -> None:
        """Stop reading where the head is not due and enough is kept; go on where it has become less."""
        now_ms = self._clock.now_ms()
        pause, resume = [], []
        for rung in self._rungs.values():
            waits = rung.leaves is not None and rung.leaves > now_ms
            if not rung.paused and waits and rung.full:
                rung.paused = True
                pause.append(rung.place)
            elif rung.paused and rung.low:
                rung.paused = False
                resume.append(rung.place)
        if pause:
            self._reader.pause(pause)
        if resume:
            self._reader.resume(resume)

    def _read_anew(self, place: TopicPartition, error: BrokerError) -> None:
        """A rung cannot be read on: it goes on at the oldest record that is kept."""
        rung = self._rungs.get(place)
        if rung is None:
            return
        log.error("forwarder.rung_lost_its_place", extra={"rung": str(place), "error": str(error)})
        self._counters.events["forwarder.faults"] += 1
        begin = self._broker.admin().begin_offsets([place])[place]
        rung.position = max(begin, rung.position)
        self._reader.unassign([place])
        self._reader.assign({place: rung.position})

    # --- moving on -----------------------------------------------------------------------------------------------

    def _flush_due(self, now: float) -> int:
        membership = self._fence.snapshot(now)
        if self._in_flight is not None or membership is None or not self._pace.allows(now):
            return 0
        loads = self._due_loads()
        if not loads and now >= self._lazy_at:
            self._lazy_at = now + LAZY_COMMIT
            loads = self._idle_loads()
        if not loads:
            return 0
        batch = FlushBatch(
            parts=loads,
            memberships={self._fence.group: membership},
            watch_all=self._watch_all,
            records=sum(len(load.creates) for load in loads),
        )
        self._in_flight = batch
        self._fence.froze()
        self._flusher.submit(batch)
        return batch.records

    def _due_loads(self) -> list[Load]:
        now_ms = self._clock.now_ms()
        loads, room, size = [], FLUSH_RECORDS, 0
        # The one that has waited longest first: under load nobody is passed over.
        due = sorted((rung for rung in self._rungs.values() if rung.leaves is not None), key=lambda r: r.leaves or 0)
        taken: list[tuple[Rung, list[Record]]] = []
        try:
            for rung in due:
                if room <= 0 or size >= FLUSH_BYTES:
                    break
                before = rung.size
                records = list(rung.pop_due(now_ms, room))
                if records:
                    taken.append((rung, records))
                    size += before - rung.size
                    room -= len(records)
                    loads.append(self._load(rung, records, (records[-1].offset() or 0) + 1, now_ms))
        except BaseException:
            # The cluster did not answer, say. What was taken out goes back: a later flush would commit past it.
            for rung, records in taken:
                rung.put_back(records)
            raise
        return loads

    def _idle_loads(self) -> list[Load]:
        """Of drained rungs: their ends, past transaction markers."""
        ends = [(rung, end) for rung in self._rungs.values() if (end := rung.idle_end()) is not None]
        return [self._load(rung, [], end, self._clock.now_ms()) for rung, end in ends]

    def _load(self, rung: Rung, records: list[Record], offset: int, now_ms: int) -> Load:
        announces: list[OutRecord] = []
        return Load(
            rung=rung,
            group=self._fence.group,
            assignment=rung.assignment,
            records=records,
            creates=[self._way_home.onward(record, now_ms, announces) for record in records],
            announces=announces,
            seals=[],
            offsets=[offset_of(rung, offset, self._config.slot)],
        )

    # --- results -------------------------------------------------------------------------------------------------

    def _take_results(self) -> int:
        results = self._inbox.take()
        for result in results:
            self._flushed(result)
        return len(results)

    def _flushed(self, result: FlushResult[Load]) -> None:
        if not result.batch.parts:
            self._prepared = result.error is None
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
        for load in result.batch.parts:
            if not load.wanted:
                continue
            if result.error is None:
                load.rung.committed = load.offsets[0].offset
            else:
                self._put_back(load, refused)

    def _put_back(self, load: Load, refused: dict[int, BrokerError]) -> None:
        """It was not moved: try again. What the broker will never take becomes a dead letter next time."""
        for record, out in zip(load.records, load.creates, strict=True):
            if id(out) in refused:
                self._way_home.refused(record, str(refused[id(out)]))
        load.rung.put_back(load.records)

    # --- the end -------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        deadline = self._clock.monotonic() + 2.0
        self._member.unsubscribe()
        while self._rungs and self._clock.monotonic() < deadline:
            self._member.poll(0.0)
            self._inbox.wait(0.005)

    def _close(self) -> None:
        self._flusher.stop(1.0)
        self._upkeep.stop(0.5)
        self._reader.close()
        self._member.close()
