"""`Testbed`: your jobs on a log in memory, with crashes where you want them; no Kafka, no sleep, no flaky test.

    def test_resumes_after_a_crash(bed: Testbed) -> None:       # a pytest fixture that comes with the package
        h = bed.enqueue(import_file, Import(url="...", customer="c1"))
        bed.crash_worker(at="rows", after=500)
        bed.drain()
        assert bed.runs(h, "head") == 1
        assert bed.reprocessed(h, "rows") <= bed.checkpoint_gap("rows")

It runs the real worker: the same consumer group, checkpoints and transactions as in production, on a memory log that
fences, hides and compacts as Kafka does. What differs:

- *Time is virtual.* It moves when everybody waits, or by `advance`; each step and each item of a loop take a little of
  it (`step_seconds`, `item_seconds`). `asyncio.sleep` takes virtual time; `time.sleep` stops everything for real.
- *One thing runs at a time*, in an order drawn from `seed`. Try some seeds to see your jobs interleave otherwise.
- Handlers with `executor="process"` run in a thread.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

from processor.app import App
from processor.broker.base import TopicPartition
from processor.broker.memory import MemoryBroker
from processor.client.handles import Handle, JobStatus
from processor.client.sender import Client, ClientConfig
from processor.core.replay.spec import Spec
from processor.core.topic_plan import topic_plan
from processor.declarations import Enqueue, EnqueueOptions
from processor.enqueueing import start
from processor.job_ids import uuid7
from processor.job_types import JobType
from processor.runtime.stepping import Deadlock, SteppingRuntime
from processor.states import State
from processor.testing.fleet import LOOK, BedProcess, Fleet, TestbedError, app_of, no_app
from processor.testing.history import Again, run_again, send_back
from processor.testing.watch import CrashPoint, FailPoint, LogWatch, Watcher
from processor.wire.durations import Duration, parse_duration
from processor.wire.records import DeadLetterRecord, StatusRecord
from processor.wire.topics import QueueSpec, TopicShape

__all__ = ["Testbed", "TestbedError"]

P = TypeVar("P")
R = TypeVar("R")
_SHAPE = TopicShape(retry_partitions=1, status_partitions=1)


class Testbed:
    """Jobs on a log in memory, with crashes where a test wants them.

    Args:
        app: the app under test; None: that of the first job type enqueued.
        seed: draws the order in which things run.
        workers: how many there are at the beginning.
        partitions: of each queue, at most.
        step_seconds: virtual time that each call of a step's function takes.
        item_seconds: virtual time that each item of a loop takes.
        dedupe_window: how long idempotency keys are remembered.
    """

    __test__ = False

    def __init__(
        self,
        app: App | None = None,
        *,
        seed: int = 0,
        workers: int = 1,
        partitions: int = 3,
        step_seconds: float = 0.01,
        item_seconds: float = 0.01,
        dedupe_window: Duration = "24h",
    ) -> None:
        self.runtime = SteppingRuntime(seed=seed)
        runtime = self.runtime
        self.broker = MemoryBroker(runtime.clock, lambda ready, timeout: runtime.wait_for(ready, timeout))
        self._seconds = {"step": step_seconds, "item": item_seconds}
        self._partitions = partitions
        self._dedupe_window = parse_duration(dedupe_window, name="dedupe_window")
        self._first_workers = workers
        self._ids = random.Random(seed)  # noqa: S311  (job ids that come out the same again)
        self._watcher = Watcher(lambda what: runtime.pass_time(self._seconds[what]), self._crash_caller)
        self._log: LogWatch | None = None
        self._fleet: Fleet | None = None
        if app is not None:
            self._open(app)

    def __enter__(self) -> Testbed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    # --- jobs -----------------------------------------------------------------------------------------------------

    @overload
    def enqueue(self, job_type: JobType[None, R], payload: None = None, **how: Unpack[EnqueueOptions]) -> Handle[R]: ...
    @overload
    def enqueue(self, job_type: JobType[P, R], payload: P, **how: Unpack[EnqueueOptions]) -> Handle[R]: ...
    def enqueue(self, job_type: JobType[Any, R], payload: Any = None, **how: Unpack[EnqueueOptions]) -> Handle[R]:
        """Start a job, as `job_type.enqueue` does; nothing runs before `drain`, `advance` or `crash_worker`.

        Raises:
            PayloadInvalid, PayloadTooLarge: the payload cannot be a job.
            TestbedError: the job type belongs to another app than the bed's.
        """
        app = app_of(job_type)
        self._open(app)
        wanted = Enqueue(**how)
        # A fresh id comes from the seed: it decides the job's partition, so the run would differ each time.
        fresh = uuid7(self.runtime.clock.now_ms(), self._ids.randbytes(10))
        job_id = fresh if wanted.id is None else wanted.id
        job = job_type._job(payload, job_id, app.client())
        return start(app.client(), job, job_type._lane(wanted), wanted, job_type.decode_result)

    def runs(self, job: Handle[Any] | str, step: str) -> int:
        """How often the function of a step was really called.

        Args:
            job: a handle or id.
            step: the step's name; one without scope counts in every item of every loop: `refund` means
                `rows[1]/refund`, `rows[2]/refund`, and so on.
        """
        return self._watcher.count_runs(_id_of(job), step)

    def reprocessed(self, job: Handle[Any] | str, loop: str) -> int:
        """How many items of a loop were handed out again."""
        return self._watcher.repeated(_id_of(job), loop)

    def checkpoint_gap(self, loop: str) -> int:
        """What the crashes so far may cost: items that were handed out and not yet covered by a durable checkpoint when
        the worker died, summed over the crashes, of the job that lost most. `reprocessed` is never more.
        """
        return self._watcher.gap(loop)

    def status(self, job: Handle[Any] | str) -> JobStatus:
        """Where a job stands, as a client reads it."""
        return self._handle(job).status()

    def result(self, job: Handle[R]) -> R:
        """What the job's handler returned.

        Raises:
            JobFailed: it ended without success.
            JobNotFinished: it has not ended.
        """
        job.status()
        return job.result(timeout=0)

    @property
    def statuses(self) -> list[StatusRecord]:
        """Every status record that was written, in order."""
        return list(self._watch().statuses)

    def dead_letters(self) -> list[DeadLetterRecord]:
        """What lies in the dead-letter topic."""
        return list(self._watch().dead_letters)

    def redrive(self, job: Handle[Any] | str, *, from_zero: bool = False) -> None:
        """Send the job's dead letter back, as `processor dlq redrive` does; `drain` then runs its new life.

        Args:
            job: a handle or id.
            from_zero: begin at the beginning; else it goes on from what it had saved.

        Raises:
            TestbedError: it has no open dead letter, or it cannot be sent back; it says why.
        """
        send_back(self.broker, self.runtime, self._running().app.namespace, _id_of(job), from_zero=from_zero)

    def replay(self, *jobs: Handle[Any] | str, **what: Unpack[Again]) -> list[str]:
        """Run jobs again, as `processor replay run` does; without any, all that the filters of `what` mean.

        Returns their ids, in their order. Raises TestbedError if there is none, or one cannot be replayed.
        """
        namespace = self._running().app.namespace
        return run_again(self.broker, self.runtime, Spec(namespace=namespace, ids=tuple(map(_id_of, jobs)), **what))

    # --- workers --------------------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[str]:
        """Names of the worker processes that are alive, oldest first."""
        return [process.name for process in self._running().alive()]

    def add_worker(self) -> str:
        """Start one more worker process; its name."""
        return self._running().add().name

    def stop_worker(self, name: str | None = None) -> None:
        """Stop a worker in good order (SIGTERM): its jobs save and yield, its numbers move to the others.

        Args:
            name: one of `workers`; None: the oldest.

        Raises:
            TestbedError: it does not end.
        """
        process = self._running().chosen(name)
        if process.engine is not None:
            process.engine.stop()
        self._until(lambda: process.over, 120.0, lambda: f"worker {process.name} does not stop")

    def crash_worker(self, name: str | None = None, *, at: str | None = None, after: int | None = None) -> None:
        """Kill a worker process like SIGKILL, and start a fresh one in its place, which reads the log.

        Nothing is flushed any more; every object of the process is gone.

        Args:
            name: kill this one of `workers` now; None: the oldest.
            at: run until a job gets here, and kill its worker there: name of a loop or step. A step: when its function
                has returned and the log knows nothing of it.
            after: for a loop: when this many items are done.

        Raises:
            TestbedError: no job got there.
        """
        fleet = self._running()
        if at is None:
            process = fleet.chosen(name)
            self._kill(process)
        else:
            process = self._crashed_at(CrashPoint(at, after))
        fleet.start(process.slot)

    def fail(
        self,
        *,
        at: str,
        after: int | None = None,
        error: BaseException | None = None,
        times: int | None = 1,
    ) -> None:
        """Let handlers fail from now on: whoever gets there raises `error`.

        Args:
            at: name of a step, instead of whose function it is raised; or of a loop.
            after: for a loop: when this many items are done, in the next one.
            error: an instance, a `RuntimeError` if none is given.
            times: so often, over all jobs and attempts; None: until `mend`.
        """
        raised = RuntimeError(f"the test lets {at!r} fail") if error is None else error
        self._watcher.fail_points.append(FailPoint(at, after, raised, times))

    def mend(self) -> None:
        """Nothing fails any more that `fail` has broken."""
        self._watcher.fail_points.clear()

    # --- time -----------------------------------------------------------------------------------------------------

    def advance(self, duration: Duration) -> None:
        """Let virtual time pass."""
        self.runtime.pass_time(parse_duration(duration))
        self._raise_failures()

    def drain(self, limit: Duration = "30m") -> None:
        """Let virtual time pass until every job has ended, children too.

        A job that is enqueued again under its idempotency key counts by its last end, so `advance` first.
        Raises:
            TestbedError: some have not within `limit`, or wait for a person; it says which, and how they stand.
        """
        self._until(
            self._is_drained,
            parse_duration(limit),
            lambda: f"jobs that do not end within {limit}: {self._unfinished()}",
        )

    def close(self) -> None:
        """End everything at once; the app goes back to the broker it had before. The fixture does it."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.kill_all()
        self.runtime.close()
        if fleet is not None:
            fleet.app.unbind()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _open(self, app: App) -> None:
        """Create the topics and start the workers, at the first use."""
        if self._fleet is not None:
            if app is not self._fleet.app:
                raise TestbedError(f"this Testbed runs app {self._fleet.app.namespace}, not {app.namespace}")
            return
        fleet = self._fleet = Fleet(
            self.runtime, self.broker, app, self._partitions, self._watcher, self._dedupe_window
        )
        specs = [QueueSpec(name=q.name, partitions=q.partitions, lanes=q.lanes) for q in fleet.queues]
        plan = topic_plan(app.namespace, specs, shape=_SHAPE)
        self.broker.admin().create_topics(plan)
        partitions = [TopicPartition(topic.name, p) for topic in plan for p in range(topic.partitions)]
        self._log = LogWatch(self.broker, partitions)
        runtime = self.runtime
        client = Client(
            ClientConfig(namespace=app.namespace, dedupe_window=self._dedupe_window),
            lambda: self.broker,
            clock=runtime.clock,
            pause=lambda event, seconds: runtime.wait_for(event.is_set, seconds),
        )
        app.bind(self.broker, client)
        for _ in range(self._first_workers):
            self.add_worker()

    def _crashed_at(self, point: CrashPoint) -> BedProcess:
        """Run until a handler gets there; the process that died of it."""
        alive = self._running().alive()
        self._watcher.crash_at = point
        text = f"{point.name!r} after {point.after} items" if point.after is not None else f"step {point.name!r}"
        try:
            self._until(
                lambda: any(process.over for process in alive) or not self._watch().unfinished(),
                3600.0,
                lambda: f"no job came to {text}: {self._unfinished()}",
            )
        finally:
            self._watcher.crash_at = None
        dead = next((process for process in alive if process.over), None)
        if dead is None:
            raise TestbedError(f"every job has ended and none came to {text}")
        return dead

    def _crash_caller(self) -> None:
        """Kill the process whose handler calls this."""
        self._watcher.crash_at = None
        self._kill(self._running().chosen(self.runtime.current_group))

    def _kill(self, process: BedProcess) -> None:
        self._watcher.crashed(process.unfinished(), self._watch().durable_items)
        self._running().kill(process)

    def _watch(self) -> LogWatch:
        if self._log is None:
            raise no_app()
        self._log.read()
        return self._log

    def _running(self) -> Fleet:
        if self._fleet is None:
            raise no_app()
        return self._fleet

    def _handle(self, job: Handle[Any] | str) -> Handle[Any]:
        if isinstance(job, Handle):
            return job
        return self._running().app.handle(job)

    def _is_drained(self) -> bool:
        if self._log is None:
            return True
        states = set(self._watch().unfinished().values())
        if states == {State.IN_DOUBT}:
            raise TestbedError(f"these jobs wait for a person: {self._unfinished()}")
        return not states

    def _unfinished(self) -> str:
        return self._watch().told_unfinished()

    def _until(self, condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
        deadline = self.runtime.clock.monotonic() + seconds
        try:
            while not condition():
                self._raise_failures()
                if self.runtime.clock.monotonic() >= deadline:
                    raise TestbedError(what())
                self.runtime.pass_time(LOOK)
        except Deadlock as error:
            raise TestbedError(f"{what()}; {error}") from error
        self._raise_failures()

    def _raise_failures(self) -> None:
        if self.runtime.failures:
            name, error = self.runtime.failures.pop(0)
            raise TestbedError(f"{name} broke: {error!r}") from error


def _id_of(job: Handle[Any] | str) -> str:
    return job if isinstance(job, str) else job.id
