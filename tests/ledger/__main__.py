"""`python -m tests.ledger`: the run, and its table. Exit code 1 if a line does not hold."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from processor.admin import apply_topics
from processor.broker.dev import DevBroker, DevBrokerConfig
from processor.broker.kafka import KafkaBroker, KafkaConfig
from processor.cli.output import Column, Output
from processor.demo.fleet import tied_command
from processor.wire.settings_sources import load_settings
from tests.ledger import jobs
from tests.ledger.fates import Fate, fate_of
from tests.ledger.verdict import Check, finished, first_life, lines, look, second_life

BATCHES = 20
PROPERTIES = {"group.initial.rebalance.delay.ms": "0", "broker.session.timeout.ms": "9000"}
QUEUE = "work"


class Run:
    """One run of the command."""

    def __init__(self, wanted: argparse.Namespace, kafka: DevBroker, folder: Path) -> None:
        self.wanted = wanted
        self.kafka = kafka
        self.folder = folder
        self.began = time.monotonic()
        self.namespace = f"ledger-{wanted.seed}-{time.time_ns() % 10**9}"
        jobs.app.namespace = self.namespace
        self.settings = load_settings({"kafka.bootstrap": kafka.bootstrap, "topics.replication": "1"}, env={})
        self.broker = KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap))
        jobs.app.bind(self.broker)
        self.ids: dict[str, int] = {}
        self.workers: subprocess.Popen[bytes] | None = None
        self.events: list[str] = []

    def say(self, text: str) -> None:
        """Progress."""
        sys.stderr.write(f"{time.monotonic() - self.began:6.0f} s  {text}\n")
        sys.stderr.flush()

    @property
    def environment(self) -> dict[str, str]:
        """Of workers and commands."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PROCESSOR_")}
        return {
            **env,
            "LEDGER_FOLDER": str(self.folder),
            "LEDGER_NAMESPACE": self.namespace,
            "PROCESSOR_KAFKA__BOOTSTRAP": self.kafka.bootstrap,
            "PROCESSOR_TOPICS__REPLICATION": "1",
            "PROCESSOR_WORKER__STATE_DIR": str(self.folder / "state"),
            "PROCESSOR_APP": "tests.ledger.jobs:app",
        }

    def start_workers(self) -> None:
        """A supervisor with three workers."""
        command = tied_command(["worker", "tests.ledger.jobs:app", "--processes", "3", "--log-format", "json"])
        with (self.folder / "workers.log").open("ab") as output:
            self.workers = subprocess.Popen(command, env=self.environment, stdout=output, stderr=output)

    def stop_workers(self) -> None:
        """In good order."""
        if self.workers is not None:
            self.workers.terminate()
            self.workers.wait(60)

    def enqueue(self, batch: int) -> None:
        """One share of the jobs."""
        numbers = range(batch, self.wanted.jobs, BATCHES)
        payloads = [jobs.Work(seed=self.wanted.seed, number=number) for number in numbers]
        self.ids.update({_id(payload): payload.number for payload in payloads})
        jobs.work.enqueue_many(payloads, ids=_id)

    def kill_a_worker(self) -> None:
        """SIGKILL to one of the supervisor's children."""
        assert self.workers is not None
        found = subprocess.run(["pgrep", "-P", str(self.workers.pid)], capture_output=True, text=True, check=False)
        for pid in map(int, found.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.note(f"worker {pid} killed")
                return

    def restart_broker(self) -> None:
        """Kill it and start it again."""
        self.kafka.kill()
        self.kafka.restart()
        self.note("broker killed and restarted")

    def note(self, text: str) -> None:
        """Something that was done to the run."""
        self.events.append(text)
        self.say(text)

    def wait(self, life: int, count: int, seconds: float) -> None:
        """Until so many jobs have ended this life, or the time is over: the table then says what is missing."""
        deadline = time.monotonic() + seconds
        before = -1
        while time.monotonic() < deadline:
            done = finished(self.broker, self.namespace, life)
            if done != before:
                self.say(f"{done:,} of {count:,} jobs have ended life {life}")
            if done >= count:
                return
            before = done
            time.sleep(2.0)

    def redrive(self) -> None:
        """As an operator does, after the fix."""
        (self.folder / "fixed").touch()
        self.note("the fix is out; redriving all dead letters")
        arguments = ["dlq", "redrive", "--all-open", "--yes", "--reason", "the fix is out"]
        subprocess.run([sys.executable, "-m", "processor", *arguments], env=self.environment, check=True)

    def go(self) -> list[Check]:
        """The whole story."""
        apply_topics(self.broker, jobs.app.topic_plan())
        self.start_workers()
        troubles: dict[int, Callable[[], None]] = {
            BATCHES // 4: self.kill_a_worker,
            BATCHES // 2: self.restart_broker,
            3 * BATCHES // 4: self.kill_a_worker,
        }
        for batch in range(BATCHES):
            if batch in troubles:
                troubles[batch]()
            self.enqueue(batch)
            self.wait(1, round(len(self.ids) * 0.6), 60.0)
        self.wait(1, len(self.ids), self.wanted.patience)
        self.took = time.monotonic() - self.began
        checks = first_life(look(self.broker, self.namespace, QUEUE), self.wanted.seed, self.ids)
        dead = {i for i, n in self.ids.items() if fate_of(self.wanted.seed, n) in (Fate.ALWAYS, Fate.KILLS)}
        if not self.wanted.no_redrive:
            self.redrive()
            self.wait(2, len(dead), self.wanted.patience)
            checks += second_life(look(self.broker, self.namespace, QUEUE), dead, self.folder)
        return checks


def _id(payload: jobs.Work) -> str:
    return f"w-{payload.seed}-{payload.number:06d}"


def _table(run: Run, checks: list[Check], as_json: bool) -> None:
    rows = [
        {"check": c.name, "expected": c.expected, "found": c.found, "holds": "yes" if c.holds else "NO"} for c in checks
    ]
    deaths = sum(words[0] == "dies" for words in lines(run.folder))
    columns = [Column(name="check"), Column(name="expected", right=True), Column(name="found", right=True)]
    columns.append(Column(name="holds", style=lambda value: "good" if value == "yes" else "bad"))
    out = Output(as_json=as_json)
    out.table(columns, rows)
    out.note(
        f"seed {run.wanted.seed}: {len(run.ids):,} jobs ended in {run.took:.0f} s; {deaths} processes ended by a job; "
        + "; ".join(run.events)
    )


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.ledger", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--patience", type=float, default=780.0, help="seconds until what has not ended counts as lost")
    parser.add_argument("--no-redrive", action="store_true", help="stop before the redrive")
    parser.add_argument("--keep", metavar="FOLDER", help="keep logs and ledger there")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with _folder(wanted.keep) as folder, _kafka(folder) as kafka:
        run = Run(wanted, kafka, folder)
        try:
            checks = run.go()
        finally:
            run.stop_workers()
        _table(run, checks, wanted.json)
    return int(not all(check.holds for check in checks))


@contextlib.contextmanager
def _folder(kept: str | None) -> Iterator[Path]:
    if kept is not None:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="processor-ledger-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _kafka(folder: Path) -> Iterator[DevBroker]:
    with DevBroker(DevBrokerConfig(data_dir=folder / "kafka", properties=PROPERTIES)) as kafka:
        yield kafka


if __name__ == "__main__":
    sys.exit(main())
