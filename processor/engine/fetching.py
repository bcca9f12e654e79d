"""Reading the lanes, as far as there is room: no more than the executors lack, and what is due before what is new."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Batch, Broker, Reader
from processor.engine.config import WorkerConfig
from processor.engine.hold_back import HoldBack
from processor.engine.intake import Intake
from processor.engine.precedents import Precedent, answered
from processor.engine.refetch import Refetch
from processor.errors import BrokerUnavailable, RetriableBrokerError
from processor.job import Lane

if TYPE_CHECKING:
    from processor.engine.dispatch import Dispatch
    from processor.engine.outcomes import Outcomes
    from processor.engine.ownership import Ownership
    from processor.engine.posts import Posts
    from processor.engine.state import EngineState

log = events.logger(__name__)

READ_ORDER = (Lane.HIGH, Lane.DUE, Lane.NORMAL, Lane.LOW)


def lane_readers(broker: Broker, config: WorkerConfig) -> dict[Lane, Reader]:
    """A reader for each kind of lane that the queues have, in the order in which they are read.

    One for each: behind a backlog in a shared fetch queue a due record waits its turn (measured: over 13 s against
    0.1 s).
    """
    lanes = {lane for queue in config.queues for lane in queue.lanes}
    return {lane: broker.reader() for lane in READ_ORDER if lane in lanes}


class Fetching:
    """Takes records from the lanes and admits them. On the owning thread."""

    def __init__(
        self,
        engine: EngineState,
        dispatch: Dispatch,
        outcomes: Outcomes,
        ownership: Ownership,
        readers: dict[Lane, Reader],
    ) -> None:
        self.readers = readers
        self._engine = engine
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._ownership = ownership
        self._hold_back = HoldBack(engine, ownership)
        self._intake = Intake(engine, dispatch)

    def listen(self, posts: Posts) -> None:
        """Records that somebody asked for have been read."""
        posts.of(Refetch, lambda answer: self._intake.refetched(answer, self._ownership.hold))
        posts.of(Precedent, self._precedent)

    def turn(self) -> int:
        """Read and admit; how many records."""
        engine = self._engine
        if not engine.lanes:
            return 0
        self._hold_back.turn()
        if not engine.has_room:
            return 0
        config, dispatch = engine.config, self._dispatch
        fresh, due = dispatch.lacks(), dispatch.lacks(due=True)
        got = 0
        for lane, reader in self.readers.items():
            limit = min(config.fetch_records, due if lane is Lane.DUE else fresh)
            if limit <= 0:
                continue
            room = min((load.room for load in engine.loads.values() if not load.is_full), default=0)
            if room <= 0:
                break
            try:
                batch = reader.fetch(min(limit, room), 0.0)
            except (RetriableBrokerError, BrokerUnavailable) as error:
                log.warning("lanes.fetch_failed", extra={"error": str(error)})
                continue
            if batch.records:
                self._intake.take(batch.records)
                got += len(batch.records)
            if batch.ends or batch.faults:
                self._take_events(batch)
        return got

    def close(self) -> None:
        """Let go of the readers."""
        for reader in self.readers.values():
            reader.close()

    def _take_events(self, batch: Batch) -> None:
        lanes = self._engine.lanes
        for partition, offset in batch.ends:
            lane = lanes.get(partition)
            if lane is not None and lane.window.read_mark < offset:
                lane.window.reached(offset)
                lane.changed = True
        for fault in batch.faults:
            lane = lanes.get(fault.partition)
            if lane is not None:
                self._ownership.hold(lane.number, f"{fault.partition}: {fault.error}")

    def _precedent(self, answer: Precedent) -> None:
        engine = self._engine
        act = partial(answered, engine, self._dispatch, self._outcomes, self._ownership.hold, answer)
        engine.guard.number_act(answer.attempt.number, "a repeat was looked for", act)
