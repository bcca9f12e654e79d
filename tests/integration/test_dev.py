"""`processor dev` on a real Kafka: what it says, and when it ends by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import Kafka
from tests.waiting import eventually

JOBS = """
from processor import App, Context

app = App("{namespace}")
app.queue("default", partitions=1)

@app.job("noop")
def noop(ctx: Context) -> None: ...
"""


def start(folder: Path, kafka: Kafka) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PROCESSOR_WORKER__STATE_DIR": str(folder / "state"),
    }
    command = [sys.executable, "-m", "processor", "dev", "jobs.py:app", "--bootstrap", kafka.bootstrap]
    with (folder / "told").open("wb") as told:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=told, stderr=told)


def test_it_says_when_it_is_ready_and_what_to_run(kafka: Kafka, unique: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    dev = start(tmp_path, kafka)
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
    dev = start(tmp_path, kafka)
    try:
        assert dev.wait(100) == 2
        told = (tmp_path / "told").read_text()
        assert "jobs.py does not load: ModuleNotFoundError: No module named 'surely_not_installed'" in told
        assert "mend it, and start again" in told
    finally:
        dev.kill()
        dev.wait()
