"""What handlers print, in a pipe: there at once, and nothing of it is lost when the worker stops."""

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

JOBS = """
import asyncio, sys, time
from processor import App, AsyncContext, Context

app = App("{namespace}")
app.queue("default", partitions=1)
print("imported")

def walk(ctx):
    print("a whole line")
    sys.stdout.write("half a line")
    while True:
        ctx.checkpoint(None)
        time.sleep(0.01)

@app.job("thread")
def in_thread(ctx: Context) -> None:
    walk(ctx)

@app.job("child", executor="process")
def in_child(ctx: Context) -> None:
    walk(ctx)

@app.job("async")
async def in_loop(ctx: AsyncContext) -> None:
    print("a whole line")
    sys.stdout.write("half a line")
    while True:
        await ctx.checkpoint(None)
        await asyncio.sleep(0.01)
"""


@pytest.fixture
def app(kafka: Kafka, unique: str, tmp_path: Path) -> Iterator[App]:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    app = App(unique, broker=KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)))
    app.queue("default", partitions=1)
    apply_topics(app.broker(), app.topic_plan())
    yield app
    app.close()


@pytest.mark.parametrize(
    ("job_type", "supervise"),
    [("thread", "--supervise"), ("thread", "--no-supervise"), ("child", "--supervise"), ("async", "--no-supervise")],
)
def test_what_handlers_print_is_there_at_once_and_not_lost_at_a_stop(
    app: App, kafka: Kafka, tmp_path: Path, job_type: str, supervise: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PROCESSOR_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "PROCESSOR_WORKER__STATE_DIR": str(tmp_path / "state"),
    }
    command = [sys.executable, "-m", "processor", "worker", "jobs.py:app", supervise]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=log) as worker,
    ):
        assert worker.stdout is not None
        try:
            assert worker.stdout.readline() == b"imported\n"
            app.enqueue(job_type, queue="default")
            line = worker.stdout.readline()
            if job_type == "child":  # it has imported the module by itself
                assert line == b"imported\n"
                line = worker.stdout.readline()
            assert line == b"a whole line\n"
            worker.send_signal(signal.SIGTERM)
            assert worker.stdout.read() == b"half a line"
            assert worker.wait(60) == 0, (tmp_path / "log").read_text()
        finally:
            worker.kill()
