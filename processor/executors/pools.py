"""Which executor runs which kind of handler."""

from __future__ import annotations

from processor.engine.pool import Pool
from processor.engine.state import EngineState
from processor.executors.event_loop import AsyncPool
from processor.executors.processes import ProcessPool
from processor.executors.threads import ThreadPool


def make_pool(engine: EngineState, queue: str, slots: int, kind: str) -> Pool:
    """A pool for one queue: `thread`, `async`, `process`, or `quarantine` for suspects, whatever their kind
    (`alone-thread`, `alone-async`: one at a time in this process, if there can be no child).

    Raises:
        DefinitionError: `process`, and child processes could not import the app.
    """
    name = f"{queue}-{kind}"
    if kind.startswith("alone-"):
        kind, slots = kind.removeprefix("alone-"), 1
    if kind == "async":
        return AsyncPool(engine.runtime, engine.inbox, name, slots)
    if kind in ("process", "quarantine"):
        config = engine.config
        slots, warm = min(slots, config.child_slots), kind == "quarantine"
        return ProcessPool(engine.runtime, engine.inbox, name, slots, config, warm=warm)
    return ThreadPool(engine.runtime, engine.inbox, name, slots)
