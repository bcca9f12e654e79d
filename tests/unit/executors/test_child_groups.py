"""A child process and what its handler starts: one process group, which ends as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from processor.clock import SystemClock
from processor.context.port import ContextLimits
from processor.core.outcome import Crashed, Outcome, Succeeded, Yielded
from processor.core.write_set import Origin
from processor.engine.attempt import Attempt, AttemptShared
from processor.engine.config import QueueConfig, WorkerConfig
from processor.engine.queue_partition import QueuePartition
from processor.executors.loading import absolute
from processor.executors.processes import ProcessPool
from processor.job import Job
from processor.runtime import Inbox, ThreadedRuntime
from tests.waiting import eventually

JOBS = '''
import multiprocessing, os, subprocess, sys, time
from pathlib import Path
from processor import App, Context

app = App("groups")
HERE = Path(__file__).parent

def note(name, text):
    (HERE / (name + ".new")).write_text(str(text))
    (HERE / (name + ".new")).rename(HERE / name)

@app.job("starts")
def starts(ctx: Context) -> None:
    """Works on through a process of its own."""
    started = subprocess.Popen(["sleep", "1000"])
    note("pid", os.getpid())
    note("started", started.pid)
    while True:
        ctx.checkpoint(None)
        time.sleep(0.01)

@app.job("deaf")
def deaf(ctx: Context) -> None:
    note("pid", os.getpid())
    time.sleep(1000)

@app.job("moves")
def moves(ctx: Context) -> str:
    (HERE / "elsewhere").mkdir(exist_ok=True)
    was = os.getcwd()
    os.chdir(HERE / "elsewhere")
    return was

@app.job("exits")
def exits(ctx: Context) -> None:
    os._exit(7)

def terminates(method):
    """Ends a process of multiprocessing as that does it."""
    process = multiprocessing.get_context(method).Process(target=time.sleep, args=(1000,))
    process.start()
    process.terminate()
    process.join()
    return process.exitcode

@app.job("terminates-fork")
def terminates_fork(ctx: Context) -> int:
    return terminates("fork")

@app.job("terminates-forkserver")
def terminates_forkserver(ctx: Context) -> int:
    return terminates("forkserver")

@app.job("terminates-spawn")
def terminates_spawn(ctx: Context) -> int:
    return terminates("spawn")

@app.job("prints")
def prints(ctx: Context) -> None:
    print("a whole line")
    sys.stdout.write("half a line")
    note("printed", os.getpid())
'''


class _Number:
    assignment = 1
    epoch = 1


class Bench:
    """A pool with one child, of the app above."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "grouped.py").write_text(JOBS, "utf-8")
        self._runtime = ThreadedRuntime()
        self._inbox: Inbox[Any] = Inbox(self._runtime)
        app_path = absolute(f"{folder / 'grouped.py'}:app")
        config = WorkerConfig(
            namespace="groups", slot="w-0", queues=(QueueConfig(name="q"),), app_path=app_path, child_folder=str(folder)
        )
        self.pool = ProcessPool(self._runtime, self._inbox, "children", 1, config)
        self._shared = AttemptShared(self._inbox, SystemClock(), ContextLimits(), self._runtime.signal, 1.0)

    def start(self, job_type: str) -> Attempt:
        job = Job("j", job_type, 1, "q", b"", 0)
        attempt = Attempt(self._shared, cast(QueuePartition, _Number), None, Origin("t", 0, 0), job, b"", None)
        self.pool.submit([attempt])
        return attempt

    def outcome(self, attempt: Attempt) -> Outcome:
        def ended() -> bool:
            self.pool.nudge()
            return attempt.outcome is not None

        eventually(ended, 60.0)
        assert attempt.outcome is not None
        return attempt.outcome

    def run(self, job_type: str) -> Outcome:
        return self.outcome(self.start(job_type))

    def noted(self, name: str) -> int:
        path = self.folder / name
        eventually(path.exists, 60.0, name)
        return int(path.read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    assert made.pool.stop(10.0)


def gone(pid: int) -> Callable[[], bool]:
    """Whether a process has ended; one that nobody has waited for yet has."""

    def look() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return look


def test_what_a_handler_started_ends_with_its_child_process(bench: Bench) -> None:
    attempt = bench.start("starts")
    started = bench.noted("started")

    os.kill(bench.noted("pid"), signal.SIGKILL)

    assert isinstance(bench.outcome(attempt), Crashed)
    eventually(gone(started), 60.0)


def test_what_a_handler_started_ends_when_the_worker_stops(bench: Bench) -> None:
    bench.start("starts")
    started = bench.noted("started")

    assert bench.pool.stop(20.0)

    eventually(gone(started), 60.0)


def test_what_a_handler_started_ends_with_a_killed_worker(tmp_path: Path) -> None:
    script = (
        "import sys, threading; from pathlib import Path\n"
        "from tests.unit.executors.test_child_groups import Bench\n"
        "Bench(Path(sys.argv[1])).start('starts'); threading.Event().wait()\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        eventually((tmp_path / "started").exists, 60.0)
        pids = [int((tmp_path / name).read_text()) for name in ("pid", "started")]
    finally:
        worker.kill()
        worker.wait()
    for pid in pids:
        eventually(gone(pid), 60.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_everybody_ends_no_child(bench: Bench, number: signal.Signals) -> None:
    attempt = bench.start("starts")
    bench.noted("started")

    os.killpg(bench.noted("pid"), number)

    # What the handler had started took it as a signal to itself; the job goes on until it is asked to stop.
    eventually(gone(bench.noted("started")), 60.0)
    assert attempt.outcome is None
    attempt.mailbox.interrupt()
    assert bench.outcome(attempt) == Yielded()


def test_a_child_that_dies_while_its_job_is_asked_to_stop_has_yielded(bench: Bench) -> None:
    attempt = bench.start("deaf")
    pid = bench.noted("pid")
    attempt.mailbox.interrupt()
    bench.pool.nudge()

    os.kill(pid, signal.SIGKILL)

    assert bench.outcome(attempt) == Yielded()


def test_a_changed_working_directory_is_one_jobs_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    home = f'"{bench.folder}"'.encode()
    assert bench.run("moves") == Succeeded(home)
    assert bench.run("moves") == Succeeded(home)
    # Nor does it matter where the worker is by now, when a new child starts.
    assert isinstance(bench.run("exits"), Crashed)
    monkeypatch.chdir("/")
    assert bench.run("moves") == Succeeded(home)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_handler_can_terminate_its_own_processes(bench: Bench, method: str) -> None:
    assert bench.run(f"terminates-{method}") == Succeeded(b"-15")


def test_what_a_handler_prints_leaves_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, threading; from pathlib import Path\n"
        "from tests.unit.executors.test_child_groups import Bench\n"
        "Bench(Path(sys.argv[1])).run('prints'); threading.Event().wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"a whole line\n"
        assert worker.stdout.read(11) == b"half a line"
        worker.kill()
