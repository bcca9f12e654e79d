"""Worker processes on a real Kafka: killed, stopped, restarted, and with handlers in child processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from processor import App
from processor.admin import apply_topics, saved_progress
from processor.broker.kafka import KafkaBroker, KafkaConfig
from processor.errors import JobFailed
from tests.conftest import Kafka
from tests.waiting import eventually

pytestmark = pytest.mark.slow

JOBS = """
import os, time
from pathlib import Path
from processor import App, Context

app = App("{namespace}")
app.queue("default", partitions=1)
app.queue("q", partitions=4, concurrency=8)
NOTES = Path(__file__).with_name("notes")

def note(*words):
    with NOTES.open("a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

@app.on_start
def started():
    note("hook", 0, os.getpid(), time.time())

def walk(ctx, name, items):
    for item in ctx.each("items", lambda after: range((after or 0) + 1, items + 1), cursor=lambda i: i, every="0s"):
        note(name, item, os.getpid(), time.time())
        if not NOTES.with_name("hurry").exists():
            time.sleep(0.05)
    return items

@app.job("thread", queue="q")
def in_thread(ctx: Context) -> int:
    return walk(ctx, ctx.id, 2000)

@app.job("child", queue="q", executor="process")
def in_child(ctx: Context) -> int:
    ctx.step("head", os.getpid)
    ctx.once("charge", os.getpid)
    return walk(ctx, ctx.id, 2000)

@app.job("exits", queue="q", executor="process")
def exits(ctx: Context) -> None:
    os._exit(7)

app.queue("one", partitions=1, concurrency=1)

@app.job("waits", queue="one")
def waits(ctx: Context) -> None:
    inner.enqueue(id=ctx.id + "-inner").result()

@app.job("inner", queue="one")
def inner(ctx: Context) -> None: ...

@app.job("blocks", queue="q")
async def blocks(ctx: Context) -> None:
    while not NOTES.with_name("hurry").exists():
        time.sleep(0.05)

@app.job("quick", queue="q", executor="process")
def quick(ctx: Context) -> int:
    return os.getpid()
"""


class Item(NamedTuple):
    """A line that a handler wrote: which item, in which process, when."""

    number: int
    pid: int
    at: float


@dataclass
class Site:
    """A folder with an app, its topics, and the workers started from there."""

    folder: Path
    app: App
    bootstrap: str
    workers: list[Running] = field(default_factory=list)

    def start(self, *arguments: str) -> Running:
        """Start `processor worker` and wait until it is ready."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        command = [sys.executable, "-m", "processor", "worker", "jobs.py:app", "--log-format", "json", "--http", "0"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PROCESSOR_KAFKA__BOOTSTRAP": self.bootstrap,
            "PROCESSOR_WORKER__STATE_DIR": str(self.folder / "state"),
        }
        with log.open("w") as stderr:
            process = subprocess.Popen([*command, *arguments], cwd=self.folder, env=environment, stderr=stderr)
        running = Running(process, log)
        self.workers.append(running)
        eventually(lambda: running.events("worker.ready"), 30.0, lambda: log.read_text())
        return running

    def hurry(self) -> None:
        """Let running jobs come to their end without pauses."""
        (self.folder / "hurry").touch()

    def saved(self, job_id: str) -> int:
        """How many items of a job the log holds as done."""
        found = saved_progress(self.app.broker(), self.app.namespace, "q", job_id)
        loops = found.progress.loops if found is not None and found.progress is not None else None
        return loops["items"].items if loops else 0

    def items(self, name: str, since: float = 0.0) -> list[Item]:
        """What handlers wrote down under this name (a job's id)."""
        notes = self.folder / "notes"
        lines = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
        found = [Item(int(line[1]), int(line[2]), float(line[3])) for line in lines if line[0] == name]
        return [item for item in found if item.at > since]


@dataclass
class Running:
    """A started `processor worker` command."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log events of this name so far."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    @property
    def child(self) -> int:
        """Process id of the newest worker process."""
        return int(self.events("supervisor.started")[-1]["pid"])

    def get(self, path: str, index: int = 0) -> tuple[int, str]:
        """Ask a probe."""
        port = self.events("probes.listening")[index]["port"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, index: int = 0) -> float:
        """The sum of a metric's series in one of its processes."""
        lines = self.get("/metrics", index)[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"processor_{name}[{{ ]", line))

    def stop(self) -> int:
        """SIGTERM, and wait."""
        self.process.terminate()
        return self.process.wait(40)


@pytest.fixture
def site(kafka: Kafka, unique: str, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    app = App(unique, broker=KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)))
    app.queue("default", partitions=1)
    app.queue("q", partitions=4)
    app.queue("one", partitions=1)
    apply_topics(app.broker(), app.topic_plan())
    made = Site(tmp_path, app, kafka.bootstrap)
    yield made
    for running in made.workers:
        running.process.kill()
        running.process.wait()
    app.close()


def enqueue(site: Site, job_type: str) -> Any:
    return site.app.enqueue(job_type, queue="q")


def gone(pid: int) -> Callable[[], bool]:
    def look() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    return look


def test_a_killed_worker_process_comes_back_in_its_slot_and_its_job_goes_on(site: Site) -> None:
    worker = site.start()
    handle = enqueue(site, "thread")
    saved = eventually(lambda: site.saved(handle.id), 30.0)
    first = worker.child
    killed = time.time()
    os.kill(first, signal.SIGKILL)
    (after, *_) = eventually(lambda: [i for i in site.items(handle.id, killed) if i.pid != first], 30.0)
    before = [item for item in site.items(handle.id) if item.pid == first][-1]
    print(f"kill -9 to next item: {after.at - killed:.2f} s, items redone: {before.number - after.number + 1}")
    assert after.number > saved
    site.hurry()
    assert handle.result(timeout="60s") == 2000
    slots = {event["slot"] for event in worker.events("supervisor.started")}
    assert len(slots) == 1
    assert worker.events("supervisor.restarts")[0]["signal"] == "SIGKILL"


def test_a_job_in_a_child_process_goes_on_after_its_worker_was_killed(site: Site) -> None:
    worker = site.start()
    handle = enqueue(site, "child")
    saved = eventually(lambda: site.saved(handle.id), 30.0)
    child = site.items(handle.id)[-1].pid
    assert child != worker.child
    killed = time.time()
    os.kill(worker.child, signal.SIGKILL)
    eventually(gone(child), 5.0, "the child process outlived its worker")
    (after, *_) = eventually(lambda: [i for i in site.items(handle.id, killed) if i.pid != child], 30.0)
    before = [item for item in site.items(handle.id) if item.pid == child][-1]
    print(f"kill -9 to next item in a child: {after.at - killed:.2f} s, redone: {before.number - after.number + 1}")
    assert after.number > saved
    site.hurry()
    assert handle.result(timeout="60s") == 2000
    # The start hook ran in both workers and in both children.
    assert len(site.items("hook")) == 4


def test_a_handler_that_ends_its_child_process_is_dead_and_the_next_job_gets_a_new_one(site: Site) -> None:
    worker = site.start("--concurrency", "1")
    first = enqueue(site, "quick").result(timeout="30s")
    with pytest.raises(JobFailed, match=r"child_died.*exit code 7"):
        enqueue(site, "exits").result(timeout="30s")
    second = enqueue(site, "quick").result(timeout="30s")
    assert first != second
    assert enqueue(site, "quick").result(timeout="30s") == second
    assert not worker.events("supervisor.restarts")


@pytest.mark.parametrize("job_type", ["thread", "child"])
def test_a_stopped_worker_leaves_the_group_and_the_next_owner_redoes_nothing(site: Site, job_type: str) -> None:
    first = site.start("--instance", "first")
    handle = enqueue(site, job_type)
    eventually(lambda: len(site.items(handle.id)) > 10, 30.0)
    second = site.start("--instance", "second")
    eventually(lambda: second.metric("numbers_owned") > 0, 30.0)
    owner, other = (first, second) if _runs_on(first, handle.id, site) else (second, first)
    began = time.time()
    assert owner.stop() == 0
    took = time.time() - began
    eventually(lambda: other.child and _runs_on(other, handle.id, site), 30.0)
    site.hurry()
    assert handle.result(timeout="60s") == 2000
    items = site.items(handle.id)
    assert [item.number for item in items] == list(range(1, 2001))
    moves = [round(b.at - a.at, 2) for a, b in pairwise(items) if a.pid != b.pid]
    print(f"{job_type}: the stop took {took:.2f} s; seconds between the owners' items: {moves}")
    assert moves
    assert not other.events("supervisor.restarts")


def _runs_on(worker: Running, job_id: str, site: Site) -> bool:
    """Whether the job runs in this command's worker process or in a child of it."""
    pid = site.items(job_id)[-1].pid
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
    except FileNotFoundError:
        return False
    return worker.child in (pid, int(parent))


def test_a_rolling_restart_is_no_rebalance_for_the_others(site: Site) -> None:
    first = site.start("--instance", "first", "--processes", "2")
    second = site.start("--instance", "second")
    eventually(lambda: len(first.events("probes.listening")) == 2 and second.events("probes.listening"), 30.0)
    eventually(lambda: _is_shared(first, second), 30.0)
    rebalances = second.metric("rebalances_total")
    first.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(first.events("worker.ready")) == 4, 30.0, lambda: first.log.read_text())
    starts = first.events("supervisor.started")
    assert [start["slot"] for start in starts] == ["first-0", "first-1", "first-0", "first-1"]
    assert second.metric("rebalances_total") == rebalances
    assert first.stop() == 0


def _is_shared(two: Running, one: Running) -> bool:
    """Whether the group has settled: all four numbers are owned, and each of the three processes has some."""
    owned = [two.metric("numbers_owned"), two.metric("numbers_owned", 1), one.metric("numbers_owned")]
    return sum(owned) == 4 and min(owned) >= 1


def test_probes_answer_in_every_process(site: Site) -> None:
    worker = site.start("--processes", "2")
    eventually(lambda: len(worker.events("worker.ready")) == 2, 30.0)
    for index in (0, 1):
        assert worker.get("/healthz", index)[0] == 200
        eventually(lambda index=index: worker.get("/readyz", index)[0] == 200, 10.0)  # type: ignore[misc]  # a default binds the loop's variable
        assert worker.get("/nothing", index)[0] == 404
    assert enqueue(site, "quick").result(timeout="30s")
    pages = [worker.get("/metrics", index)[1] for index in (0, 1)]
    assert any(
        'processor_jobs_finished_total{outcome="succeeded",queue="q",type="quick"} 1.0' in page for page in pages
    )
    # The second process may still be on its way into the group.
    owned = 'numbers_owned{queue="q"}'
    eventually(lambda: worker.metric(owned) + worker.metric(owned, 1) == 4, 30.0)


def test_a_held_up_event_loop_is_told_by_the_probe(site: Site) -> None:
    worker = site.start()
    handle = enqueue(site, "blocks")
    eventually(lambda: handle.id in worker.get("/healthz")[1], 60.0)
    status, page = worker.get("/healthz")
    assert status == 200
    assert json.loads(page)["event_loops_held_up"]["q"]["job_type"] == "blocks"
    [warning] = worker.events("loop.held_up")
    assert warning["job_id"] == handle.id
    assert "jobs.py" in warning["at"]
    site.hurry()
    handle.result(timeout="60s")
    eventually(lambda: "held_up" not in worker.get("/healthz")[1], 60.0)


def test_slots_whose_handlers_wait_for_jobs_without_one_are_told(site: Site) -> None:
    worker = site.start()
    handle = site.app.enqueue("waits", queue="one")
    eventually(lambda: "slots_all_wait" in worker.get("/healthz")[1], 60.0)
    status, page = worker.get("/healthz")
    assert status == 200
    told = {"job_id": handle.id, "job_type": "waits", "awaits": f"{handle.id}-inner", "slots": 1}
    assert json.loads(page)["slots_all_wait"] == {"one": told}
    [warning] = worker.events("slots.all_wait")
    assert told.items() <= warning.items()
    note = f"it waits for job {handle.id}-inner, which waits for a slot"
    eventually(lambda: handle.progress().note == note, 60.0)
    handle.cancel("enough")
    eventually(lambda: "slots_all_wait" not in worker.get("/healthz")[1], 60.0)
    assert site.app.handle(f"{handle.id}-inner").wait("60s").state == "succeeded"


def test_nothing_outlives_a_killed_supervisor(site: Site) -> None:
    worker = site.start()
    handle = enqueue(site, "child")
    eventually(lambda: site.items(handle.id), 30.0)
    child, grandchild = worker.child, site.items(handle.id)[-1].pid
    worker.process.kill()
    eventually(gone(child), 5.0)
    eventually(gone(grandchild), 5.0)


def test_missing_topics_are_refused_with_what_to_do(kafka: Kafka, unique: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PROCESSOR_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "PROCESSOR_WORKER__STATE_DIR": str(tmp_path / "state"),
    }
    command = [sys.executable, "-m", "processor", "worker", "jobs.py:app"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 4
    assert "processor topics plan --app jobs.py:app" in ended.stderr
