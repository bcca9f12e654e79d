"""The app that the workers of the integration tests run. Every handler writes to a ledger outside Kafka.

The ledger is a file of JSON lines that all processes append to, one `write` per line, so nobody waits for a lock that a
frozen process holds. `at` is the machine's monotonic clock, the same in every process.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, Field

from processor import App, Backoff, Context, Dead, Retry
from processor.wire.settings import Settings
from tests.integration import bad_jobs, late_jobs

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


class Flaky(BaseModel):
    """A walk over `items` rows that fails at row `at` in its first `times` attempts."""

    items: int
    at: int
    times: int


class Order(BaseModel):
    """An order that a person may ask for by its number."""

    order_id: int
    amount: int


class Rows(BaseModel):
    """A file with one row a line, and the row that cannot be taken in until the fix is out."""

    path: str
    bad: int
    rows: int


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

    for declare in (_walks, _steps, _sleeps, _keyed, _refusable, _failing, _ordered, _late, _deadly, _overdue):
        declare(app)
    bad_jobs.declare(app, QUEUE)
    late_jobs.declare(app, QUEUE, note)
    if os.environ.get("JOBS_TRACES"):
        _trace_to(os.environ["JOBS_TRACES"])
    if os.environ.get("JOBS_NEWER"):
        _newer(app)
    if os.environ.get("JOBS_SCHEDULE"):
        leaf = app.job_types["leaf"]
        app.schedule("tick", leaf, payload=Count(count=1), every=os.environ["JOBS_SCHEDULE"], overlap="queue")
    return app


def _trace_to(path: str) -> None:
    """Configure tracing, as a user's module does; each span is a line of a file."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter as Exporter
    from opentelemetry.sdk.trace.export import SpanExportResult as Result

    class Lines(Exporter):
        def export(self, spans: Sequence[ReadableSpan]) -> Result:
            with Path(path).open("a") as file:
                for span in spans:
                    context, parent = span.get_span_context(), span.parent
                    links = [(link.context.trace_id, link.context.span_id) for link in span.links]
                    line = {
                        "name": span.name,
                        "pid": os.getpid(),
                        "trace": context and context.trace_id,
                        "links": links,
                    }
                    line |= {"parent": parent and parent.span_id, **(span.attributes or {})}
                    file.write(json.dumps(line) + "\n")
            return Result.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Lines()))
    trace.set_tracer_provider(provider)


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
        opened = gate(p.key)
        for turn in ctx.each("turns", lambda after: range((after or 0) + 1, 1_000_000), every="200ms"):
            if turn < 0 or opened.exists():
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


def gate(name: str) -> Path:
    """A file by which a test tells handlers something."""
    return Path(os.environ["JOBS_LEDGER"]).with_name(f"gate-{name}")


def _failing(app: App) -> None:
    quick = Retry(3, Backoff("1s", "1s"))

    @app.job("flaky", queue=QUEUE, payload=Flaky, retry=quick)
    def flaky(ctx: Context, p: Flaky) -> int:
        note(ctx, "start", attempt=ctx.attempt)
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, p.items + 1), every="50ms"):
            if row == p.at and ctx.attempt <= p.times:
                raise ConnectionError(f"row {row}: the service does not answer")
            note(ctx, "item", item=row)
        return p.items

    @app.job("rows", queue=QUEUE, payload=Rows, retry=quick)
    def rows(ctx: Context, p: Rows) -> int:
        """Reads a file from the byte after the last row that was saved."""

        def read(after: list[int] | None) -> Iterator[list[int]]:
            line, place = after or (0, 0)
            note(ctx, "reads", after=line)
            with Path(p.path).open("rb") as file:
                file.seek(place)
                for text in file:
                    line, place = line + 1, place + len(text)
                    assert int(text) == line
                    yield [line, place]

        count = 0
        for line, _ in ctx.each("lines", read, cursor=list, every="200ms", total=p.rows):
            if line == p.bad and not gate("fixed").exists():
                raise ValueError(f"row {line} has no amount")
            count = line
        return count


def _ordered(app: App) -> None:
    @app.job("order", queue=QUEUE, payload=Order, search=["order_id"], retry=Retry(1))
    def order(ctx: Context, p: Order) -> int:
        note(ctx, "start")
        if p.amount < 0:
            raise ValueError(f"order {p.order_id}: amount {p.amount} is negative")
        if p.amount == 0 and not gate("bank").exists():
            raise ConnectionError("the bank does not answer")
        return p.amount


def _late(app: App) -> None:
    @app.job("fails.once", queue=QUEUE, retry=Retry(5, Backoff("10m")))
    def fails_once(ctx: Context) -> None:
        note(ctx, "start")
        if ctx.attempt == 1:
            raise ValueError("the first attempt fails")


def _deadly(app: App) -> None:
    @app.job("poison", queue=QUEUE)
    def poison(ctx: Context) -> None:
        note(ctx, "start")
        time.sleep(0.2)
        if not gate("fixed").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    @app.job("hungry", queue=QUEUE, retry=Retry(3, Backoff("1s")).on(MemoryError, Dead("out of memory")))
    def hungry(ctx: Context) -> None:
        raise MemoryError("no room left")


def _overdue(app: App) -> None:
    @app.job("deaf", queue=QUEUE, payload=Keyed, retry=Retry(1), attempt_timeout="1s")
    def deaf(ctx: Context, p: Keyed) -> None:
        """Hears of nothing until a test lets it go."""
        note(ctx, "start")
        while not gate(p.key).exists():
            time.sleep(0.02)
        note(ctx, "end")

    @app.job("deaf-child", queue=QUEUE, executor="process", retry=Retry(2, Backoff("1s")), attempt_timeout="1s")
    def deaf_child(ctx: Context) -> None:
        ctx.step("before", note, ctx, "effect", step=1)
        note(ctx, "start")
        time.sleep(600)

    @app.job("silent", queue=QUEUE, retry=Retry(1), stall_timeout="1s")
    def silent(ctx: Context) -> None:
        note(ctx, "start")
        while not ctx.cancelled:
            time.sleep(0.02)
        ctx.checkpoint(1)

    @app.job("dated", queue=QUEUE, retry=Retry(50, Backoff("1s")), kill_after="3s")
    def dated(ctx: Context) -> None:
        note(ctx, "start")
        raise ConnectionError("not today")

    @app.job("child-walk", queue=QUEUE, payload=Walk, executor="process")
    def child_walk(ctx: Context, p: Walk) -> None:
        note(ctx, "start")
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, p.items + 1), every="50ms"):
            note(ctx, "item", item=row)
            time.sleep(p.pause)


def _newer(app: App) -> None:
    @app.job("added", queue=QUEUE, payload=Count)
    def added(ctx: Context, p: Count) -> int:
        note(ctx, "start", count=p.count)
        return p.count


app = build(os.environ.get("JOBS_NAMESPACE", "unset"))
