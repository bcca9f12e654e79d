"""`processor dev` on a real Kafka: what it says, and when it ends by itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from processor import App
from processor.broker.dev import DevBroker
from processor.broker.kafka import KafkaBroker, KafkaConfig
from tests.conftest import Kafka
from tests.waiting import eventually

JOBS = """
from processor import App, Context

app = App("{namespace}")
app.queue("default", partitions=1)

@app.job("noop")
def noop(ctx: Context) -> None: ...
"""


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PROCESSOR_WORKER__STATE_DIR": str(folder / "state"),
    }
    command = [sys.executable, "-m", "processor", "dev", "jobs.py:app", *options]
    with (folder / "told").open("wb") as told:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=told, stderr=told)


def test_it_says_when_it_is_ready_and_what_to_run(kafka: Kafka, unique: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    dev = start(tmp_path, "--bootstrap", kafka.bootstrap)
    try:
        told = tmp_path / "told"
        eventually(lambda: "ready: now run `python jobs.py`" in told.read_text(), 100.0, lambda: told.read_text())
        assert "worker.ready" in told.read_text()
        dev.terminate()
        assert dev.wait(60) == 0, told.read_text()
    finally:
        dev.kill()
        dev.wait()


def test_a_module_that_cannot_be_loaded_ends_it(kafka: Kafka, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("import surely_not_installed\n")
    dev = start(tmp_path, "--bootstrap", kafka.bootstrap)
    try:
        assert dev.wait(100) == 2
        told = (tmp_path / "told").read_text()
        assert "jobs.py does not load: ModuleNotFoundError: No module named 'surely_not_installed'" in told
        assert "mend it, and start again" in told
    finally:
        dev.kill()
        dev.wait()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_first_start_brings_its_own_kafka_without_a_word_of_complaint(unique: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = tmp_path / "kafka"
    dev = start(tmp_path, "--port", str(port), "--data", str(data))
    told = (tmp_path / "told").read_text
    try:
        eventually(lambda: "ready: now run `python jobs.py`" in told(), 200.0, told)
        assert f"export PROCESSOR_KAFKA__BOOTSTRAP=127.0.0.1:{port}" in told()
        assert DevBroker.at(data).is_running()
        app = App(unique, broker=KafkaBroker(KafkaConfig(bootstrap=f"127.0.0.1:{port}")))
        handle = app.enqueue("noop", queue="default")
        handle.result(timeout="60s")
        eventually(lambda: f"job.succeeded job_type=noop job_id={handle.id}" in told(), 60.0, told)
        app.close()
        dev.send_signal(signal.SIGINT)
        assert dev.wait(60) == 0, told()
        assert not DevBroker.at(data).is_running()
        assert [line for line in told().splitlines() if "warning" in line.lower() or "error" in line.lower()] == []
    finally:
        dev.kill()
        dev.wait()
