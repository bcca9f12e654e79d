"""How long until a job starts, and until what it saves is safe."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.jobs import Stamp
from benchmarks.rows import Row, at_most, percentile
from benchmarks.world import Kit, World, world
from processor.job import Lane
from processor.job_types import JobType

PER_SECOND = 500
WARM_UP = 500
"""Jobs before those that count."""


def start(kit: Kit) -> list[Row]:
    """From the call of `enqueue` in one process to the first line of the handler in another, at a steady 500/s."""
    count = kit.some(10_000, 1_000)
    with world(kit, "latency") as here:
        engine = here.engine(expect_samples=count + WARM_UP)
        engine.wait_active()
        _steadily(here, count + WARM_UP)
        samples = engine.report().samples
    if len(samples) < count + WARM_UP:
        raise RuntimeError(f"{len(samples)} of {count + WARM_UP} jobs ran")
    steady = samples[WARM_UP:]
    return [
        at_most("enqueue to start, 500/s, p50", median(steady), 3, "ms"),
        at_most("enqueue to start, 500/s, p99", percentile(steady, 0.99), 20, "ms"),
    ]


def _steadily(here: World, count: int) -> None:
    stamp: JobType[Stamp, None] = here.app.job_types["stamp"]
    began = time.monotonic()
    for number in range(count):
        wait = began + number / PER_SECOND - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        stamp.enqueue(Stamp(at=time.monotonic_ns()), wait=False)


def due(kit: Kit) -> list[Row]:
    """A record in the due lane of a worker that is busy with a long backlog of 10 ms jobs."""
    backlog, samples = kit.some(500_000, 20_000), kit.some(40, 10)
    with world(kit, "due") as here:
        here.fill(here.job("rest", {"key": ""}) for _ in range(backlog))
        engine = here.engine(expect_samples=samples)
        engine.wait_active()
        time.sleep(1.0)
        producer = here.broker.producer()
        for _ in range(samples):
            producer.append(here.record(here.job("stamp", {"at": time.monotonic_ns()}), Lane.DUE))
            time.sleep(0.1)
        producer.flush(10)
        producer.close()
        report = engine.report()
    if len(report.samples) < samples or report.finished >= backlog:
        raise RuntimeError(f"{len(report.samples)} of {samples} due jobs ran, backlog {report.finished} of {backlog}")
    kit.say(f"due: median {median(report.samples) / 1e3:.2f} s, {report.finished:,} of {backlog:,} others finished")
    return [at_most(f"a due job behind {backlog:,}, slowest of {samples}", max(report.samples) / 1e3, 1, "s")]


def checkpoint(kit: Kit) -> list[Row]:
    """`ctx.checkpoint(number)`, write-behind; then durable, by one caller and by a hundred."""
    with world(kit, "save") as here:
        here.fill([here.job("save", {"count": kit.some(300_000, 20_000)})])
        behind = here.engine(expect=1).report().samples
    rows = [at_most("checkpoint(), write-behind, per call", sum(behind) / len(behind), 3, "us")]
    for callers, limit in ((1, 10), (100, 15)):
        each = kit.some(500 if callers == 1 else 100, 20)
        with world(kit, "durable") as here:
            here.fill(here.job("save_durably", {"count": each}) for _ in range(callers))
            waits = here.engine(expect=callers).report().samples
        name = f"checkpoint(durable=True), {callers} caller{'s' if callers > 1 else ''}, p50"
        kit.say(f"{name}: p99 {percentile(waits, 0.99):.1f} ms")
        rows.append(at_most(name, median(waits), limit, "ms"))
    return rows
