"""The app whose jobs are run. Workers import it as `benchmarks.jobs:app`; the environment says what it is called."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from processor import App, AsyncContext, Context, Retry, RetryableError
from processor.wire.settings import Settings

QUEUE = "q"
NAP = 0.01
"""Seconds a `nap` sleeps."""
SAVE_EVERY = 100
"""Of the `mixed` jobs one in so many saves something."""

SAMPLES: list[float] = []
"""What handlers of this process have measured; the engine's report carries it to the parent."""


class Mail(BaseModel):
    """Payload of the jobs that do nothing: as in many an application, small."""

    order_id: int
    to: str
    n: int


class Nap(BaseModel):
    """Payload of a job that sleeps."""

    key: str
    hot: bool = False
    """Note when it ends."""


class Stamp(BaseModel):
    """Payload of a job that notes how long it took to start."""

    at: int
    """Nanoseconds of the monotonic clock, which all processes of a machine share."""


class Stumble(BaseModel):
    """Payload of a job that fails once."""

    after: float
    """Seconds it asks for before it is tried again."""


class Count(BaseModel):
    """Payload of a job that does one thing so many times."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What differs from bench to bench."""

    namespace: str
    partitions: int = 8
    concurrency: int = 100
    ledger: str = ""
    """File in which walks note their items."""

    def environment(self) -> dict[str, str]:
        """As variables for another process."""
        return {
            "BENCH_NAMESPACE": self.namespace,
            "BENCH_PARTITIONS": str(self.partitions),
            "BENCH_CONCURRENCY": str(self.concurrency),
            "BENCH_LEDGER": self.ledger,
        }


def shape_of(environment: Any = os.environ) -> Shape:
    """What the parent has said."""
    return Shape(
        namespace=environment.get("BENCH_NAMESPACE", "unset"),
        partitions=int(environment.get("BENCH_PARTITIONS", "8")),
        concurrency=int(environment.get("BENCH_CONCURRENCY", "100")),
        ledger=environment.get("BENCH_LEDGER", ""),
    )


def build(shape: Shape, settings: Settings | None = None, *, max_backlog: int | None = None) -> App:
    """The app; the parent builds it too, to enqueue."""
    app = App(shape.namespace, settings=settings)
    app.queue("default", partitions=1)
    app.queue(QUEUE, partitions=shape.partitions, concurrency=shape.concurrency, max_backlog=max_backlog)
    _doing_nothing(app)
    _sleeping(app)
    _saving(app)
    _walking(app, shape.ledger)
    return app


def _doing_nothing(app: App) -> None:
    @app.job("noop", queue=QUEUE, payload=Mail)
    def noop(ctx: Context, p: Mail) -> None:
        return None

    @app.job("noop_async", queue=QUEUE, payload=Mail)
    async def noop_async(ctx: AsyncContext, p: Mail) -> None:
        return None

    @app.job("stamp", queue=QUEUE, payload=Stamp)
    def stamp(ctx: Context, p: Stamp) -> None:
        SAMPLES.append((time.monotonic_ns() - p.at) / 1e6)

    @app.job("noop_due", queue=QUEUE, payload=Mail)
    def noop_due(ctx: Context, p: Mail) -> None:
        return None

    @app.job("stumble", queue=QUEUE, payload=Stumble, retry=Retry(2))
    def stumble(ctx: Context, p: Stumble) -> None:
        if ctx.attempt == 1:
            raise RetryableError("not yet", after=p.after)
        SAMPLES.append(time.time_ns() / 1e6 - (ctx._port.job.due_at or 0))


def _sleeping(app: App) -> None:
    @app.job("nap", queue=QUEUE, payload=Nap, key=lambda p: p.key)
    def nap(ctx: Context, p: Nap) -> None:
        time.sleep(NAP)
        if p.hot:
            SAMPLES.append(time.monotonic())

    @app.job("nap_async", queue=QUEUE, payload=Nap, key=lambda p: p.key)
    async def nap_async(ctx: AsyncContext, p: Nap) -> None:
        await asyncio.sleep(NAP)
        if p.hot:
            SAMPLES.append(time.monotonic())

    @app.job("rest", queue=QUEUE, payload=Nap)
    def rest(ctx: Context, p: Nap) -> None:
        time.sleep(NAP)


def _saving(app: App) -> None:
    @app.job("save", queue=QUEUE, payload=Count)
    def save(ctx: Context, p: Count) -> None:
        """Microseconds of one call, a thousand at a time."""
        numbers = range(1000)
        for _ in range(p.count // 1000):
            began = time.perf_counter()
            for number in numbers:
                ctx.checkpoint(number)
            SAMPLES.append((time.perf_counter() - began) * 1e6 / 1000)

    @app.job("save_durably", queue=QUEUE, payload=Count)
    def save_durably(ctx: Context, p: Count) -> None:
        for number in range(p.count):
            began = time.perf_counter()
            ctx.checkpoint(number, durable=True)
            SAMPLES.append((time.perf_counter() - began) * 1e3)

    @app.job("steps", queue=QUEUE, payload=Count)
    def steps(ctx: Context, p: Count) -> None:
        for number in range(p.count):
            ctx.step(f"s{number}", _same, number)

    @app.job("mixed", queue=QUEUE, payload=Mail)
    def mixed(ctx: Context, p: Mail) -> None:
        if p.order_id % SAVE_EVERY == 0:
            ctx.checkpoint(p.order_id, durable=True)


def _walking(app: App, ledger: str) -> None:
    opened: list[int] = []

    @app.job("walk", queue=QUEUE, payload=Count)
    def walk(ctx: Context, p: Count) -> None:
        """Note every item: job, item, process, monotonic seconds."""
        if not opened:
            opened.append(os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
        for item in ctx.each("rows", lambda after: range((after or 0) + 1, p.count + 1)):
            os.write(opened[0], f"{ctx.id} {item} {os.getpid()} {time.monotonic():.6f}\n".encode())
            time.sleep(NAP)


def _same(number: int) -> int:
    return number


app = build(shape_of())
