"""The same key from many processes, on a real Kafka: one run, one id."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)

CALLER = """
import sys
from processor import App
namespace, bootstrap, queue, count = sys.argv[1:]
from processor.wire.settings_sources import load_settings
app = App(namespace, settings=load_settings({"kafka.bootstrap": bootstrap}, env={}))
for _ in range(int(count)):
    handle = app.enqueue("walk", {"items": 1200, "pause": 0.01}, queue=queue, idempotency_key="order-7")
    print(handle.id, flush=True)
app.close()
"""


def callers(fleet: Fleet, count: int) -> subprocess.Popen[str]:
    """A process that enqueues the same key so often, and prints the id it holds each time."""
    command = [sys.executable, "-c", CALLER, fleet.namespace, fleet.bootstrap, QUEUE, str(count)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)


def ids_of(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next ids that it prints."""
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def running_in(fleet: Fleet) -> int:
    """The living process that handled the last item; 0: there is none."""
    alive = {process.pid for process in fleet.processes if process.alive}
    last = [line["pid"] for line in fleet.ledger("item")[-1:]]
    return last[0] if last and last[0] in alive else 0


def test_a_key_sent_100_times_by_4_processes_with_kills_runs_once(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    ids = []
    for round_ in range(4):
        four = [callers(fleet, 1000 if round_ % 2 else 6) for _ in range(4)]
        for process in four:
            ids += ids_of(process, 6 + (round_ == 3))
        for process in four:
            process.kill() if round_ % 2 else None
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if round_ < 2:
            # Whoever has the job; the other worker goes on with it.
            running = eventually(lambda: running_in(fleet), 60, fleet.describe)
            victim = next(process for process in fleet.processes if process.pid == running)
            victim.kill()
            fleet.start(victim.slot)
    assert len(ids) == 100
    assert len(set(ids)) == 1
    eventually(lambda: [end for end in fleet.ends() if end[0] == ids[0]], 60, fleet.describe)
    # Behind the end, too, and with the memory of it restored from the log by another process.
    fleet.worker("a").kill()
    fleet.worker("b").kill()
    fleet.start_ready("c")
    again = callers(fleet, 5)
    assert set(ids_of(again, 5)) == set(ids)
    again.communicate()
    eventually(lambda: not fleet.lag(), 40, fleet.describe)
    ends = {place: states for place, states in fleet.ends().items() if place[0] == ids[0]}
    assert len(ends) == 1, "one life"
    items = [line["item"] for line in fleet.ledger("item")]
    assert set(items) == set(range(1, 1201))
    starts = [line["cursor"] for line in fleet.ledger("start")]
    assert starts.count(0) == 1, "begun once; the others went on where it stopped"
