"""A namespace of its own on the broker: its topics, jobs to run, worker processes to run them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import jobs
from benchmarks.engine import Order, Report
from processor.admin import apply_topics
from processor.broker.base import OffsetCommit, OutRecord, TopicPartition
from processor.broker.kafka import KafkaBroker, KafkaConfig
from processor.broker.partitioner import partition_for
from processor.demo.fleet import clean_environment, tied_command
from processor.errors import BrokerError
from processor.job import Job, Lane
from processor.job_ids import uuid7
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.groups import queue_group
from processor.wire.headers import routing_headers
from processor.wire.settings_sources import load_settings

PATIENCE = 240.0
"""Seconds after which a bench gives up waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What every bench is given."""

    bootstrap: str
    scale: float
    """Share of the usual number of jobs, runs and seconds."""
    say: Callable[[str], None]
    """Progress."""

    def some(self, usual: int, least: int = 1) -> int:
        """So many of the usual number."""
        return max(least, round(usual * self.scale))


class Item(NamedTuple):
    """A line of the ledger: a walk did an item."""

    job: str
    item: int
    pid: int
    at: float


class Bare(NamedTuple):
    """How a hand-written loop went."""

    rate: float
    cpu: float
    """Microseconds of processor time of one job, all threads of the process."""


class World:
    """See the module."""

    def __init__(self, kit: Kit, name: str, folder: Path, *, partitions: int = 8, concurrency: int = 100) -> None:
        self.kit = kit
        self.folder = folder
        self.shape = jobs.Shape(
            namespace=f"bench-{name}-{time.time_ns() % 10**9}",
            partitions=partitions,
            concurrency=concurrency,
            ledger=str(folder / "ledger"),
        )
        wanted = {"kafka.bootstrap": kit.bootstrap, "topics.retry_partitions": "1", "worker.state_dir": str(folder)}
        self.app = jobs.build(self.shape, load_settings(wanted, env={}))
        self.broker = KafkaBroker(KafkaConfig(bootstrap=kit.bootstrap))
        apply_topics(self.broker, self.app.topic_plan())
        self._processes: list[subprocess.Popen[Any]] = []
        self._by_job: dict[str, list[Item]] = defaultdict(list)
        self._ledger_read = 0

    @property
    def namespace(self) -> str:
        return self.shape.namespace

    def lane(self, lane: Lane = Lane.NORMAL) -> str:
        """Topic of a lane."""
        return topics.jobs_topic(self.namespace, jobs.QUEUE, lane)

    # --- jobs -----------------------------------------------------------------------------------------------------

    def job(self, job_type: str, payload: dict[str, Any], *, job_id: str | None = None, key: str | None = None) -> Job:
        """A job as a client would make it."""
        now = time.time_ns() // 1_000_000
        return Job(job_id or uuid7(now), job_type, 1, jobs.QUEUE, json.dumps(payload).encode(), now, key)

    def fill(self, made: Iterable[Job], *, lane: Lane = Lane.NORMAL) -> int:
        """Append jobs as a client would; how many."""
        return self.append(self.record(job, lane) for job in made)

    def record(self, job: Job, lane: Lane = Lane.NORMAL) -> OutRecord:
        """The record of a job."""
        return OutRecord(self.lane(lane), (job.key or job.id).encode(), encode(job), routing_headers(job))

    def append(self, records: Iterable[OutRecord]) -> int:
        """Append any records; how many."""
        producer = self.broker.producer()
        count = 0
        try:
            for count, record in enumerate(records, 1):
                producer.append(record)
                if count % 250_000 == 0:
                    self.kit.say(f"{count:,} records written")
            left = producer.flush(PATIENCE)
        finally:
            producer.close()
        if left:
            raise RuntimeError(f"{left} records were not written")
        return count

    def rewind(self) -> None:
        """Let the next worker begin with the first job again. The last one must have left."""
        places = [
            TopicPartition(self.lane(lane), number)
            for lane in (Lane.NORMAL, Lane.DUE)
            for number in range(self.shape.partitions)
        ]
        self.commit([OffsetCommit(place, 0) for place in places])

    def commit(self, offsets: Sequence[OffsetCommit]) -> None:
        """Set the workers' offsets, once the last worker is gone."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.broker.admin().commit(queue_group(self.namespace, jobs.QUEUE), offsets)
            except BrokerError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def id_for(self, number: int) -> str:
        """A job id that belongs to this number."""
        return next(i for n in range(10_000) if self.number_of(i := f"job-{number}-{n}") == number)

    def number_of(self, job_id: str) -> int:
        """The number of a job without a key."""
        return partition_for(job_id.encode(), self.shape.partitions)

    # --- processes ------------------------------------------------------------------------------------------------

    def engine(self, **order: Any) -> Engine:
        """Start a worker process that reports."""
        what = Order(bootstrap=self.kit.bootstrap, **order)
        process = self._spawn([sys.executable, "-m", "benchmarks.engine", what.text()], "engine.log")
        return Engine(process, self.folder / "engine.log")

    def worker(self, slot: str, *flags: str) -> subprocess.Popen[Any]:
        """Start what a user would: `processor worker`."""
        served = ["-q", jobs.QUEUE, "--instance", slot, "--bootstrap", self.kit.bootstrap]
        command = tied_command(["worker", "benchmarks.jobs:app", *served, "--log-format", "json", *flags])
        return self._spawn(command, "workers.log")

    def bare(self, *arguments: str) -> Bare:
        """Run a hand-written loop."""
        command = [sys.executable, "-m", "benchmarks.bare", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
        return Bare(*map(float, done.stdout.split()))

    def _spawn(self, command: list[str], log: str) -> subprocess.Popen[Any]:
        settings = {"PROCESSOR_WORKER__STATE_DIR": str(self.folder), "PROCESSOR_TOPICS__RETRY_PARTITIONS": "1"}
        env = clean_environment() | self.shape.environment() | settings
        # Output of processes that the parent kills: a file, so that nobody has to read it meanwhile.
        out = subprocess.PIPE if log == "engine.log" else subprocess.DEVNULL
        with (self.folder / log).open("ab") as errors:
            process: subprocess.Popen[Any] = subprocess.Popen(command, env=env, stdout=out, stderr=errors, text=True)
        self._processes.append(process)
        return process

    # --- the ledger -----------------------------------------------------------------------------------------------

    def by_job(self) -> dict[str, list[Item]]:
        """What each walk has done so far, in the order of writing."""
        path = Path(self.shape.ledger)
        if path.exists():
            with path.open("rb") as ledger:
                # Only what is new: looking must not load the machine that is measured.
                ledger.seek(self._ledger_read)
                new = ledger.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._ledger_read += len(whole)
            for line in whole.decode().splitlines():
                job, item, pid, at = line.split()
                self._by_job[job].append(Item(job, int(item), int(pid), float(at)))
        return self._by_job

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.app.close()
        self.broker.close()


class Engine:
    """A worker process that reports."""

    def __init__(self, process: subprocess.Popen[Any], log: Path) -> None:
        self.process = process
        self._log = log

    def wait_active(self) -> None:
        """Until all its numbers are restored and claimed."""
        self._next("active")

    def stop(self) -> Report:
        """End it in good order; its report."""
        self.process.send_signal(signal.SIGTERM)
        return self.report()

    def report(self) -> Report:
        """Wait for its end; its report."""
        fields = self._next("report")
        self.process.wait(PATIENCE)
        return Report(**fields)

    def _next(self, event: str) -> dict[str, Any]:
        for line in self.process.stdout or ():
            told: dict[str, Any] = json.loads(line)
            if told.pop("event") == event:
                return told
        words = self._log.read_text("utf-8", "replace")[-1500:]
        raise RuntimeError(f"the worker process ended without a {event}: {words}")


@contextlib.contextmanager
def world(kit: Kit, name: str, **shape: int) -> Iterator[World]:
    """A world that is gone afterwards, processes and topics too."""
    with tempfile.TemporaryDirectory(prefix="processor-bench-") as folder:
        made = World(kit, name, Path(folder), **shape)
        try:
            yield made
        finally:
            made.close()


def until(done: Callable[[], bool], what: str, *, seconds: float = PATIENCE, pause: float = 0.05) -> None:
    """Look again and again.

    Raises:
        TimeoutError: in vain.
    """
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(pause)


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    return os.path.exists(f"/proc/{pid}")
