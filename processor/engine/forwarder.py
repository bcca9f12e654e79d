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
from processor.broker.base import Broker, OutRecord, Reader, Record, TopicPartition
from processor.engine.flush import Flusher
from processor.engine.orphan_transactions import DeadSlots
from processor.engine.role import IDLE, Refused, Role
from processor.engine.rungs import Load, Rung, offset_of
from processor.engine.upkeep import Upkeep
from processor.engine.way_home import WayHome
from processor.errors import BrokerError
from processor.runtime import Runtime
from processor.wire.topics import RETRY_DELAYS, parse_topic, retry_topic

if TYPE_CHECKING:
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters

log = events.logger(__name__)

FETCH = 2_000
"""Records of one read while some are due: they leave at once."""
PEEK = 200
"""Of one read while none is: they stay in memory, in each partition."""
AHEAD_KBYTES = 1_024
"""Of what waits, very much may lie in the rungs: with the usual 16 MB it cost a worker a fifth of its memory, and with
answers of 1 MB, which unpack to several, a sixth still (66 MB to 79, with 200,000 waiting; now 70).
"""
FLUSH_RECORDS = 4_000
"""Records of one flush at most: larger ones do not move more a second, and hold others up."""
FLUSH_BYTES = 16 * 1024 * 1024
LAZY_COMMIT = 1.0
"""Seconds after which the end of a drained rung is committed, so that its lag is zero."""


class Forwarder(Role[Load]):
    """Moves due records of the retry chain on."""

    name = "forwarder"

    def __init__(self, runtime: Runtime, broker: Broker, config: WorkerConfig, counters: Counters) -> None:
        super().__init__(runtime, broker, config, counters, config.forwarders)
        self._dead_slots = DeadSlots(broker, config, config.forwarders, config.forwarder_id)
        self._rungs: dict[TopicPartition, Rung] = {}
        self._new: list[Rung] = []
        """Assigned, and not read yet."""
        self._way_home = WayHome(broker, config, runtime.clock, counters)
        self._lazy_at = 0.0
        self.start()

    def _topics(self) -> Sequence[str]:
        return [retry_topic(self._config.namespace, delay) for delay in RETRY_DELAYS]

    def _open(self) -> None:
        runtime, broker, config = self._runtime, self._broker, self._config
        self._flush.begin(Flusher(runtime, broker, config.forwarder_id(), self._inbox.post, name="forward-flusher"))
        self._upkeep = Upkeep(runtime, broker, config, lambda _: None)
        self._reader: Reader = broker.reader(ahead_kbytes=AHEAD_KBYTES)

    @property
    def _may_subscribe(self) -> bool:
        return self._flush.prepared

    @property
    def _owns(self) -> bool:
        return bool(self._rungs)

    def _work(self, now: float) -> int:
        self._begin_new()
        busy = self._read() + self._flush_due(now)
        self._upkeep.turn(now, lambda: {self._config.forwarders: list(self._rungs)})
        return busy

    def _pause(self) -> float:
        if self._flush.in_flight is not None:
            return IDLE
        heads = [rung.leaves for rung in self._rungs.values() if rung.leaves is not None]
        if not heads:
            return IDLE
        return min(max((min(heads) - self._clock.now_ms()) / 1000, 0.001), IDLE)

    # --- the group -----------------------------------------------------------------------------------------------

    def _take(self, place: TopicPartition, assignment: int) -> None:
        name = parse_topic(place.topic)
        if name is None or name.delay is None:
            return
        rung = self._rungs[place] = Rung(place, name.delay, assignment)
        self._new.append(rung)

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
        now_ms = self._clock.now_ms()
        moving = self._flush.in_flight is not None or any(
            rung.leaves is not None and rung.leaves <= now_ms for rung in self._rungs.values()
        )
        batch = self._reader.fetch(FETCH if moving else PEEK, 0.0)
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
        membership = self._flush.membership(now)
        if membership is None:
            return 0
        loads = self._due_loads()
        if not loads and now >= self._lazy_at:
            self._lazy_at = now + LAZY_COMMIT
            loads = self._idle_loads()
        if not loads:
            return 0
        records = sum(len(load.creates) for load in loads)
        self._flush.submit(loads, membership, records)
        return records

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
            group=self._flush.fence.group,
            assignment=rung.assignment,
            records=records,
            creates=[self._way_home.onward(record, now_ms, announces) for record in records],
            announces=announces,
            seals=[],
            offsets=[offset_of(rung, offset, self._config.slot)],
        )

    # --- results -------------------------------------------------------------------------------------------------

    def _committed(self, load: Load) -> None:
        load.rung.committed = load.offsets[0].offset

    def _failed(self, load: Load, refused: Refused) -> None:
        """It was not moved: try again. What the broker will never take becomes a dead letter next time."""
        for record, out in zip(load.records, load.creates, strict=True):
            if id(out) in refused:
                self._way_home.refused(record, str(refused[id(out)]))
        load.rung.put_back(load.records)

    # --- the end -------------------------------------------------------------------------------------------------

    def _shut(self) -> None:
        self._upkeep.stop(0.5)
        self._reader.close()
