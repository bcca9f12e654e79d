"""Memory that only a collection frees is freed before it is much, and a producer keeps nothing of what it sent."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import tracemalloc
from collections import Counter
from collections.abc import Callable

import pytest

from processor import App, Context
from processor.broker.base import OutRecord
from processor.broker.memory import MemoryBroker
from processor.broker.partitioner import murmur2
from processor.errors import BrokerError
from processor.wire.settings import Settings

CYCLES = """
    import sys
    from processor.runtime.gc_tuning import GrowthWatch, collect_seldom

    collect_seldom()
    watch = GrowthWatch() if sys.argv[1] == "watched" else None
    class Node: ...
    for place in range(600):  # jobs, each with a cycle that holds 1 MB
        node = Node()
        node.me, node.data = node, b"x" * 1_000_000
        del node
        if watch is not None:  # the owner looks after each job of 2 ms, whatever the machine does
            watch.turn(place * 0.002)
    # Not ru_maxrss: that begins with the memory of the process that started this one.
    with open("/proc/self/status") as status:
        print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory in use is read from /proc")
def test_large_cycles_do_not_pile_up() -> None:
    def peak(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CYCLES), how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert peak("unwatched") > 500
    assert peak("watched") < 250


def test_a_producer_keeps_nothing_of_what_it_sent() -> None:
    broker = MemoryBroker()
    app = App("shop", settings=Settings(), broker=broker)
    broker.admin().create_topics(app.topic_plan())

    @app.job("plain")
    def plain(ctx: Context) -> None: ...

    def send(count: int) -> None:
        for _ in range(count):
            plain.enqueue()

    sent: Counter[str] = Counter()

    def append(record: OutRecord, on_delivery: Callable[[BrokerError | None], None] | None = None) -> None:
        sent[record.topic] += 1
        if on_delivery is not None:
            on_delivery(None)

    # What the log itself holds is not the producer's.
    app.client()._opened().producer.append = append  # type: ignore[method-assign]
    send(200)
    gc.collect()
    tracemalloc.start()
    try:
        murmur2.cache_clear()  # bounded, and not full yet
        before = tracemalloc.get_traced_memory()[0]
        send(5_000)
        murmur2.cache_clear()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert sent.total() == 5_200
    assert grown < 5_000 * 20, f"{grown / 5_000:.0f} bytes a job"
    app.close()
