"""The watchdog: a number that stands still although it could move is held, with an alarm; the others go on.

It could move if, at every look for `WorkerConfig.watchdog` seconds, the cluster answered, something lay in one of its
lanes beyond what was read, its queue was not paused, the worker and the queue's share had room, and a slot of its queue
was free. It did not move if nothing was read or completed in all that time. Neither a long job nor a slow broker is a
standstill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from processor.broker.base import TopicPartition
from processor.engine.upkeep import LaneEnds, Look, Upkeep

if TYPE_CHECKING:
    from processor.engine.dispatch import Dispatch
    from processor.engine.ownership import Ownership
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.state import EngineState

LOOKS = 4
"""Looks within the time that a standstill takes to be one."""


class Sight(NamedTuple):
    """What one look at a number saw."""

    assignment: int
    marks: tuple[tuple[int, int], ...]
    """(read mark, low watermark) of its lanes."""
    could_move: bool


class Standstill:
    """How long one number has stood still although it could move. Pure."""

    __slots__ = ("_sight", "_since")

    def __init__(self) -> None:
        self._sight: Sight | None = None
        self._since = 0.0

    def seconds(self, sight: Sight, now: float) -> float:
        """Seconds of standstill, this look included; 0 after any movement, and after a look when it could not move."""
        if not sight.could_move:
            self._sight = None
            return 0.0
        if sight != self._sight:
            self._sight, self._since = sight, now
        return now - self._since


class Watchdog:
    """Holds partitions that stand still although they could move. On the owning thread; `Upkeep` asks the cluster."""

    def __init__(self, engine: EngineState, dispatch: Dispatch, ownership: Ownership, upkeep: Upkeep) -> None:
        self._engine = engine
        self._dispatch = dispatch
        self._ownership = ownership
        self._upkeep = upkeep
        self._every = engine.config.watchdog / LOOKS
        self._next = engine.clock.monotonic() + self._every
        self._still: dict[tuple[str, int], Standstill] = {}

    def turn(self, now: float) -> None:
        """Called every turn of the loop. `now`: monotonic seconds."""
        if now >= self._next:
            self._next = now + self._every
            self._upkeep.ask(Look(self.lanes()))
        self._upkeep.turn(now, self._by_group)

    def lanes(self) -> Sequence[TopicPartition]:
        """Every lane partition that this worker reads."""
        return [lane.key for number in self._engine.active() for lane in number.lanes.values()]

    def _by_group(self) -> dict[str, list[TopicPartition]]:
        found: dict[str, list[TopicPartition]] = {}
        for number in self._engine.active():
            lanes = found.setdefault(self._engine.config.group(number.queue.name), [])
            lanes += [lane.key for lane in number.lanes.values()]
        return found

    def seen(self, answer: LaneEnds) -> None:
        """The cluster has answered."""
        engine = self._engine
        now, patience = engine.clock.monotonic(), engine.config.watchdog
        before, self._still = self._still, {}
        for number in list(engine.active()):
            key = (number.queue.name, number.partition)
            still = self._still[key] = before.get(key) or Standstill()
            seconds = still.seconds(self._sight(number, answer.ends), now)
            if seconds >= patience:
                del self._still[key]
                self._ownership.hold(number, f"no progress for {seconds:.0f} s although jobs wait in its lanes")

    def _sight(self, number: QueuePartition, ends: Mapping[TopicPartition, int]) -> Sight:
        windows = [(lane.key, lane.window) for lane in number.lanes.values()]
        waits = any(ends.get(key, 0) > window.read_mark for key, window in windows)
        name = number.queue.name
        # A slot of one kind may be free while jobs of another have all that the queue may have in flight.
        full = self._engine.loads[name].is_full
        may = name not in self._engine.gate.resting and self._engine.has_room and not full
        could = waits and may and self._dispatch.has_free_slot(name)
        return Sight(number.assignment, tuple((window.read_mark, window.low) for _, window in windows), could)
