"""The app that the workers of the integration tests run. Every handler writes to a ledger outside Kafka.

The ledger is a file of JSON lines that all processes append to, one `write` per line, so nobody waits for a lock that a
frozen process holds. `at` is the machine's monotonic clock, the same in every process.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, Field

from processor import App, Context
from processor.wire.settings import Settings

QUEUE = "q"
PARTITIONS = 4


class Walk(BaseModel):
    """A loop over `items` rows that takes `pause` seconds for each."""

    items: int
    pause: float = 0.002


class Tally(BaseModel):
    """What a walk has added up."""

    total: int = 0


class Count(BaseModel):
    """How many steps, or children."""

    count: int
    pause: float = 0.0


class Sleep(BaseModel):
    """A handler that says nothing for so long."""

    seconds: float


class Keyed(BaseModel):
    """Jobs of one key run one at a time."""

    key: str
    seconds: float = 0.0


class Strict(BaseModel):
    """A payload that can be refused."""

    amount: int = Field(gt=0)


class Big(BaseModel):
    """Something too large is saved as `what`."""

    what: str
    size: int


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def note(ctx: _Named, what: str, **fields: Any) -> None:
    """Append a line to the ledger."""
    line = {"at": time.monotonic(), "pid": os.getpid(), "job": ctx.id, "what": what, **fields}
    descriptor = os.open(os.environ["JOBS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


def build(namespace: str, settings: Settings | None = None) -> App:
    """The app; the tests build it once more for themselves, to enqueue."""
    app = App(namespace, settings=settings)
    app.queue("default", partitions=1)
    app.queue(QUEUE, partitions=PARTITIONS, concurrency=16)

    for declare in (_walks, _steps, _sleeps, _keyed, _refusable):
        declare(app)
    return app


def _walks(app: App) -> None:
    @app.job("walk", queue=QUEUE, payload=Walk)
    def walk(ctx: Context, p: Walk) -> Tally:
        tally = ctx.state(Tally)
        note(ctx, "start", cursor=tally.total)
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, p.items + 1), every="50ms", total=p.items):
            note(ctx, "item", item=row)
            tally.total += row
            time.sleep(p.pause)
        return tally


def _steps(app: App) -> None:
    @app.job("steps", queue=QUEUE, payload=Count)
    def steps(ctx: Context, p: Count) -> int:
        def effect(number: int) -> int:
            note(ctx, "effect", step=number)
            time.sleep(p.pause)
            return number

        return sum(ctx.step(f"s{number}", effect, number) for number in range(p.count))

    @app.job("leaf", queue=QUEUE, payload=Count)
    def leaf(ctx: Context, p: Count) -> int:
        note(ctx, "leaf")
        return p.count

    @app.job("parent", queue=QUEUE, payload=Count)
    def parent(ctx: Context, p: Count) -> list[str]:
        children = []
        for number in range(p.count):
            children.append(ctx.spawn(leaf, Count(count=number)))
            ctx.step(f"told{number}", note, ctx, "effect", step=number)
        return children


def _sleeps(app: App) -> None:
    @app.job("sleep", queue=QUEUE, payload=Sleep)
    def sleep(ctx: Context, p: Sleep) -> None:
        note(ctx, "start")
        time.sleep(p.seconds)
        note(ctx, "end")


def _keyed(app: App) -> None:
    @app.job("keyed", queue=QUEUE, payload=Keyed, key=lambda p: p.key)
    def keyed(ctx: Context, p: Keyed) -> None:
        note(ctx, "start", key=p.key)
        time.sleep(p.seconds)
        note(ctx, "end", key=p.key)

    @app.job("gated", queue=QUEUE, payload=Keyed, key=lambda p: p.key)
    def gated(ctx: Context, p: Keyed) -> None:
        """Goes on until a test makes the file of that name."""
        note(ctx, "start", key=p.key)
        gate = Path(os.environ["JOBS_LEDGER"]).with_name(f"gate-{p.key}")
        for turn in ctx.each("turns", lambda after: range((after or 0) + 1, 1_000_000), every="200ms"):
            if turn < 0 or gate.exists():
                break
            time.sleep(0.01)
        note(ctx, "end", key=p.key)


def _refusable(app: App) -> None:
    @app.job("strict", queue=QUEUE, payload=Strict)
    def strict(ctx: Context, p: Strict) -> int:
        note(ctx, "start")
        return p.amount

    @app.job("big", queue=QUEUE, payload=Big)
    def big(ctx: Context, p: Big) -> str:
        note(ctx, "start")
        text = os.urandom(p.size // 2).hex()
        if p.what == "checkpoint":
            ctx.checkpoint(text)
        elif p.what == "step":
            ctx.step("large", text.upper)
        return text if p.what == "result" else ""


app = build(os.environ.get("JOBS_NAMESPACE", "unset"))
