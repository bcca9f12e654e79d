"""Critical jobs while no broker answers, with a producer that is killed: all there, in order, once."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from processor.broker.base import TopicPartition
from processor.wire.codec import decode_job
from processor.wire.topics import jobs_topic
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

COUNT = 5_000
PRODUCER = """
import sys
from processor import App
from processor.wire.settings_sources import load_settings
namespace, bootstrap, queue, folder, first, count = sys.argv[1:]
told = {"kafka.bootstrap": bootstrap, "client.spool_dir": folder, "client.critical_timeout": "1s"}
app = App(namespace, settings=load_settings(told, env={}))
for number in range(int(first), int(first) + int(count)):
    app.enqueue("keyed", {"key": "k"}, queue=queue, key="k", id=f"job-{number}", critical=True)
    print(number, flush=True)
print("done", flush=True)
if sys.stdin.readline().strip() == "close":
    assert app.close() == []
"""


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def producer(fleet: Fleet, bootstrap: str, folder: Path, first: int, count: int) -> subprocess.Popen[str]:
    """A process that enqueues these jobs, one after the other."""
    told = [fleet.namespace, bootstrap, QUEUE, str(folder), str(first), str(count)]
    return subprocess.Popen(
        [sys.executable, "-c", PRODUCER, *told],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def told_by(process: subprocess.Popen[str], count: int) -> int:
    """Wait for so many enqueues; the last number."""
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)][-1]


def ids_in(fleet: Fleet) -> list[str]:
    """The ids in the lane of the key, in order."""
    place = TopicPartition(jobs_topic(fleet.namespace, QUEUE), fleet.number_of("k"))
    end = fleet.broker.admin().end_offsets([place])[place]
    reader = fleet.broker.reader()
    reader.assign({place: 0})
    ids: list[str] = []
    while reader.position(place) < end:
        ids += [decode_job(record.value() or b"").id for record in reader.fetch(2000, 0.5).records]
    reader.close()
    return ids


def test_critical_jobs_outlive_an_outage_and_two_deaths_of_their_producer(
    fleet: Fleet, nowhere: str, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    # Away: killed in the middle, twice.
    known = 0
    for count in (1_500, 2_500):
        process = producer(fleet, nowhere, folder, known, COUNT)
        known = told_by(process, count) + 1
        process.kill()
        process.communicate()
    # Back: what the dead left goes first, then what is new.
    process = producer(fleet, fleet.bootstrap, folder, known, COUNT - known)
    told_by(process, COUNT - known)
    eventually(lambda: len(set(ids_in(fleet))) >= COUNT, 90, lambda: str(len(set(ids_in(fleet)))))
    process.communicate("close\n")
    assert process.returncode == 0
    found = list(dict.fromkeys(ids_in(fleet)))
    numbers = [int(job_id.removeprefix("job-")) for job_id in found]
    assert numbers == sorted(numbers), "in order"
    assert set(range(COUNT)) <= set(numbers), "all there"
    assert list(folder.glob("*.spool")) == []
    fleet.start_ready("a")
    fleet.finish(found)
    ran = [line["job"] for line in fleet.ledger("end")]
    assert len(ran) == len(set(ran)) == len(found), "once"
    assert ran == found


def test_without_a_spool_a_critical_enqueue_says_so_at_once(nowhere: str, fleet: Fleet) -> None:
    script = """
import sys
from processor import App
from processor.errors import EnqueueError
from processor.wire.settings_sources import load_settings
told = {"kafka.bootstrap": sys.argv[2], "client.critical_timeout": "1s"}
app = App(sys.argv[1], settings=load_settings(told, env={}))
hint = app.job("hint", critical=False)(lambda ctx: None)
codes = set()
while "log_unreachable" not in codes:
    try:
        app.enqueue("pay", queue="q", critical=True)
    except EnqueueError as error:
        codes.add(error.code)
print(sorted(codes))
for _ in range(20_000):
    hint.enqueue()
print(hint.not_sent > 0)
"""
    told = [sys.executable, "-c", script, fleet.namespace, nowhere]
    process = subprocess.run(told, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    lines = process.stdout.split("\n")
    assert lines[0] in ("['enqueue_unconfirmed', 'log_unreachable']", "['log_unreachable']"), process.stderr
    assert lines[1] == "True"
