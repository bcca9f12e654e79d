"""Which executor runs which kind of handler."""

from __future__ import annotations

from processor.worker.desk import Desk
from processor.worker.dispatch import Pool
from processor.worker.pool_async import AsyncPool
from processor.worker.pool_process import ProcessPool
from processor.worker.pool_threads import ThreadPool


def make_pool(desk: Desk, queue: str, slots: int, kind: str) -> Pool:
    """A pool for one queue: `thread`, `async` or `process`.

    Raises:
        DefinitionError: `process`, and child processes could not import the app.
    """
    name = f"{queue}-{kind}"
    if kind == "async":
        return AsyncPool(desk.runtime, desk.inbox, name, slots)
    if kind == "process":
        config = desk.config
        return ProcessPool(desk.runtime, desk.inbox, name, min(slots, config.child_slots), config)
    return ThreadPool(desk.runtime, desk.inbox, name, slots)
