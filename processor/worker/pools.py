"""Which executor runs which kind of handler."""

from __future__ import annotations

from processor.worker.desk import Desk
from processor.worker.dispatch import Pool
from processor.worker.pool_async import AsyncPool
from processor.worker.pool_process import ProcessPool
from processor.worker.pool_threads import ThreadPool


def make_pool(desk: Desk, queue: str, slots: int, kind: str) -> Pool:
    """A pool for one queue: `thread`, `async`, `process`, or `quarantine` for suspects, whatever their kind
    (`alone-thread`, `alone-async`: one at a time in this process, if there can be no child).

    Raises:
        DefinitionError: `process`, and child processes could not import the app.
    """
    name = f"{queue}-{kind}"
    if kind.startswith("alone-"):
        kind, slots = kind.removeprefix("alone-"), 1
    if kind == "async":
        return AsyncPool(desk.runtime, desk.inbox, name, slots)
    if kind in ("process", "quarantine"):
        config = desk.config
        return ProcessPool(desk.runtime, desk.inbox, name, min(slots, config.child_slots), config)
    return ThreadPool(desk.runtime, desk.inbox, name, slots)
