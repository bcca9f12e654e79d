"""Real worker processes on a real Kafka, and what the log and the ledger say about them.

    fleet.start("a"); fleet.start("b")
    handles = [fleet.app.enqueue("walk", {"items": 500}) for _ in range(8)]
    fleet.worker("a").kill()
    fleet.finish(handle.id for handle in handles)

Workers are started by the command that a user types. Their log is JSON, so a test can ask what happened in a process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from processor.app import App
from processor.broker.base import Admin, Committed, Isolation, OutRecord, Reader, Record, TopicPartition, TopicSpec
from processor.broker.kafka import KafkaBroker, KafkaConfig
from processor.broker.partitioner import partition_for
from processor.core.checkpoint import NUMBER_KEY
from processor.core.offset_metadata import OffsetMetadata, decode
from processor.errors import BrokerUnavailable, RetriableBrokerError
from processor.job import Job, Lane
from processor.job_ids import uuid7
from processor.states import TERMINAL, State
from processor.wire import topics
from processor.wire.codec import decode_dead_letter, decode_status, encode
from processor.wire.groups import queue_group, slot_of
from processor.wire.headers import routing_headers
from processor.wire.records import DeadLetterRecord, StatusRecord
from processor.wire.settings_sources import load_settings
from tests.integration import jobs_app
from tests.integration.jobs_app import PARTITIONS, QUEUE
from tests.waiting import eventually

Answer = TypeVar("Answer")
Line = dict[str, Any]
"""A line of the ledger, or of a worker's log."""

QUICK: Mapping[str, str] = {
    "worker.session_timeout": "3s",
    "worker.heartbeat": "200ms",
    "topics.retry_partitions": "1",
    "topics.status_partitions": "2",
    "topics.replication": "1",
}
"""Short times and few partitions."""


class Process:
    """One worker process."""

    def __init__(self, slot: str, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.slot = slot
        number = len(list(folder.glob(f"{slot}.*.log")))
        self.log_path = folder / f"{slot}.{number}.log"
        self.killed_at: float | None = None
        """Monotonic seconds."""
        with self.log_path.open("wb") as output:
            self._process = subprocess.Popen(command, cwd=folder, env=dict(env), stdout=output, stderr=output)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._process.kill()
        self._process.wait()
        self.killed_at = time.monotonic()

    def terminate(self) -> None:
        """SIGTERM: stop in good order."""
        self._process.terminate()

    def hang_up(self) -> None:
        """SIGHUP: stop in good order without leaving the group."""
        self._process.send_signal(signal.SIGHUP)

    def freeze(self) -> None:
        """SIGSTOP; returns when it acts."""
        self._process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", 5, f"{self.slot} frozen")

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout: float = 40.0) -> int:
        """Its exit code."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.slot} has not ended within {timeout:g} s: {self.tail()}") from None

    def lines(self) -> list[Line]:
        """Its log so far; what is no JSON comes as the event `text`."""
        return [_line(line) for line in self.log_path.read_text("utf-8", "replace").splitlines(keepends=True)]

    def events(self, name: str) -> list[Line]:
        """Log lines of this name."""
        return [line for line in self.lines() if line["event"] == name]

    def text(self) -> str:
        """Its whole output."""
        return self.log_path.read_text("utf-8", "replace")

    def tail(self) -> str:
        """Its last words."""
        return self.text()[-6000:]


class Fleet:
    """The workers of one namespace, and the log seen from outside."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.folder = folder
        self.settings: dict[str, str] = dict(QUICK)
        """For every worker started from now on."""
        self.processes: list[Process] = []
        self.broker = KafkaBroker(KafkaConfig(bootstrap=bootstrap))
        self.app: App = jobs_app.build(namespace, load_settings({**QUICK, "kafka.bootstrap": bootstrap}, env={}))
        self._ledger_path = folder / "ledger"
        self._reader: Reader | None = None
        self._read: list[TopicPartition] = []
        self._records: dict[str, list[Record]] = defaultdict(list)
        self._producer = self.broker.producer()

    # --- topics ---------------------------------------------------------------------------------------------------

    def create_topics(self, *, but: str = "", **partitions: int) -> None:
        """What the app needs. `but`: leave this one out. Keywords: another number of partitions for `jobs` and such."""
        specs = [
            TopicSpec(
                name=spec.name,
                partitions=partitions.get(spec.name.removeprefix(f"{self.namespace}.").split(".")[0], spec.partitions),
                replication=1,
                config=spec.config,
            )
            for spec in self.app.topic_plan()
            if spec.name != but
        ]
        self.broker.admin().create_topics(specs)

    def lane(self, lane: Lane = Lane.NORMAL, number: int = 0) -> TopicPartition:
        """A lane partition."""
        return TopicPartition(topics.jobs_topic(self.namespace, QUEUE, lane), number)

    @property
    def checkpoints(self) -> str:
        return topics.checkpoints_topic(self.namespace, QUEUE)

    # --- workers --------------------------------------------------------------------------------------------------

    def start(
        self,
        slot: str,
        *,
        bootstrap: str | None = None,
        env: Mapping[str, str] | None = None,
        supervised: bool = False,
        concurrency: int | None = None,
        flags: Sequence[str] = (),
    ) -> Process:
        """Start a worker in this slot. `concurrency`: slots for each kind of executor, if not the queue's own. `flags`:
        of the command, added to the others.
        """
        settings = {"worker.state_dir": str(self.folder / "state"), **self.settings}
        named = {f"PROCESSOR_{name.replace('.', '__').upper()}": value for name, value in settings.items()}
        process = Process(
            slot,
            [
                *self.command(slot, bootstrap or self.bootstrap, supervised=supervised),
                *([] if concurrency is None else ["--concurrency", str(concurrency)]),
                *flags,
            ],
            self.folder,
            self.env(named, env),
        )
        self.processes.append(process)
        return process

    def command(self, slot: str, bootstrap: str, *, supervised: bool = False) -> list[str]:
        """What a user would type."""
        app = f"{jobs_app.__file__}:app"
        flags = [
            "--supervise" if supervised else "--no-supervise",
            "--log-format",
            "json",
            "--instance",
            slot,
            "-q",
            QUEUE,
            "--bootstrap",
            bootstrap,
        ]
        return [sys.executable, "-m", "processor", "worker", app, *flags]

    def env(self, *more: Mapping[str, str] | None) -> dict[str, str]:
        """The environment of a worker: none of the settings that the tests themselves run with."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PROCESSOR_")}
        env |= {"JOBS_NAMESPACE": self.namespace, "JOBS_LEDGER": str(self._ledger_path), "PYTHONFAULTHANDLER": "1"}
        for values in more:
            env |= values or {}
        return env

    def start_ready(self, *slots: str, **how: Any) -> list[Process]:
        """Start workers together and wait until all numbers have an owner."""
        started = [self.start(slot, **how) for slot in slots]
        self.until_owned()
        eventually(lambda: all(p.events("worker.ready") for p in started), 40, self.describe)
        return started

    def until_owned(self, timeout: float = 40.0) -> None:
        """Wait until every number was claimed by a worker that is a member now."""
        eventually(lambda: len(self.owners()) == PARTITIONS, timeout, self.describe)

    def owners(self) -> dict[int, str]:
        """Number -> slot of the member that owns its normal lane now and has claimed it."""
        owned = {
            place.partition: slot_of(member.instance_id or "")
            for member in self._ask(lambda admin: admin.members(self.group))
            for place in member.partitions
        }
        metas = self.metadata()
        return {n: slot for n, slot in owned.items() if (meta := metas.get(n)) and meta.slot == slot}

    def reconnect(self) -> None:
        """Ask with new clients from now on: after an outage it is the workers that are watched, not these."""
        self._producer.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._records.clear()
        self.broker = KafkaBroker(KafkaConfig(bootstrap=self.bootstrap))
        self._producer = self.broker.producer()

    def _ask(self, question: Callable[[Admin], Answer]) -> Answer:
        """A cluster that has just started, or comes back, refuses many a question for a moment."""
        deadline = time.monotonic() + 40.0
        while True:
            try:
                return question(self.broker.admin())
            except (RetriableBrokerError, BrokerUnavailable):
                if time.monotonic() > deadline:
                    raise

    @property
    def group(self) -> str:
        """That of the queue."""
        return queue_group(self.namespace, QUEUE)

    def worker(self, slot: str) -> Process:
        """The newest process in this slot."""
        return next(process for process in reversed(self.processes) if process.slot == slot)

    def close(self) -> None:
        """End everything at once."""
        for process in self.processes:
            if process.alive:
                process.kill()
        self._producer.close()
        if self._reader is not None:
            self._reader.close()
        self.app.close()

    # --- jobs -----------------------------------------------------------------------------------------------------

    def append(
        self,
        job_type: str,
        payload: Any = None,
        *,
        job_id: str | None = None,
        key: str | None = None,
        version: int = 1,
        lane: Lane = Lane.NORMAL,
    ) -> Job:
        """Append a job as another program, or a forwarder, might write it. Not acknowledged before `flush`."""
        now_ms = time.time_ns() // 1_000_000
        data = json.dumps(payload).encode()
        job = Job(job_id or uuid7(now_ms), job_type, version, QUEUE, data, now_ms, key)
        self.append_raw(lane, (key or job.id).encode(), encode(job), headers=routing_headers(job))
        return job

    def append_raw(
        self,
        lane: Lane,
        key: bytes | None,
        value: bytes | None,
        *,
        number: int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> int:
        """Append whatever it is to a lane; its number."""
        number = partition_for(key or b"", PARTITIONS) if number is None else number
        self._producer.append(OutRecord(self.lane(lane).topic, key, value, headers, number))
        return number

    def flush(self) -> None:
        """Everything appended by hand is in the log."""
        assert self._producer.flush(20.0) == 0

    def put(self, record: OutRecord) -> None:
        """Append a record to any topic, and wait for it."""
        self._producer.append(record)
        self.flush()

    @staticmethod
    def number_of(key: str) -> int:
        """The number of a key, or of an id without a key."""
        return partition_for(key.encode(), PARTITIONS)

    def id_for(self, number: int, prefix: str) -> str:
        """An id that belongs to this number."""
        return next(name for i in range(10_000) if self.number_of(name := f"{prefix}-{i}") == number)

    # --- the ledger -----------------------------------------------------------------------------------------------

    def ledger(self, what: str = "") -> list[Line]:
        """What handlers have noted, in the order of writing."""
        if not self._ledger_path.exists():
            return []
        whole = (line for line in self._ledger_path.read_text().splitlines(keepends=True) if line.endswith("\n"))
        lines = [json.loads(line) for line in whole]
        return [line for line in lines if not what or line["what"] == what]

    def redone(self) -> int:
        """Items and effects that ran more than once."""
        counts = Counter((line["job"], line["what"], line.get("item"), line.get("step")) for line in self._effects())
        return sum(count - 1 for count in counts.values())

    def _effects(self) -> list[Line]:
        return [line for line in self.ledger() if line["what"] in {"item", "effect", "leaf"}]

    def until_noted(self, count: int, what: str = "item", timeout: float = 30.0) -> None:
        """Wait until handlers noted so many lines of this kind, counted from now."""
        before = len(self.ledger(what))
        eventually(lambda: len(self.ledger(what)) >= before + count, timeout, self.describe)

    # --- the log --------------------------------------------------------------------------------------------------

    def records(self, topic: str) -> list[Record]:
        """Committed records of the status, dead-letter, checkpoint or dedupe topic up to now."""
        if self._reader is None:
            ns = self.namespace
            read = [topics.status_topic(ns), topics.dlq_topic(ns), self.checkpoints, topics.dedupe_topic(ns, QUEUE)]
            found = self.broker.admin().topics(read)
            self._reader = self.broker.reader()
            self._read = [TopicPartition(t, n) for t, i in found.items() for n in range(i.partitions)]
            self._reader.assign(dict.fromkeys(self._read, 0))
        reader = self._reader
        # Up to what is the end now: jobs that save every few milliseconds would keep a reader of "all" for ever.
        ends = self._ask(lambda admin: admin.end_offsets(self._read, Isolation.COMMITTED))
        while any(reader.position(place) < end for place, end in ends.items()):
            batch = reader.fetch(2000, 0.5)
            for record in batch.records:
                self._records[record.topic() or ""].append(record)
            if not (batch.records or batch.ends):
                break
        return self._records[topic]

    def statuses(self) -> list[StatusRecord]:
        """All status records."""
        return [decode_status(r.value() or b"") for r in self.records(topics.status_topic(self.namespace)) if r.value()]

    def ends(self) -> dict[tuple[str, int], list[StatusRecord]]:
        """Every terminal status record of each (id, life)."""
        found: dict[tuple[str, int], list[StatusRecord]] = defaultdict(list)
        for status in self.statuses():
            if status.state in TERMINAL:
                found[status.id, status.life].append(status)
        return dict(found)

    def state_of(self, job_id: str) -> State | None:
        """The last state of a job."""
        return next((status.state for status in reversed(self.statuses()) if status.id == job_id), None)

    def end_of(self, job_id: str, timeout: float = 40.0) -> StatusRecord:
        """Wait for the end of a job."""
        return eventually(lambda: self.ends().get((job_id, 1), []), timeout, self.describe)[0]

    def dead_letters(self) -> list[DeadLetterRecord]:
        """What lies in the dead-letter topic."""
        return [decode_dead_letter(r.value() or b"") for r in self.records(topics.dlq_topic(self.namespace))]

    def dead_letter(self, reason: str, timeout: float = 40.0) -> DeadLetterRecord:
        """Wait for a dead letter with this reason."""
        return eventually(
            lambda: [letter for letter in self.dead_letters() if letter.reason == reason], timeout, self.describe
        )[0]

    def committed(self) -> dict[TopicPartition, Committed]:
        """Finished commits of the group, of all lanes."""
        lanes = [self.lane(lane, n) for lane in (Lane.NORMAL, Lane.DUE) for n in range(PARTITIONS)]
        return self._ask(lambda admin: admin.committed(self.group, lanes, stable=False))

    def metadata(self) -> dict[int, OffsetMetadata]:
        """What is stored beside the offset of each normal lane."""
        found = {}
        for place, entry in self.committed().items():
            meta = decode(entry.metadata, entry.offset) if entry.offset is not None else None
            if place.topic == self.lane().topic and meta is not None:
                found[place.partition] = meta
        return found

    def lag(self) -> dict[TopicPartition, int]:
        """Records between the committed offset and the end of each lane, where there are any."""
        committed = self.committed()
        ends = self._ask(lambda admin: admin.end_offsets(committed))
        lag = {place: ends[place] - (entry.offset or 0) for place, entry in committed.items()}
        return {place: count for place, count in lag.items() if count}

    def live_keys(self) -> set[str]:
        """Keys of the checkpoint topic whose last record is no tombstone."""
        values = {(r.partition(), r.key()): r.value() for r in self.records(self.checkpoints)}
        return {(key or b"").decode() for (_, key), value in values.items() if value is not None and key != NUMBER_KEY}

    def live(self) -> set[str]:
        """Jobs that the checkpoint topic still holds something of."""
        return {key.split("#")[0] for key in self.live_keys()}

    # --- waiting --------------------------------------------------------------------------------------------------

    def finish(self, ids: Iterable[str], timeout: float = 60.0) -> None:
        """Wait until these jobs have ended."""
        wanted = {(job_id, 1) for job_id in ids}
        eventually(lambda: wanted <= self.ends().keys(), timeout, lambda: f"{self._missing(wanted)} {self.describe()}")

    def settle(self, timeout: float = 30.0) -> None:
        """Wait until every lane is committed to its end and no checkpoint is left."""
        eventually(lambda: not self.lag() and not self.live(), timeout, self.describe)

    def check_ends(self, *, told_twice: bool = False) -> None:
        """One terminal state for each life, told once (after a crash the same end may be told again)."""
        for (job_id, life), found in self.ends().items():
            states = {status.state for status in found}
            assert len(states) == 1, f"{job_id} life {life} ended as {states}"
            assert told_twice or len(found) == 1, f"the end of {job_id} was told {len(found)} times"

    def _missing(self, wanted: set[tuple[str, int]]) -> str:
        missing = sorted(job_id for job_id, _ in wanted - self.ends().keys())
        return f"{len(missing)} jobs have not ended, {missing[:5]}"

    def describe(self) -> str:
        """What a failed wait wants to say."""
        lag = {f"{place.topic}-{place.partition}": count for place, count in self.lag().items()}
        logs = "\n".join(f"--- {p.slot} pid {p.pid} alive {p.alive}\n{p.tail()}" for p in self.processes[-4:])
        return f"lag {lag}, live {sorted(self.live())[:5]}, metadata {self.metadata()}\n{logs}"


def _line(text: str) -> Line:
    if text.startswith("{") and text.endswith("\n"):
        line: Line = json.loads(text)
        return line
    return {"event": "text", "text": text}
