"""What it costs a fresh process to ask for jobs that ended long ago, by the length of the status topic."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median

from confluent_kafka import Producer

from benchmarks.jobs import QUEUE
from benchmarks.rows import Row, at_most
from benchmarks.world import PATIENCE, Kit, World, world
from processor.app import App
from processor.job_ids import uuid7
from processor.states import State
from processor.wire.codec import encode
from processor.wire.records import StatusRecord
from processor.wire.settings_sources import load_settings
from processor.wire.topics import status_topic

ASKED = 1_000
RATE = 100
"""Jobs that ended in a second of the history."""
RUNS = 5


def old(kit: Kit) -> list[Row]:
    """1,000 jobs of the middle of a history of 100,000 and of one of 1,000,000 jobs: states, results, and one alone."""
    sizes = [kit.some(100_000, 10_000), kit.some(1_000_000, 100_000)]
    found: list[dict[str, float]] = []
    for size in sizes:
        with world(kit, f"asking-{size}") as here:
            ids = _history(here, size)
            runs = [_ask(here, ids) for _ in range(kit.some(RUNS, 3))]
            found.append({what: median(run[what] for run in runs) for what in runs[0]})
            kit.say(f"{size:,} jobs: {found[-1]}")
    small, large = found
    return [
        at_most(f"{what}: {sizes[1]:,} jobs by {sizes[0]:,}", large[what] / small[what], 1.5, "times") for what in small
    ] + [at_most(f"{what}, {sizes[1]:,} jobs", large[what], 5.0, "s") for what in large]


def _history(here: World, size: int) -> list[str]:
    """Status records of succeeded jobs, `RATE` a second up to now; the ids of the asked ones."""
    producer = Producer(
        {
            "bootstrap.servers": here.kit.bootstrap,
            "linger.ms": 20,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 500_000,
        }
    )
    topic = status_topic(here.namespace)
    now = time.time_ns() // 1_000_000
    first = (size - ASKED) // 2
    asked: list[str] = []
    for number in range(size):
        began = now - (size - number) * 1000 // RATE
        job_id = uuid7(began)
        end = began + 300
        status = StatusRecord(job_id, 1, "noop", QUEUE, State.SUCCEEDED, end, 1, "host/0", b'{"n":7}')
        while True:
            try:
                producer.produce(topic, encode(status), job_id.encode(), timestamp=end)
            except BufferError:
                producer.poll(0.1)
            else:
                break
        if first <= number < first + ASKED:
            asked.append(job_id)
    if producer.flush(PATIENCE):
        raise RuntimeError("the history was not written")
    return asked


def _ask(here: World, ids: list[str]) -> dict[str, float]:
    """Seconds, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.asking", here.kit.bootstrap, here.namespace]
    done = subprocess.run(command, input="\n".join(ids), check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def main() -> None:
    """The process that asks: ids come on stdin, times go to stdout."""
    bootstrap, namespace = sys.argv[1:]
    ids = sys.stdin.read().split()
    told: dict[str, float] = {}

    def fresh() -> App:
        return App(namespace, settings=load_settings({"kafka.bootstrap": bootstrap}, env={}))

    def timed(what: str, app: App, asked: list[str], *, results: bool = False) -> None:
        began = time.perf_counter()
        for handle in [app.handle(job_id) for job_id in asked]:
            if results:
                assert handle.result(timeout=PATIENCE) == {"n": 7}
            else:
                assert handle.status().state is State.SUCCEEDED
        told[what] = time.perf_counter() - began

    app = fresh()
    timed("one finished job", app, ids[500:501])
    app.close()
    app = fresh()
    timed("1,000 finished jobs", app, ids)
    app.close()
    app = fresh()
    timed("1,000 results", app, ids[::-1], results=True)
    app.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
