"""Producers while the broker is really stopped and started: critical jobs and rows of an outbox, all there, once.

Nobody is spared: the producer is killed twice while the broker is down, the outbox's relay once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import func, select

from processor.broker.dev import DevBroker
from processor.outbox.relay import create, open_database
from processor.outbox.table import jobs
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE
from tests.integration.test_critical import PRODUCER as CRITICAL
from tests.integration.test_critical import ids_in
from tests.postgres import postgres
from tests.waiting import eventually

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

COUNT = 5_000
STORING = """
import sys
from processor import App
from processor.wire.settings_sources import load_settings
from processor.outbox.relay import open_database
namespace, bootstrap, queue, database, first, count = sys.argv[1:]
app = App(namespace, settings=load_settings({"kafka.bootstrap": bootstrap}, env={}))
engine = open_database(database)
for number in range(int(first), int(first) + int(count)):
    with engine.begin() as sql:
        app.enqueue("keyed", {"key": "k"}, queue=queue, key="k", id=f"job-{number}", session=sql)
    print(number, flush=True)
print("done", flush=True)
if sys.stdin.readline().strip() == "close":
    assert app.close() == []
"""


@pytest.fixture
def running() -> Iterator[ExitStack]:
    """Ends what a test has started."""
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, *words: str) -> subprocess.Popen[str]:
    """A process of Python."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, *words], cwd=Path(__file__).parents[2], stdin=pipe, stdout=pipe, text=True
    )
    stack.callback(ended, process)
    return process


def ended(process: subprocess.Popen[str]) -> None:
    """Kill it."""
    process.kill()
    process.communicate()


def told_by(process: subprocess.Popen[str], count: int) -> int:
    """Wait for so many enqueues; the last number."""
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)][-1]


def ran_once(fleet: Fleet) -> None:
    """Everything that was enqueued runs, once, in its order."""
    fleet.reconnect()
    found = list(dict.fromkeys(ids_in(fleet)))
    assert found == [f"job-{number}" for number in range(COUNT)], "all there, in order"
    fleet.start_ready("a")
    fleet.finish(found, 240)
    fleet.settle()
    ran = [line["job"] for line in fleet.ledger("end")]
    assert ran == found, "once, in order"


def test_critical_jobs_over_a_stopped_broker_with_a_producer_that_is_killed_twice(
    own_fleet: Fleet, own_broker: DevBroker, running: ExitStack, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"

    def producer(first: int, count: int) -> subprocess.Popen[str]:
        told = [own_fleet.namespace, own_fleet.bootstrap, QUEUE, str(folder), str(first), str(count)]
        return started(running, "-c", CRITICAL, *told)

    # 1. All is well for a while; then the broker stops, and the producer goes on, and is killed.
    first = producer(0, COUNT)
    known = told_by(first, 500)
    own_broker.stop()
    known = told_by(first, 1_500)
    ended(first)
    # 2. The next one knows no broker at all, and is killed too.
    second = producer(known + 1, COUNT)
    known = told_by(second, 1_500)
    ended(second)
    # 3. The third begins without a broker; it comes back while this one enqueues.
    third = producer(known + 1, COUNT - known - 1)
    told_by(third, 200)
    own_broker.restart()
    told_by(third, COUNT - known - 201)
    eventually(lambda: not list(folder.glob("*.spool")) or _is_sent(folder), 120, lambda: str(list(folder.iterdir())))
    third.communicate("close\n", timeout=120)
    assert third.returncode == 0
    assert list(folder.iterdir()) == []
    ran_once(own_fleet)


def _is_sent(folder: Path) -> bool:
    """Only the living producer's own file is left, and nothing is in it."""
    return [path.stat().st_size for path in folder.glob("*.spool")] == [0]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database with an outbox."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            (tmp_path / "shop.sqlite").touch()
            url = f"sqlite:///{tmp_path / 'shop.sqlite'}"
        else:
            url = stack.enter_context(postgres())
        engine = open_database(url)
        create(engine)
        yield url
        jobs.drop(engine)
        engine.dispose()


def test_an_outbox_over_a_stopped_broker_with_producers_and_a_relay_that_are_killed(
    own_fleet: Fleet, own_broker: DevBroker, running: ExitStack, database: str
) -> None:
    engine = open_database(database)
    running.callback(engine.dispose)

    def producer(first: int, count: int) -> subprocess.Popen[str]:
        told = [own_fleet.namespace, own_fleet.bootstrap, QUEUE, database, str(first), str(count)]
        return started(running, "-c", STORING, *told)

    def relay() -> subprocess.Popen[str]:
        where = ["--database", database, "--namespace", own_fleet.namespace, "--bootstrap", own_fleet.bootstrap]
        return started(running, "-m", "processor", "outbox", "run", *where)

    def waits() -> int:
        with engine.connect() as sql:
            return sql.execute(select(func.count()).select_from(jobs)).scalar_one()

    # 1. Both at work: rows come and go. The broker stops; the producer goes on, and is killed.
    sender, first = relay(), producer(0, COUNT)
    told_by(first, 300)
    eventually(lambda: ids_in(own_fleet), 60, "the relay sends")
    own_broker.stop()
    known = told_by(first, 1_200)
    ended(first)
    # 2. The next producer as well; and the relay, which has tried in vain, in the middle of its try.
    second = producer(known + 1, COUNT)
    known = told_by(second, 1_500)
    ended(second)
    ended(sender)
    assert waits() >= 2_000, "nothing is deleted that no broker has"
    # 3. A relay that begins without a broker sends when it is back.
    sender, third = relay(), producer(known + 1, COUNT - known - 1)
    told_by(third, 200)
    own_broker.restart()
    told_by(third, COUNT - known - 201)
    eventually(lambda: waits() == 0, 180, lambda: f"{waits()} rows wait")
    third.communicate("close\n", timeout=60)
    assert third.returncode == 0
    sender.terminate()
    assert sender.wait(60) == 0
    ran_once(own_fleet)
