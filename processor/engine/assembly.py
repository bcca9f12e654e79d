"""The parts of the engine, made and put together. What each of them is for stands in its own module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from processor.engine.background import Background
from processor.engine.dispatch import Dispatch
from processor.engine.fetching import Fetching, lane_readers
from processor.engine.flushing import Flushing
from processor.engine.guard import Guard
from processor.engine.housekeeping import Housekeeping
from processor.engine.outcomes import Outcomes
from processor.engine.ownership import HandOver, Ownership
from processor.engine.state import EngineState

if TYPE_CHECKING:
    from processor.engine.pool import Pool

    MakePool = Callable[[EngineState, str, int, str], Pool]
    """A pool of the worker with this state, for a queue, with so many slots, of one kind of executor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop of a worker drives."""

    dispatch: Dispatch
    outcomes: Outcomes
    ownership: Ownership
    fetching: Fetching
    flushing: Flushing
    housekeeping: Housekeeping
    background: Background


def assemble(engine: EngineState, make_pool: MakePool, hand_over: HandOver) -> Parts:
    """Make the parts of a worker; its background threads are started.

    Args:
        engine: what the parts share; it is given its guard.
        make_pool: for each queue and kind of executor, when the first job wants it.
        hand_over: waits until numbers that are given up have nothing more to write.
    """
    readers = lane_readers(engine.broker, engine.config)
    background = Background(engine)
    dispatch = Dispatch(
        engine,
        lambda queue, slots, kind: make_pool(engine, queue, slots, kind),
        background.refetcher.read_again,
        background.precedents.ask,
    )
    outcomes = Outcomes(engine, dispatch)
    dispatch.settle_by(outcomes)
    ownership = Ownership(engine, dispatch, background.restorer, readers, hand_over)
    engine.guard = Guard(engine, dispatch, outcomes, ownership.hold_unwritten)
    return Parts(
        dispatch=dispatch,
        outcomes=outcomes,
        ownership=ownership,
        fetching=Fetching(engine, dispatch, outcomes, ownership, readers),
        flushing=Flushing(engine, dispatch, outcomes, ownership),
        housekeeping=Housekeeping(engine, dispatch, outcomes, ownership, background.upkeep),
        background=background,
    )
