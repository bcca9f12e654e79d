"""Handlers that take too long, each for threads, for the event loop and for child processes.

`deaf.EXECUTOR` hears of nothing, `slow.EXECUTOR` is the same with an `attempt_timeout`; `polite.EXECUTOR` looks now and
then whether it is to stop. All save a step first.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from processor import App, AsyncContext, Backoff, Context, Retry

TWICE = Retry(2, Backoff("1s"))
Note = Callable[..., None]


class Rows(BaseModel):
    """A loop over so many."""

    count: int


def declare(app: App, queue: str, note: Note) -> None:
    """Register them; `note` writes to the ledger."""
    for name, limit in (("deaf", None), ("slow", "1s")):
        app.job(f"{name}.thread", queue=queue, retry=TWICE, attempt_timeout=limit)(_sleeping(note))
        app.job(f"{name}.async", queue=queue, retry=TWICE, attempt_timeout=limit)(_swallowing(note))
        app.job(f"{name}.process", queue=queue, retry=TWICE, attempt_timeout=limit, executor="process")(_busy(note))
    app.job("polite.thread", queue=queue, retry=Retry(1), attempt_timeout="1s")(_polite(note))
    app.job("polite.process", queue=queue, retry=Retry(1), attempt_timeout="1s", executor="process")(_polite(note))
    app.job("polite.async", queue=queue, retry=Retry(1), stall_timeout="1s")(_polite_async(note))

    @app.job("walk.async", queue=queue, payload=Rows)
    async def walk(ctx: AsyncContext, p: Rows) -> int:
        """Saves seldom by itself: what it has come to is saved when its worker stops."""
        async for row in ctx.each("rows", lambda after: range((after or 0) + 1, p.count + 1), every="10m"):
            note(ctx, "row", item=row)
            await asyncio.sleep(0.01)
        return p.count

    @app.job("stale", queue=queue, queue_timeout="200ms")
    def stale(ctx: Context) -> None:
        note(ctx, "start")

    @app.job("blocks", queue=queue, retry=Retry(1), attempt_timeout="1s")
    async def blocks(ctx: AsyncContext) -> None:
        """Holds up the event loop, and with it all other async jobs of the worker."""
        note(ctx, "start")
        time.sleep(600)


def _sleeping(note: Note) -> Callable[[Context], None]:
    def sleeping(ctx: Context) -> None:
        ctx.step("before", note, ctx, "effect", step="before")
        note(ctx, "start", attempt=ctx.attempt)
        while True:
            time.sleep(0.02)

    return sleeping


def _busy(note: Note) -> Callable[[Context], None]:
    def busy(ctx: Context) -> None:
        """A search in C that does not end in our lifetime and never lets go of the interpreter lock."""
        ctx.step("before", note, ctx, "effect", step="before")
        note(ctx, "start", attempt=ctx.attempt)
        time.sleep(0.2)  # until the step has left: nothing else runs in this process from now on
        re.match(r"(a+)+$", "a" * 64 + "b")

    return busy


def _swallowing(note: Note) -> Callable[[AsyncContext], Any]:
    async def swallowing(ctx: AsyncContext) -> None:
        async def effect() -> None:
            note(ctx, "effect", step="before")

        await ctx.step("before", effect)
        note(ctx, "start", attempt=ctx.attempt)
        while True:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                note(ctx, "swallowed")

    return swallowing


def _polite(note: Note) -> Callable[[Context], None]:
    def polite(ctx: Context) -> None:
        note(ctx, "start")
        while True:
            time.sleep(0.02)
            ctx.heartbeat()

    return polite


def _polite_async(note: Note) -> Callable[[AsyncContext], Any]:
    async def polite(ctx: AsyncContext) -> None:
        """Gives no sign of life, until it hears that it is to stop."""
        note(ctx, "start")
        while not ctx.cancelled:
            await asyncio.sleep(0.02)
        ctx.heartbeat()

    return polite
