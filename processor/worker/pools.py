"""Which executor runs which kind of handler."""

from __future__ import annotations

from processor.worker.desk import Desk
from processor.worker.dispatch import Pool
from processor.worker.pool_async import AsyncPool
from processor.worker.pool_threads import ThreadPool


def make_pool(desk: Desk, queue: str, slots: int, kind: str) -> Pool:
    """A pool for one queue: `thread`, `async` or `process`."""
    name = f"{queue}-{kind}"
    if kind == "async":
        return AsyncPool(desk.runtime, desk.inbox, name, slots)
    return ThreadPool(desk.runtime, desk.inbox, name, slots)
