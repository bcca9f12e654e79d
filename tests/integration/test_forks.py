"""What worker processes get from the process that they are forked from, and what they do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor import App
from processor.admin import apply_topics
from processor.broker.kafka import KafkaBroker, KafkaConfig
from tests.conftest import Kafka
from tests.waiting import eventually

JOBS = """
import os, random
from pathlib import Path
import numpy
from processor import App, Context

HERE = Path(__file__).parent
numpy.random.seed(7)
random.seed(7)
if (HERE / "threads").exists():
    import threading
    from confluent_kafka import Producer
    threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
    producer = Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
app = App("{namespace}")
app.queue("default", partitions=2)

@app.on_start
def started():
    with (HERE / "drawn").open("a") as file:
        file.write(f"{numpy.random.randint(2**31)} {random.random()}\\n")

@app.job("child", executor="process")
def in_child(ctx: Context) -> None: ...
"""


class Site:
    """A folder with an app and its topics."""

    def __init__(self, folder: Path, app: App, bootstrap: str) -> None:
        self.folder = folder
        self.app = app
        self.bootstrap = bootstrap
        self.log = folder / "worker.log"
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PROCESSOR_KAFKA__BOOTSTRAP": self.bootstrap,
            "PROCESSOR_WORKER__STATE_DIR": str(self.folder / "state"),
        }
        command = [sys.executable, "-m", "processor", "worker", "jobs.py:app", *arguments]
        with self.log.open("a") as log:
            self.workers.append(subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log))
        return self.workers[-1]

    def drawn(self, count: int) -> list[str]:
        """The numbers that so many processes have drawn, numpy's and Python's."""
        path = self.folder / "drawn"
        eventually(
            lambda: path.exists() and path.read_text().count("\n") >= count, 60.0, lambda: self.log.read_text("utf-8")
        )
        return path.read_text().split()

    def stop(self, worker: subprocess.Popen[bytes]) -> None:
        worker.terminate()
        assert worker.wait(60) == 0, self.log.read_text("utf-8")


@pytest.fixture
def site(kafka: Kafka, unique: str, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    app = App(unique, broker=KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)))
    app.queue("default", partitions=2)
    apply_topics(app.broker(), app.topic_plan())
    made = Site(tmp_path, app, kafka.bootstrap)
    yield made
    for worker in made.workers:
        worker.kill()
        worker.wait()
    app.close()


def test_no_two_processes_draw_the_same_numbers(site: Site) -> None:
    worker = site.start("--processes", "2")
    site.drawn(2)
    eventually(lambda: site.log.read_text("utf-8").count("worker.ready") == 2, 60.0)
    worker.send_signal(signal.SIGHUP)
    site.drawn(4)
    # A child process has imported the module by itself, and its seeds with it.
    site.app.enqueue("child", queue="default").result(timeout="60s")
    site.stop(worker)
    drawn = site.drawn(5)
    assert len(set(drawn)) == len(drawn) >= 10


def test_processes_without_a_supervisor_draw_other_numbers_too(site: Site) -> None:
    for count in (1, 2):
        worker = site.start("--no-supervise")
        site.drawn(count)
        site.stop(worker)
    assert len(set(site.drawn(2))) == 4


@pytest.mark.parametrize("supervise", ["--supervise", "--no-supervise"])
def test_threads_of_the_import_are_named(site: Site, supervise: str) -> None:
    (site.folder / "threads").touch()
    worker = site.start(supervise)
    site.drawn(1)
    told = [line for line in site.log.read_text("utf-8").splitlines() if "threads.before_fork" in line]
    assert len(told) == 1
    assert "poller" in told[0]
    assert "rdk:main" in told[0]
    assert "@app.on_start" in told[0]
    assert "signals" not in told[0]
    site.stop(worker)


def test_a_module_without_threads_is_told_nothing(site: Site) -> None:
    worker = site.start()
    site.drawn(1)
    site.stop(worker)
    assert "threads.before_fork" not in site.log.read_text("utf-8")
