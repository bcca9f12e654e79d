"""Producers against the limit of a queue, on a real Kafka."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from processor.app import App
from processor.broker.base import TopicPartition
from processor.client.backlog import QueueFull
from processor.client.handles import Handle
from processor.wire.settings_sources import load_settings
from processor.wire.topics import jobs_topic
from tests.integration.fleet import QUICK, Fleet
from tests.integration.jobs_app import PARTITIONS, QUEUE
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)

LIMIT = 20_000
PRODUCER = """
import sys
from processor import App, QueueFull
from processor.wire.settings_sources import load_settings
namespace, bootstrap, queue, limit, many = sys.argv[1:]
app = App(namespace, settings=load_settings({"kafka.bootstrap": bootstrap}, env={}))
app.queue(queue, partitions=4, max_backlog=int(limit))
accepted = 0
try:
    while True:
        app.enqueue("strict", {"amount": 1}, queue=queue, wait=False)
        accepted += 1
except QueueFull as error:
    assert error.backlog >= error.limit, error
left = app.close()
assert left == [], left
print(accepted)
"""


def limited(fleet: Fleet, limit: int) -> App:
    """A producer's app."""
    settings = load_settings({**QUICK, "kafka.bootstrap": fleet.bootstrap}, env={})
    app = App(fleet.namespace, settings=settings)
    app.queue(QUEUE, partitions=PARTITIONS, max_backlog=limit)
    return app


def in_log(fleet: Fleet) -> int:
    """Records in the normal lane."""
    places = [TopicPartition(jobs_topic(fleet.namespace, QUEUE), number) for number in range(PARTITIONS)]
    return sum(fleet.broker.admin().end_offsets(places).values())


def test_four_producers_keep_to_a_limit_and_nothing_they_took_is_lost(fleet: Fleet) -> None:
    command = [sys.executable, "-c", PRODUCER, fleet.namespace, fleet.bootstrap, QUEUE, str(LIMIT), ""]
    folder = Path(__file__).parents[2]
    producers = [subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    accepted = [int(process.communicate()[0]) for process in producers]
    assert all(process.returncode == 0 for process in producers)
    assert sum(accepted) == in_log(fleet), "none of the accepted jobs is lost"
    assert LIMIT <= sum(accepted) <= LIMIT * 1.1


def test_an_enqueue_that_waits_goes_on_as_workers_make_room(fleet: Fleet) -> None:
    app = limited(fleet, 200)

    def fill() -> None:
        for _ in range(1000):
            app.enqueue("strict", {"amount": 1}, queue=QUEUE, wait=False)

    with pytest.raises(QueueFull):
        fill()
    handles: list[Handle[Any]] = []
    thread = threading.Thread(
        target=lambda: handles.extend(
            app.enqueue("strict", {"amount": 1}, queue=QUEUE, when_full="wait") for _ in range(300)
        )
    )
    thread.start()
    fleet.start_ready("a")
    eventually(lambda: not thread.is_alive(), 90, fleet.describe)
    thread.join()
    assert len(handles) == 300
    assert {handle.wait("60s").state.value for handle in handles} == {"succeeded"}
    assert app.close() == []
