"""What the owning thread looks after at the end of every turn, whatever happened in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.engine.control_topic import ControlNews
from processor.engine.operators import Operators
from processor.engine.orphans import OrphanWatch
from processor.engine.timers import Timers
from processor.engine.upkeep import LaneEnds, Members, Upkeep
from processor.engine.watchdog import Watchdog

if TYPE_CHECKING:
    from processor.engine.dispatch import Dispatch
    from processor.engine.groups import Groups
    from processor.engine.outcomes import Outcomes
    from processor.engine.ownership import Ownership
    from processor.engine.posts import Posts
    from processor.engine.state import EngineState


class Housekeeping:
    """Clocks, operators' wishes, numbers that stand still and numbers without an owner."""

    def __init__(
        self, engine: EngineState, dispatch: Dispatch, outcomes: Outcomes, ownership: Ownership, upkeep: Upkeep
    ) -> None:
        self.operators = Operators(engine, dispatch, outcomes, ownership)
        self.timers = Timers(engine, dispatch, outcomes, ownership)
        self.orphans = OrphanWatch(engine, upkeep)
        self.watchdog = Watchdog(engine, dispatch, ownership, upkeep)

    def listen(self, posts: Posts, groups: Groups) -> None:
        """Somebody wants something, or the cluster has answered."""
        posts.of(ControlNews, self.operators.heard)
        posts.of(LaneEnds, self.watchdog.seen)
        # Looked up at the call, so that whoever looks on can stand before it.
        posts.of(Members, lambda members: groups.to_rejoin.update(self.orphans.counted(members)))

    def turn(self, now: float) -> None:
        """`now`: monotonic seconds."""
        self.timers.turn(now)
        self.operators.burials.turn(now)
        self.watchdog.turn(now)
        self.orphans.turn(now)
