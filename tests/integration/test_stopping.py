"""However a worker is told to stop, and whatever it is doing then: in good order, in time, exit code 0."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor import App
from processor.admin import apply_topics, saved_progress
from processor.broker.kafka import KafkaBroker, KafkaConfig
from tests.conftest import Kafka
from tests.proxy import FrameProxy
from tests.waiting import eventually

JOBS = '''
import asyncio, os, subprocess, sys, time
from pathlib import Path
from processor import App, Context

HERE = Path(__file__).parent

def note(name):
    (HERE / (name + ".new")).write_text(str(os.getpid()))
    (HERE / (name + ".new")).rename(HERE / name)

def hang(place):
    """As a client does that waits for its server: no handler of a signal runs meanwhile."""
    if (HERE / ("hang-" + place)).exists():
        note(place)
        import ctypes
        libc = ctypes.CDLL(None)
        mutex = (ctypes.c_byte * 64)()
        libc.pthread_mutex_lock(ctypes.byref(mutex))
        libc.pthread_mutex_lock(ctypes.byref(mutex))

def wait(place):
    if (HERE / ("wait-" + place)).exists():
        note(place)
        time.sleep(1000)

hang("import")
wait("import")
app = App("{namespace}")
app.queue("default", partitions=1)

@app.on_start
def started():
    hang("hook")
    wait("hook")

def walk(ctx):
    for item in ctx.each("items", lambda after: range((after or 0) + 1, 1_000_000), cursor=lambda i: i, every="0s"):
        if item == 3:
            note("walking")
        time.sleep(0.01)

@app.job("thread")
def in_thread(ctx: Context) -> None:
    walk(ctx)

@app.job("child", executor="process")
def in_child(ctx: Context) -> None:
    walk(ctx)

@app.job("deaf")
def deaf(ctx: Context) -> None:
    note("deaf")
    time.sleep(1000)

@app.job("never")
def never(ctx: Context) -> None:
    raise AssertionError("it is enqueued far in the future")

@app.job("waits")
def waits(ctx: Context) -> None:
    handle = app.enqueue("never", delay="1h")
    note("waiting")
    handle.result()

@app.job("awaits")
async def awaits(ctx: Context) -> None:
    handle = await asyncio.to_thread(app.enqueue, "never", delay="1h")
    note("waiting")
    await handle.aresult()

@app.job("orphans")
def orphans(ctx: Context) -> None:
    """Comes to its end when nothing is left of processes whose parent has gone before them."""
    shell = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1 & echo $!; done"
    told = subprocess.run(["sh", "-c", shell], stdout=subprocess.PIPE, text=True, check=True).stdout
    while any(Path("/proc", pid).exists() for pid in told.split()):
        time.sleep(0.01)

@app.job("waits-in-child", executor="process")
def waits_in_child(ctx: Context) -> None:
    waits(ctx)
'''


class Site:
    """A folder with an app, its topics, and the one worker started there, in a process group of its own."""

    def __init__(self, folder: Path, app: App, bootstrap: str) -> None:
        self.folder = folder
        self.app = app
        self.bootstrap = bootstrap
        self.log = folder / "worker.log"
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, before: tuple[str, ...] = (), bootstrap: str = "") -> subprocess.Popen[bytes]:
        command = [*before, sys.executable, "-m", "processor", "worker", "jobs.py:app", *arguments]
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PROCESSOR_KAFKA__BOOTSTRAP": bootstrap or self.bootstrap,
            "PROCESSOR_WORKER__STATE_DIR": str(self.folder / "state"),
        }
        with self.log.open("a") as log:
            worker = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.workers.append(worker)
        return worker

    def said(self, text: str, times: int = 1) -> None:
        """Wait until its log says this."""
        eventually(lambda: self.log.read_text("utf-8").count(text) >= times, 60.0, lambda: self.log.read_text("utf-8"))

    def noted(self, name: str) -> int:
        """Wait until a handler, or the module, has come so far; in which process."""
        path = self.folder / name
        eventually(path.exists, 60.0, lambda: f"{name}: {self.log.read_text('utf-8')}")
        return int(path.read_text())

    def ended(self, worker: subprocess.Popen[bytes]) -> int:
        """Its exit code."""
        try:
            return worker.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log.read_text("utf-8")) from None


@pytest.fixture
def site(kafka: Kafka, unique: str, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    app = App(unique, broker=KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)))
    app.queue("default", partitions=1)
    apply_topics(app.broker(), app.topic_plan())
    made = Site(tmp_path, app, kafka.bootstrap)
    yield made
    for worker in made.workers:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    app.close()


SUPERVISED = pytest.mark.parametrize("supervise", ["--supervise", "--no-supervise"])


@SUPERVISED
@pytest.mark.parametrize("job_type", ["thread", "child"])
def test_group_sigterm_is_one_wish_to_stop(site: Site, supervise: str, job_type: str) -> None:
    worker = site.start(supervise)
    handle = site.app.enqueue(job_type, queue="default")
    site.noted("walking")

    os.killpg(worker.pid, signal.SIGTERM)

    assert site.ended(worker) == 0, site.log.read_text("utf-8")
    found = saved_progress(site.app.broker(), site.app.namespace, "default", handle.id)
    assert found is not None
    assert found.progress is not None
    assert found.progress.loops is not None
    assert found.progress.loops["items"].items >= 2
    assert handle.status().state.value in ("running", "queued"), "no dead letter, no retry"


def test_timeout_signals_twice_and_means_it_once(site: Site) -> None:
    """coreutils' `timeout` signals its command, and then its group with the command in it."""
    handle = site.app.enqueue("child", queue="default")
    worker = site.start(before=("timeout", "--preserve-status", "1000"))
    site.noted("walking")
    worker.terminate()
    assert site.ended(worker) == 0, site.log.read_text("utf-8")
    assert saved_progress(site.app.broker(), site.app.namespace, "default", handle.id) is not None


@SUPERVISED
@pytest.mark.parametrize("how", ["hang", "wait"])
@pytest.mark.parametrize("place", ["import", "hook"])
def test_a_stop_before_the_worker_is_ready_ends_it_in_good_order(
    site: Site, supervise: str, place: str, how: str
) -> None:
    (site.folder / f"{how}-{place}").touch()
    worker = site.start(supervise)
    site.noted(place)

    os.killpg(worker.pid, signal.SIGTERM)

    assert site.ended(worker) == 0, site.log.read_text("utf-8")


def test_a_hang_up_during_the_start_ends_nobody(site: Site) -> None:
    (site.folder / "wait-import").touch()
    worker = site.start()
    site.noted("import")
    worker.send_signal(signal.SIGHUP)
    worker.send_signal(signal.SIGTERM)
    assert site.ended(worker) == 0

    (site.folder / "wait-import").rename(site.folder / "wait-hook")
    worker = site.start()
    first = site.noted("hook")
    (site.folder / "wait-hook").unlink()
    os.killpg(worker.pid, signal.SIGHUP)
    site.said("worker.ready")
    assert worker.poll() is None
    assert first != worker.pid
    worker.terminate()
    assert site.ended(worker) == 0, site.log.read_text("utf-8")


@pytest.mark.parametrize("place", ["import", "hook"])
def test_a_hang_up_during_a_start_without_a_supervisor_is_a_restart_and_no_death(site: Site, place: str) -> None:
    """Whoever has started it starts it again: it is over at once, in good order, and nothing has died of the signal."""
    (site.folder / f"wait-{place}").touch()
    worker = site.start("--no-supervise")
    site.noted(place)
    worker.send_signal(signal.SIGHUP)
    assert site.ended(worker) == 0, site.log.read_text("utf-8")


@pytest.mark.parametrize(
    ("how", "when", "supervise"),
    [
        ("frozen", "before the start", "--supervise"),
        ("frozen", "before the start", "--no-supervise"),
        ("frozen", "while it is ready", "--supervise"),
        ("frozen", "while it is ready", "--no-supervise"),
        ("away", "before the start", "--supervise"),
        ("away", "while it is ready", "--no-supervise"),
    ],
)
def test_a_stop_without_a_broker_is_over_soon_after_the_grace(
    site: Site, proxy: FrameProxy, how: str, when: str, supervise: str
) -> None:
    if when == "before the start":
        _take_away(proxy, how)
    worker = site.start(supervise, "--grace", "1s", bootstrap=proxy.bootstrap)
    if when == "before the start":
        eventually(lambda: proxy.connections, 60.0)
    else:
        site.said("worker.ready")
        _take_away(proxy, how)

    began = time.monotonic()
    os.killpg(worker.pid, signal.SIGTERM)

    assert site.ended(worker) == 0, site.log.read_text("utf-8")
    print(f"{how} {when}: over after {time.monotonic() - began:.2f} s of 1 s grace")


def _take_away(proxy: FrameProxy, how: str) -> None:
    """Frozen: connections stay, and nothing answers. Away: they break, and new ones too."""
    if how == "frozen":
        proxy.freeze()
    else:
        proxy.refusing = True
        proxy.cut()


@pytest.mark.parametrize("job_type", ["waits", "awaits", "waits-in-child"])
def test_a_handler_that_waits_for_another_job_stops(site: Site, job_type: str) -> None:
    worker = site.start("--grace", "1h")
    handle = site.app.enqueue(job_type, queue="default")
    site.noted("waiting")
    worker.terminate()
    assert site.ended(worker) == 0, site.log.read_text("utf-8")
    assert handle.status().state.value in ("running", "queued")


@SUPERVISED
def test_a_second_signal_stops_at_once(site: Site, supervise: str) -> None:
    worker = site.start(supervise, "--grace", "1h")
    site.app.enqueue("deaf", queue="default")
    site.noted("deaf")
    # Those that come soon after the first are the same wish.
    while worker.poll() is None:
        os.killpg(worker.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(0.3)
    # The last one may have found it without its handlers, at its very end.
    assert worker.returncode in ((1,) if supervise == "--supervise" else (1, -signal.SIGINT))


PID_1 = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child")


NAMESPACES = pytest.mark.skipif(
    subprocess.run([*PID_1, "true"], check=False, capture_output=True).returncode != 0,
    reason="needs user namespaces",
)


@NAMESPACES
@SUPERVISED
def test_process_1_takes_leave_of_orphans(site: Site, supervise: str) -> None:
    worker = site.start(supervise, before=PID_1)
    site.said("worker.ready")
    site.app.enqueue("orphans", queue="default").result(timeout="60s")
    _terminate_process_1(worker)
    assert site.ended(worker) == 0, site.log.read_text("utf-8")


@NAMESPACES
@pytest.mark.slow
@pytest.mark.parametrize("init", [("tini", "--"), ("dumb-init",), ("dumb-init", "--single-child")], ids=" ".join)
@pytest.mark.parametrize("job_type", ["thread", "child"])
def test_an_init_takes_leave_of_orphans_and_passes_a_stop_on(site: Site, init: tuple[str, ...], job_type: str) -> None:
    """That of the image; and one that by default signals the worker's whole group."""
    if shutil.which(init[0]) is None:
        pytest.skip(f"needs {init[0]}")
    worker = site.start(before=(*PID_1, *init))
    site.app.enqueue("orphans", queue="default").result(timeout="60s")
    handle = site.app.enqueue(job_type, queue="default")
    site.noted("walking")
    _terminate_process_1(worker)
    assert site.ended(worker) == 0, site.log.read_text("utf-8")
    assert saved_progress(site.app.broker(), site.app.namespace, "default", handle.id) is not None
    assert handle.status().state.value in ("running", "queued")


def _terminate_process_1(unshare: subprocess.Popen[bytes]) -> None:
    [first] = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
