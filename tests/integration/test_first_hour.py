"""The first hour: the usual mistakes, each with its cause and its cure in at most three lines."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Kafka
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    """Somebody's folder with the first job of the README in it."""
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "jobs.py").write_text(block.replace('App("shop")', f'App("{unique}")'))
    return tmp_path


@pytest.fixture
def dead() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def start(folder: Path, *command: str, bootstrap: str, **settings: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROCESSOR_")}
    environment |= {"PYTHONPATH": str(ROOT), "PROCESSOR_KAFKA__BOOTSTRAP": bootstrap, **settings}
    environment["PROCESSOR_WORKER__STATE_DIR"] = str(folder / "state")
    command = (sys.executable, *(("-m", "processor", *command[1:]) if command[0] == "processor" else command[1:]))
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def told(folder: Path, *command: str, bootstrap: str = "127.0.0.1:9", **settings: str) -> list[str]:
    """The lines on stderr of a command that ends by itself."""
    process = start(folder, *command, bootstrap=bootstrap, **settings)
    _, lines = process.communicate(timeout=200)
    assert process.returncode != 0
    return lines.splitlines()


@pytest.mark.parametrize("command", ["worker", "dev"])
def test_a_typo_in_the_module(folder: Path, command: str) -> None:
    lines = told(folder, "processor", command, "jbos.py:app")
    assert len(lines) == 2
    assert lines[0] == f"error: no file {folder / 'jbos.py'}"
    assert lines[1].startswith("hint: give ")


def test_a_typo_in_the_app(folder: Path) -> None:
    lines = told(folder, "processor", "worker", "jobs.py:ap")
    assert lines == ["error: jobs.py has no 'ap'", "hint: did you mean jobs.py:app?"]


@pytest.mark.parametrize(
    "command",
    [("processor", "job", "list", "--app", "jobs.py:app"), ("processor", "worker", "jobs.py:app", "--no-supervise")],
)
def test_no_broker(folder: Path, dead: int, command: tuple[str, ...]) -> None:
    address = f"127.0.0.1:{dead}"
    lines = told(folder, *command, bootstrap=address, PROCESSOR_KAFKA__REQUEST_TIMEOUT="2s")
    error, hint = lines[-2:]
    assert f"no Kafka broker at {address} answered in time: Connection refused" in error
    assert (
        hint
        == f"hint: check that Kafka runs and listens on {address}; `processor broker start` runs one on this machine"
    )


def test_no_broker_for_a_program(folder: Path, dead: int) -> None:
    address = f"127.0.0.1:{dead}"
    lines = told(folder, "python", "jobs.py", bootstrap=address, PROCESSOR_CLIENT__ENQUEUE_TIMEOUT="2s")
    said = [line for line in lines if line.startswith(("processor", "hint"))]
    assert len(said) <= 3
    assert f"no Kafka broker at {address} answered in time: Connection refused" in said[0]


def test_a_wrong_payload(folder: Path) -> None:
    (folder / "wrong.py").write_text('import jobs\njobs.import_rows.enqueue({"rows": "many"})\n')
    lines = told(folder, "python", "wrong.py")
    assert lines.count("Traceback (most recent call last):") == 1
    assert lines[-2].endswith("job type import.rows takes an instance of Import, not of dict")
    assert lines[-1] == "hint: write Import(...); app.enqueue('import.rows', ...) takes plain data and checks it"
    (folder / "wrong.py").write_text('import jobs\njobs.app.enqueue("import.rows", {"rows": "many"})\n')
    lines = told(folder, "python", "wrong.py")
    assert lines.count("Traceback (most recent call last):") == 1
    assert "rows: Input should be a valid integer" in lines[-2]


def test_a_port_in_use(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        lines = told(folder, "processor", "broker", "start", "--port", str(port), "--data", str(tmp_path / "kafka"))
    assert lines[-2].startswith(f"error: port {port} is in use")
    assert lines[-1].startswith("hint: ")


def test_a_handler_that_raises_and_ctrl_c(folder: Path, kafka: Kafka) -> None:
    jobs = folder / "jobs.py"
    jobs.write_text(jobs.read_text().replace("    total = 0\n", '    raise ValueError("no such customer")\n'))
    with (folder / "told").open("w") as out:
        command = [sys.executable, "-m", "processor", "dev", "jobs.py:app", "--bootstrap", kafka.bootstrap]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROCESSOR_WORKER__STATE_DIR": str(folder / "state")}
        dev = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    text = (folder / "told").read_text
    waiting = None
    try:
        eventually(lambda: "ready: now run `python jobs.py`" in text(), 150.0, text)
        waiting = start(folder, "python", "jobs.py", bootstrap=kafka.bootstrap)
        eventually(lambda: "job.failed" in text(), 100.0, text)
        [line] = [line for line in text().splitlines() if "job.failed" in line][:1]
        place = jobs.read_text().splitlines().index('    raise ValueError("no such customer")') + 1
        assert 'error="builtins.ValueError: no such customer"' in line
        assert f'jobs.py:{place} in import_rows" then="retry in ' in line

        waiting.send_signal(signal.SIGINT)
        _, lines = waiting.communicate(timeout=60)
        assert re.fullmatch(r"interrupted: job [0-9a-f-]+ goes on without being waited for\n", lines)
        assert waiting.returncode == -signal.SIGINT
        dev.send_signal(signal.SIGINT)
        assert dev.wait(60) == 0
        assert "dev: stopping; Ctrl-C again stops at once" in text()
        assert "Traceback" not in text()
    finally:
        for process in (dev, waiting):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
