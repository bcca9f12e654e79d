"""The example that survives crashes in a test of a moment, unchanged on a real Kafka."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from processor.admin import apply_topics, saved_progress
from processor.broker.kafka import KafkaBroker, KafkaConfig
from tests.conftest import Kafka
from tests.loading import load_file
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
ROWS = 300_000

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def example(kafka: Kafka, unique: str, tmp_path: Path) -> Iterator[ModuleType]:
    """The example with topics of its own: nothing but its namespace is another."""
    text = (ROOT / "examples" / "resume-import" / "example.py").read_text("utf-8")
    assert 'App("resume-import")' in text
    path = tmp_path / "example.py"
    path.write_text(text.replace('App("resume-import")', f'App("{unique}")'), "utf-8")
    module = load_file(path, "example_resume_import_on_kafka")
    module.app.bind(KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)))
    apply_topics(module.app.broker(), module.app.topic_plan())
    yield module
    module.app.close()


def test_import_resumes_after_its_worker_process_was_killed(example: ModuleType, kafka: Kafka, tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text("".join(f"order-{n},{-50 if n % 1000 == 0 else 100}\n" for n in range(1, ROWS + 1)), "utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PROCESSOR_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "PROCESSOR_WORKER__STATE_DIR": str(tmp_path / "state"),
    }
    command = [sys.executable, "-m", "processor", "worker", "example.py:app", "--no-supervise", "--instance", "one"]

    def start(log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)

    def saved() -> int:
        found = saved_progress(example.app.broker(), example.app.namespace, "imports", handle.id)
        loops = found.progress.loops if found is not None and found.progress is not None else None
        return loops["rows"].items if loops and "rows" in loops else 0

    handle = example.import_orders.enqueue(example.Import(path=orders))
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    processes = [start(logs[0])]
    try:
        reached = eventually(saved, 60.0, lambda: logs[0].read_text("utf-8"))
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert 0 < reached < ROWS
        processes.append(start(logs[1]))
        refunds = ROWS // 1000
        expected = example.Tally(orders=ROWS, refunds=refunds, cents=(ROWS - refunds) * 100 - refunds * 50)
        assert handle.result(timeout="60s") == expected
    finally:
        for process in processes:
            process.kill()
            process.wait()
    reports = [line for log in logs for line in log.read_text("utf-8").splitlines() if line.startswith("report: ")]
    assert reports == [f"report: {ROWS} orders, {refunds} refunds"]
