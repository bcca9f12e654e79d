"""Workers on a memory log in one stepping runtime: what the simulation and the tests of the invariants share.

scene = Scene(seed=7)
scene.define("plain", lambda ctx, p: p)
first = scene.start("w-0")
scene.enqueue("plain", "job-1")
scene.settle()                       virtual time passes until every job has ended
first.kill(); first.freeze(); first.thaw(); first.stop()
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, ClassVar

from processor.broker.base import Committed, OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import MemoryBroker, MemoryLimits, MemoryProcess
from processor.broker.partitioner import partition_for
from processor.core.checkpoint import NUMBER_KEY, KeyKind, SavedRecord, parse_key
from processor.core.live import LiveTable
from processor.core.outcome import Crashed
from processor.engine.attempt import Attempt
from processor.engine.config import QueueConfig, WorkerConfig
from processor.engine.loop import Worker
from processor.engine.pool import Pool
from processor.engine.state import EngineState
from processor.errors import PayloadInvalid, ProcessEnded
from processor.executors.threads import ThreadPool
from processor.job import Job, Lane
from processor.policies import JobOptions
from processor.runtime.stepping import SteppingRuntime
from processor.states import TERMINAL, State
from processor.wire import topics
from processor.wire.codec import (
    decode_alert,
    decode_checkpoint,
    decode_dead_letter,
    decode_live_job,
    decode_status,
    decode_step,
    encode,
)
from processor.wire.groups import queue_group
from processor.wire.headers import routing_headers
from processor.wire.records import AlertRecord, ControlRecord, DeadLetterRecord, StatusRecord

Handler = Callable[[Any, Any], Any]
NS = "sim"
QUEUE = "q"
GROUP = queue_group(NS, QUEUE)
BESIDE = "beside"
"""The queue of `Scene.beside`."""
PULSE = "pulse"
PULSES_EVERY = 0.025
"""Virtual seconds: about as long as the oldest record waits for a flush."""

LIMITS = MemoryLimits(session_seconds=3.0, transaction_seconds=6.0, transaction_scan_seconds=2.0)


class Kind:
    """A job type, as the worker sees it."""

    kind = "sync"
    executor = "thread"
    takes_payload = True
    options = JobOptions()

    def __init__(self, name: str, handler: Handler) -> None:
        self.name = name
        self.handler = handler

    def check(self) -> None:
        """Always well."""

    def decode_payload(self, data: bytes, version: int) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise PayloadInvalid(f"version {version}: {error}") from error

    def encode_result(self, value: Any, max_bytes: int) -> bytes | None:
        return None if value is None else json.dumps(value).encode()

    def child_record(self, payload: Any, *, child_id: str, parent: Job, now_ms: int, max_bytes: int) -> OutRecord:
        """A child in the normal lane; its ordering key is what the payload says."""
        del max_bytes
        key = payload.get("key") if isinstance(payload, dict) else None
        job = Job(
            id=child_id,
            type=self.name,
            version=1,
            queue=QUEUE,
            payload=json.dumps(payload).encode(),
            enqueued_at=now_ms,
            key=key,
            parent=parent.id,
            parent_life=parent.life,
        )
        return lane_record(job, derived=True)


def lane_record(job: Job, *, lane: Lane = Lane.NORMAL, derived: bool = False) -> OutRecord:
    """A job as a record of its lane."""
    where = topics.jobs_topic(NS, QUEUE, lane)
    return OutRecord(where, (job.key or job.id).encode(), encode(job), routing_headers(job, derived=derived))


def config(slot: str, partitions: int = 3, concurrency: int = 4) -> WorkerConfig:
    """Short times, so that a simulated minute has everything in it."""
    return WorkerConfig(
        namespace=NS,
        slot=slot,
        queues=(QueueConfig(name=QUEUE, partitions=partitions, concurrency=concurrency),),
        promote_after=1.0,
        announce_after=0.25,
        revoke_wait=1.0,
        grace=2.0,
        stable_wait=1.0,
        membership_proof=0.2,
        unknown_type_patience=4.0,
        refresh_every=30.0,
        idle_wait=0.02,
        idle_wait_max=0.02,
    )


@dataclass(slots=True, eq=False)
class Simulated:
    """One worker process."""

    scene: Scene
    name: str
    slot: str
    process: MemoryProcess
    engine: Worker | None = None
    frozen: bool = False
    was_frozen: bool = False
    over: bool = False
    """Killed, or its loop has ended."""

    @property
    def worker(self) -> Worker:
        """The engine; there once the process has begun to run."""
        assert self.engine is not None
        return self.engine

    def active(self, queue: str = QUEUE) -> set[int]:
        """Numbers of a queue whose jobs run here."""
        if self.engine is None:
            return set()
        return {number.partition for number in self.engine.state.active() if number.queue.name == queue}

    def kill(self) -> None:
        """SIGKILL."""
        self.over = True
        self.process.kill()
        self.scene.runtime.kill(self.name)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = self.was_frozen = True
        self.process.freeze()
        self.scene.runtime.freeze(self.name)

    def thaw(self) -> None:
        """SIGCONT."""
        self.frozen = False
        self.process.thaw()
        self.scene.runtime.thaw(self.name)

    def stop(self, *, leave: bool = True) -> None:
        """SIGTERM."""
        if self.engine is not None:
            self.engine.stop(leave=leave)


class ProcessDied(ProcessEnded):
    """What a handler raises to end the child process that it runs in."""


class QuarantinePool(ThreadPool):
    """As the process executor: each job alone in a child. Here a child is a thread that may die without its worker."""

    def __init__(self, scene: Scene, engine: EngineState, name: str, slots: int) -> None:
        super().__init__(scene.runtime, engine.inbox, name, slots)
        self._scene = scene

    def _run(self, attempt: Attempt) -> None:
        self._scene.quarantined.append(attempt.job.id)
        try:
            super()._run(attempt)
        except ProcessDied:
            attempt.outcome = Crashed("the child process was ended by SIGKILL")
            self._inbox.post(attempt)


@dataclass(slots=True)
class Scene:
    """See the module."""

    seed: int = 0
    partitions: int = 3
    limits: MemoryLimits = LIMITS
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Worker settings that differ from `config`."""
    runtime: SteppingRuntime = field(init=False)
    broker: MemoryBroker = field(init=False)
    kinds: dict[str, Kind] = field(init=False, default_factory=dict)
    _pulses: dict[str, Kind] = field(init=False, default_factory=dict)
    workers: list[Simulated] = field(init=False, default_factory=list)
    quarantined: list[str] = field(init=False, default_factory=list)
    """Ids of the jobs that ran alone in a child process."""
    concurrency: int = 4
    lanes: tuple[Lane, ...] = (Lane.NORMAL, Lane.DUE)
    beside: ClassVar[bool] = False
    """All workers serve a second queue too, and a job on each of its numbers saves all the time: so flushes hold the
    work and the offsets of two groups. Set for whole modules of tests; what the log says is told of `QUEUE` alone."""

    def __post_init__(self) -> None:
        runtime = self.runtime = SteppingRuntime(seed=self.seed)
        self.broker = MemoryBroker(
            runtime.clock, lambda predicate, timeout: runtime.wait_for(predicate, timeout), limits=self.limits
        )
        self.broker.admin().create_topics(
            [
                TopicSpec(name=name, partitions=self.partitions, config=settings)
                for name, settings in {**queue_topics(QUEUE, self.lanes), **TOPICS}.items()
            ]
            + [TopicSpec(name=name, partitions=1, config=settings) for name, settings in SINGLE.items()]
        )
        if self.beside:
            self._pulse()

    def _pulse(self) -> None:
        """Jobs of the other queue that never end and save all the time."""
        made = queue_topics(BESIDE)
        self.broker.admin().create_topics(
            [TopicSpec(name=name, partitions=self.partitions, config=settings) for name, settings in made.items()]
        )

        def pulse(ctx: Any, payload: Any) -> None:
            for place in count():
                ctx.checkpoint(place)
                self.runtime.pass_time(PULSES_EVERY)

        self._pulses = {PULSE: Kind(PULSE, pulse)}
        for number in range(self.partitions):
            job = Job(f"pulse-{number}", PULSE, 1, BESIDE, b"null", self.runtime.clock.now_ms())
            lane = topics.jobs_topic(NS, BESIDE)
            self.append(OutRecord(lane, job.id.encode(), encode(job), routing_headers(job), number))

    # --- jobs -----------------------------------------------------------------------------------------------------

    def define(self, name: str, handler: Handler, **options: Any) -> Kind:
        """Register a job type for all workers; `options`: fields of `JobOptions`."""
        kind = self.kinds[name] = Kind(name, handler)
        kind.options = JobOptions(**options)
        return kind

    def order(self, action: str, target: str, **fields: Any) -> None:
        """What an operator does: append an order to the control topic (`resume`: take it back)."""
        record = ControlRecord(target, action, self.runtime.clock.now_ms(), "me@here", **fields)
        value = None if action == "resume" else encode(record)
        self.append(OutRecord(topics.control_topic(NS), target.encode(), value))

    def enqueue(
        self,
        job_type: str,
        job_id: str,
        payload: Any = None,
        *,
        key: str | None = None,
        lane: Lane = Lane.NORMAL,
        life: int = 1,
        derived: bool = False,
        kill_at: int | None = None,
    ) -> Job:
        """Append a job as a client does it."""
        job = Job(
            id=job_id,
            type=job_type,
            version=1,
            queue=QUEUE,
            payload=json.dumps(payload).encode(),
            enqueued_at=self.runtime.clock.now_ms(),
            key=key,
            life=life,
            kill_at=kill_at,
        )
        self.append(lane_record(job, lane=lane, derived=derived))
        return job

    def append(self, record: OutRecord) -> None:
        """Append a record as it is."""
        producer = self.broker.producer()
        producer.append(record)
        producer.flush(5.0)

    def number_of(self, key: str) -> int:
        """The number that a job with this key (or id) belongs to."""
        return partition_for(key.encode(), self.partitions)

    def id_for(self, number: int, prefix: str = "job") -> str:
        """An id that belongs to this number."""
        return next(name for i in range(10_000) if self.number_of(name := f"{prefix}-{i}") == number)

    # --- workers --------------------------------------------------------------------------------------------------

    def start(self, slot: str, *, kinds: dict[str, Kind] | None = None, **settings: Any) -> Simulated:
        """Start a process in this slot."""
        name = f"{slot}.{len(self.workers)}"
        simulated = Simulated(self, name, slot, self.broker.process(name))
        self.workers.append(simulated)
        settings = {**self.settings, **settings}
        order = settings.pop("order", "block")
        made = config(slot, self.partitions, self.concurrency)
        made = replace(made, queues=tuple(replace(queue, lanes=self.lanes) for queue in made.queues))
        if self.beside:
            other = QueueConfig(name=BESIDE, partitions=self.partitions, concurrency=self.partitions)
            made = replace(made, queues=(*made.queues, other))
        made = replace(made, **settings)
        made = replace(made, queues=tuple(replace(queue, order=order) for queue in made.queues))

        def live() -> None:
            registry = ChainMap(self.kinds if kinds is None else kinds, self._pulses)
            simulated.engine = Worker(self.runtime, simulated.process, made, registry, self._pool)
            try:
                simulated.engine.run()
            finally:
                simulated.over = True

        with self.runtime.group(name):
            self.runtime.start(name, live)
        return simulated

    def _pool(self, engine: EngineState, queue: str, slots: int, kind: str) -> Pool:
        if kind == "quarantine":
            return QuarantinePool(self, engine, f"{engine.config.slot}-{queue}-{kind}", slots)
        slots = 1 if kind.startswith("alone") else slots
        return ThreadPool(self.runtime, engine.inbox, f"{engine.config.slot}-{queue}-{kind}", slots)

    @property
    def running(self) -> list[Simulated]:
        """Processes that are neither dead nor ended."""
        return [worker for worker in self.workers if not worker.over]

    # --- time -----------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Let virtual time pass until `condition()`; looks every few milliseconds."""
        deadline = self.runtime.clock.monotonic() + seconds
        while not condition():
            assert self.runtime.clock.monotonic() < deadline, self.describe()
            self.runtime.pass_time(0.05)

    def settle(self, seconds: float = 60.0) -> None:
        """Let virtual time pass until nothing is left to do: every lane read and committed to its end, nothing live."""
        self.until(self.is_settled, seconds)

    def is_settled(self) -> bool:
        """Whether the groups' offsets stand at the end of every lane and rung, and no checkpoint is live."""
        lags = (*self.lag().values(), *self.waiting().values())
        return not any(lags) and not any(len(table) for table in self.live().values())

    def active(self) -> bool:
        """Whether every number has an active owner."""
        return len({number for simulated in self.running for number in simulated.active()}) == self.partitions

    def close(self) -> None:
        """End everything at once."""
        for simulated in self.running:
            simulated.process.kill()
        self.runtime.close()

    # --- what the log says ----------------------------------------------------------------------------------------

    def statuses(self) -> list[StatusRecord]:
        """All status records, by partition and offset."""
        told = (decode_status(r.value() or b"") for r in self.broker.records(topics.status_topic(NS)))
        return [status for status in told if status.queue != BESIDE]

    def ends(self) -> dict[tuple[str, int], list[State]]:
        """Different terminal states of each (id, life), in order."""
        found: dict[tuple[str, int], list[State]] = {}
        for status in self.statuses():
            states = found.setdefault((status.id, status.life), [])
            if status.state in TERMINAL and status.state not in states:
                states.append(status.state)
        return found

    def state_of(self, job_id: str) -> State | None:
        """The last state of a job."""
        return next((status.state for status in reversed(self.statuses()) if status.id == job_id), None)

    def dead_letters(self) -> list[DeadLetterRecord]:
        """What lies in the dead-letter topic."""
        return [decode_dead_letter(r.value() or b"") for r in self.broker.records(topics.dlq_topic(NS))]

    def alerts(self) -> list[AlertRecord]:
        """What lies in the alerts topic."""
        return [decode_alert(r.value() or b"") for r in self.broker.records(topics.alerts_topic(NS))]

    def status_of(self, job_id: str) -> StatusRecord:
        """The last status of a job."""
        return next(status for status in reversed(self.statuses()) if status.id == job_id)

    def lane(self, lane: Lane = Lane.NORMAL, partition: int = 0) -> TopicPartition:
        """A lane partition."""
        return TopicPartition(topics.jobs_topic(NS, QUEUE, lane), partition)

    def committed(self) -> dict[TopicPartition, Committed]:
        """Finished commits of the group, of all lanes."""
        lanes = [self.lane(lane, p) for lane in self.lanes for p in range(self.partitions)]
        return self.broker.admin().committed(GROUP, lanes, stable=False)

    def lag(self) -> dict[TopicPartition, int]:
        """Records between the committed offset and the end of each lane."""
        committed = self.committed()
        ends = self.broker.admin().end_offsets(committed)
        return {lane: ends[lane] - (entry.offset or 0) for lane, entry in committed.items()}

    def waiting(self) -> dict[TopicPartition, int]:
        """Records between the forwarders' committed offset and the end of each rung."""
        rungs = [
            TopicPartition(topics.retry_topic(NS, delay), p)
            for delay in topics.RETRY_DELAYS
            for p in range(self.partitions)
        ]
        admin = self.broker.admin()
        ends = admin.end_offsets(rungs)
        committed = admin.committed(f"{NS}.forwarders", rungs, stable=False)
        return {rung: ends[rung] - (committed[rung].offset or 0) for rung in rungs}

    def live(self) -> dict[int, LiveTable]:
        """The checkpoint topic, folded as a restore from its beginning folds it."""
        tables = {number: LiveTable() for number in range(self.partitions)}
        for record in self.broker.records(topics.checkpoints_topic(NS, QUEUE)):
            key, value, table = record.key() or b"", record.value(), tables[record.partition() or 0]
            if key == NUMBER_KEY:
                continue
            if value is None:
                table.remove(key)
            else:
                table.put(key, value, record.offset() or 0, saved_record(key, value))
        return tables

    def describe(self) -> str:
        """What a failed wait wants to say."""
        live = {n: sorted(table.ids()) for n, table in self.live().items() if len(table)}
        lag = {f"{lane.topic}-{lane.partition}": count for lane, count in self.lag().items() if count}
        numbers = [
            f"{simulated.name}: {list(simulated.engine.state.numbers.values()) if simulated.engine else 'starting'}"
            for simulated in self.running
        ]
        now = self.runtime.clock.monotonic()
        return f"seed {self.seed}, at {now:.1f} s: lag {lag}, live {live}, workers {numbers}, {self.runtime.failures}"


def saved_record(key: bytes, value: bytes) -> SavedRecord | None:
    """A record of the checkpoint topic, decoded."""
    kind = parse_key(key).kind
    if kind is KeyKind.PROGRESS:
        return decode_checkpoint(value)
    if kind is KeyKind.STEP:
        return decode_step(value)
    return decode_live_job(value) if kind is KeyKind.JOB else None


_KEPT = {"cleanup.policy": "delete", "retention.ms": "-1"}
_RUNG = {**_KEPT, "message.timestamp.type": "LogAppendTime"}
_COMPACT = {"cleanup.policy": "compact"}


def queue_topics(queue: str, lanes: Iterable[Lane] = (Lane.NORMAL, Lane.DUE)) -> dict[str, Mapping[str, str]]:
    """Topics of a queue, and their settings."""
    return {
        **{topics.jobs_topic(NS, queue, lane): _KEPT for lane in lanes},
        topics.checkpoints_topic(NS, queue): _COMPACT,
        topics.dedupe_topic(NS, queue): {"cleanup.policy": "delete"},
    }


TOPICS: Mapping[str, Mapping[str, str]] = {
    **queue_topics(QUEUE),
    topics.status_topic(NS): {"cleanup.policy": "compact,delete"},
    topics.dlq_topic(NS): _KEPT,
    **{topics.retry_topic(NS, delay): _RUNG for delay in topics.RETRY_DELAYS},
}
SINGLE: Mapping[str, Mapping[str, str]] = {topics.control_topic(NS): _COMPACT, topics.alerts_topic(NS): _KEPT}
"""Topics of one partition."""
