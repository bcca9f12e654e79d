"""When a flush goes, and what its result means. `Outbox` freezes what goes, the `Flusher` takes it to the log."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from processor.engine.batch import FlushBatch, FlushResult, Part
from processor.engine.flush import Flusher
from processor.engine.outbox import Outbox
from processor.engine.pace import Pace
from processor.engine.queue_partition import PartitionPhase, QueuePartition

if TYPE_CHECKING:
    from processor.engine.dispatch import Dispatch
    from processor.engine.outcomes import Outcomes
    from processor.engine.ownership import Ownership
    from processor.engine.posts import Posts
    from processor.engine.state import EngineState


class Flushing:
    """The flushes of one worker, one at a time. On the owning thread."""

    def __init__(self, engine: EngineState, dispatch: Dispatch, outcomes: Outcomes, ownership: Ownership) -> None:
        self._engine = engine
        self._ownership = ownership
        self._outbox = Outbox(engine, dispatch, outcomes)
        config = engine.config
        self.flusher: Flusher[Part] = Flusher(
            engine.runtime, engine.broker, config.transactional_id(), engine.inbox.post
        )
        self.prepared = False
        """The producer is ready: what a predecessor in this slot left open is ended."""
        self._in_flight: FlushBatch[Part] | None = None
        self._pace = Pace(config.membership_proof)
        self._began = 0.0

    def listen(self, posts: Posts) -> None:
        """A batch has come back."""
        posts.of(FlushResult, self._ended)

    def prepare(self) -> None:
        """Have the producer made ready."""
        self.flusher.prepare()

    @property
    def under_way(self) -> bool:
        """Whether a batch is on its way to the log."""
        return self._in_flight is not None

    def turn(self, now: float, *, idle: bool, at_once: bool = False) -> None:
        """Flush if it is time.

        Args:
            now: monotonic seconds.
            idle: nothing happened in this turn of the loop.
            at_once: what there is does not wait for company.
        """
        if self.flusher.is_stuck(now):
            self._replace_flusher()
        if not self.under_way and self._pace.allows(now) and (at_once or self._is_due(now, idle=idle)):
            self._flush(now)

    def is_over_for(self, numbers: Sequence[QueuePartition]) -> bool:
        """Whether all that these have to say before they are given up is in the log."""
        flushable = [number for number in numbers if number.phase is PartitionPhase.YIELDING]
        return not self.under_way and not any(number.touched or number.outbox for number in flushable)

    def stop(self, timeout: float) -> None:
        """End the flusher's thread, within so many seconds."""
        self.flusher.stop(timeout)

    def _is_due(self, now: float, *, idle: bool) -> bool:
        engine = self._engine
        outbox, linger = engine.outbox_load, engine.config.linger
        oldest = outbox.oldest_at
        if oldest is None:
            return False
        asked = outbox.urgent or outbox.group_commit.due(now)
        if asked or now - oldest >= linger or not engine.has_room:
            return True
        # At low load a lone record need not wait for company.
        return idle and now - self._began >= linger

    def _flush(self, now: float) -> None:
        batch = self._outbox.freeze()
        if batch is None:
            return
        self._in_flight = batch
        self._began = now
        self.flusher.submit(batch)

    def _ended(self, result: FlushResult[Part]) -> None:
        if not result.batch.parts:
            self.prepared = result.error is None
            if result.error is not None:
                raise result.error
            return
        if result.batch is not self._in_flight:
            return  # of a flusher that was given up as stuck, and came back after all
        self._in_flight = None
        self._pace.ended(result.error, self._engine.clock.monotonic())
        if result.error is None:
            for number in self._outbox.committed(result):
                if number.phase is PartitionPhase.CLAIMING and not number.released:
                    act = partial(self._ownership.claimed, number)
                    self._engine.guard.number_act(number, "it was claimed", act)
            return
        self._outbox.failed(result)

    def _replace_flusher(self) -> None:
        self.flusher, result = self.flusher.replaced()
        if result.batch.parts:
            self._ended(result)
        else:
            self.flusher.prepare()
