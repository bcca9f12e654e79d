"""The real command on a real Kafka: create topics, start a worker and jobs, watch them, ask the doctor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Kafka
from tests.waiting import eventually

# Some twenty processes, one after the other.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

JOBS = """
import time
from pathlib import Path
from pydantic import BaseModel
from processor import App, Context, Retry

app = App("{namespace}")
app.queue("default", partitions=1)
app.queue("bulk", partitions=2)

class Import(BaseModel):
    rows: int
    until: str = ""

@app.job("import.file", queue="bulk", payload=Import)
def import_file(ctx: Context, p: Import) -> dict:
    ctx.step("head", str.upper, "head")
    rows = lambda after: range((after or 0) + 1, p.rows + 1)
    for row in ctx.each("rows", rows, cursor=lambda row: row, every="50ms", total=p.rows):
        while row == 50 and p.until and not Path(p.until).exists():
            time.sleep(0.02)
        # Slow enough for a status with progress.
        time.sleep(0.01 if p.until else 0)
    return {{"rows": p.rows}}

@app.job("fail", retry=Retry(1))
def fail(ctx: Context) -> None:
    raise ValueError("no such customer")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """Where the commands are typed."""

    folder: Path
    env: Mapping[str, str]

    def popen(self, *args: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "processor", *args],
            cwd=self.folder,
            env=dict(self.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command that ends with this exit code."""
        process = self.popen(*args)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{args} ended with {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(args, code, out, err)

    def json(self, *args: str, code: int = 0) -> Any:
        """What it prints with `--json`."""
        return json.loads(self.run(*args, "--json", code=code).stdout)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker that is ready, and is told to stop at the end."""
        log = self.folder / "worker.log"
        with log.open("w") as lines:
            process = subprocess.Popen(
                [sys.executable, "-m", "processor", "worker", "shopjobs:app", "--no-supervise"],
                cwd=self.folder,
                env=dict(self.env),
                stdout=subprocess.DEVNULL,
                stderr=lines,
            )
        try:
            eventually(lambda: "worker.ready" in log.read_text(), 30)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()


@pytest.fixture
def shell(kafka: Kafka, unique: str, tmp_path: Path) -> Shell:
    (tmp_path / "shopjobs.py").write_text(JOBS.format(namespace=unique))
    env = {name: value for name, value in os.environ.items() if not name.startswith("PROCESSOR_")}
    env |= {
        "PROCESSOR_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "PROCESSOR_APP": "shopjobs:app",
        "PROCESSOR_WORKER__STATE_DIR": str(tmp_path / "state"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    return Shell(folder=tmp_path, env=env)


def test_from_an_empty_cluster_to_results(shell: Shell) -> None:
    assert "processor topics" in shell.run("job", "enqueue", "fail", code=4).stderr
    assert shell.run("doctor", code=4).stdout.count("fail") == 2
    assert {row["action"] for row in shell.json("topics", "apply")} == {"create"}

    first = shell.run("job", "enqueue", "import.file", '{"rows": 5}', "--id", "first").stdout.strip()
    assert first == "first"
    (queued,) = shell.json("job", "list", "--state", "queued")
    assert (queued["id"], queued["queue"], queued["type"]) == ("first", "bulk", "import.file")
    assert "waits in" in shell.run("job", "show", "first").stdout
    with shell.worker():
        assert json.loads(shell.run("job", "result", "first", "--timeout", "30s").stdout) == {"rows": 5}
        _see_a_long_job(shell)
        _see_a_dead_job(shell)
        doctor = {row["check"]: row for row in shell.json("doctor")}
        assert (doctor["topics"]["verdict"], doctor["numbers"]["text"]) == ("ok", "all 3 have an owner")
        assert doctor["clocks"]["verdict"] == "ok"
        assert doctor["dead letters"]["text"] == "1 job given up"
        assert len(doctor["workers"]["details"]["slots"]) == 1
    states = {row["id"]: row["state"] for row in shell.json("job", "list")}
    assert states == {"first": "succeeded", "long": "succeeded", "bad": "dead"}


def _see_a_long_job(shell: Shell) -> None:
    """Watch a job while it runs, and look at what it has saved by then."""
    shell.run("job", "enqueue", "import.file", '{"rows": 200, "until": "looked"}', "--id", "long")
    watch = shell.popen("job", "watch", "long", "--timeout", "60s")
    assert watch.stdout is not None
    told = [next(watch.stdout)]
    while "running" not in told[-1]:
        told.append(next(watch.stdout))
    (saved,) = eventually(lambda: shell.json("checkpoint", "list"), 30)
    assert (saved["id"], saved["type"], saved["state"], saved["steps"]) == ("long", "import.file", "running", 1)
    assert saved["loops"]["rows"]["total"] == 200
    shown = shell.json("checkpoint", "show", "long")
    assert (shown["queue"], shown["loops"][0]["loop"], shown["steps"][0]["result"]) == ("bulk", "rows", '"HEAD"')
    assert shown["version"]["life"] == 1
    assert "of 200" in shell.run("checkpoint", "list").stdout
    (shell.folder / "looked").touch()
    rest, err = watch.communicate(timeout=60)
    assert (watch.returncode, err) == (0, "")
    assert "of 200" in "".join(told) + rest
    assert "succeeded" in rest.splitlines()[-1]


def _see_a_dead_job(shell: Shell) -> None:
    failed = shell.run("job", "enqueue", "fail", "--id", "bad", "--wait-result=30s", code=1)
    said = "error: job bad ended dead: builtins.ValueError: no such customer"
    assert failed.stderr.splitlines() == ["enqueued bad", said]
    assert shell.run("job", "result", "bad", code=1).stderr.splitlines() == [said]
    assert shell.json("job", "result", "bad", code=1)["error"] == "builtins.ValueError: no such customer"
    assert "builtins.ValueError: no such customer" in shell.run("job", "list", "--state", "dead").stdout


@pytest.mark.parametrize(
    "args", [["job", "enqueue", "fail"], ["job", "list"], ["job", "result", "j1"], ["topics", "diff"]]
)
def test_a_broker_that_is_away_is_one_clear_message(shell: Shell, args: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        changed = {"PROCESSOR_KAFKA__BOOTSTRAP": nowhere, "PROCESSOR_KAFKA__REQUEST_TIMEOUT": "1s"}
        away = Shell(folder=shell.folder, env={**shell.env, **changed})
        said = away.run(*args, code=3)
    assert said.stdout == ""
    first, *hints = said.stderr.splitlines()
    assert first.startswith("error: ")
    assert f"no Kafka broker at {nowhere} answered in time" in first
    assert [line.partition(" ")[0] for line in hints] == ["hint:"]
