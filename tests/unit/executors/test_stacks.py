"""Where a handler is that does not listen."""

from __future__ import annotations

import asyncio
import threading

from processor.executors.stacks import stack_of_task, stack_through
from processor.texts import place_of


class Pool:
    """Runs something in a thread of its own, as executors do."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.over = threading.Event()

    def run(self, attempt: object) -> None:
        self._handler()

    def _handler(self) -> None:
        self.inside.set()
        self.over.wait()


def test_the_stack_of_the_thread_that_runs_an_attempt_and_of_no_other() -> None:
    pools, attempts = [Pool(), Pool()], [object(), object()]
    threads = [threading.Thread(target=p.run, args=(a,), daemon=True) for p, a in zip(pools, attempts, strict=True)]
    for thread, pool in zip(threads, pools, strict=True):
        thread.start()
        pool.inside.wait()
    texts = [stack_through(Pool.run, attempt) for attempt in attempts]
    assert all(place_of(text).endswith("in _handler") for text in texts)
    assert all(text.startswith("Traceback (most recent call last):\n") for text in texts)
    assert stack_through(Pool.run, object()) == ""
    for pool in pools:
        pool.over.set()
    for thread in threads:
        thread.join()
    assert stack_through(Pool.run, attempts[0]) == ""


def test_the_place_where_a_coroutine_waits() -> None:
    async def inner(over: asyncio.Event) -> None:
        await over.wait()

    async def outer(over: asyncio.Event) -> None:
        await inner(over)

    async def look() -> tuple[str, str]:
        over = asyncio.Event()
        task = asyncio.create_task(outer(over))
        await asyncio.sleep(0)
        waits = stack_of_task(task)
        over.set()
        await task
        return waits, stack_of_task(task)

    waits, ended = asyncio.run(look())
    assert place_of(waits).endswith("in inner")
    assert waits.index("in outer") < waits.index("in inner")
    assert ended == ""
