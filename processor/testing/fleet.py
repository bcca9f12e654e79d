"""The worker processes of a Testbed: real engines, each in a group of actors that can be killed together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from processor.admin.orders import Operator
from processor.admin.schedules import apply_schedules
from processor.app import App, apps
from processor.broker.memory import MemoryBroker, MemoryProcess
from processor.context.port import Observer
from processor.engine.config import QueueConfig, WorkerConfig
from processor.engine.loop import Worker
from processor.engine.pool import Pool
from processor.engine.state import EngineState
from processor.executors.event_loop import AsyncPool
from processor.executors.loading import run_start_hooks
from processor.executors.threads import ThreadPool
from processor.job_types import JobType
from processor.runtime.stepping import SteppingRuntime
from processor.testing.event_loop import SteppingEventLoop

LOOK = 0.05
"""Virtual seconds between two looks at the log, by workers and by whoever waits for them."""


class TestbedError(AssertionError):
    """The test cannot go on: something that was waited for did not happen, or a worker broke."""

    __test__ = False


@dataclass(slots=True, eq=False)
class BedProcess:
    """A worker process."""

    name: str
    slot: str
    broker: MemoryProcess
    engine: Worker | None = None
    """There once the process has begun to run."""
    over: bool = False

    def unfinished(self) -> list[str]:
        """Ids of the jobs it has taken and not ended."""
        numbers = [] if self.engine is None else list(self.engine.state.numbers.values())
        return [job_id for number in numbers for job_id in number.jobs.attempts]


class Fleet:
    """The processes of one app."""

    def __init__(
        self,
        runtime: SteppingRuntime,
        broker: MemoryBroker,
        app: App,
        partitions: int,
        observer: Observer,
        dedupe_window: float,
    ) -> None:
        self.app = app
        self.queues = [replace(q, partitions=min(q.partitions, partitions)) for q in app.queues.values()]
        self._runtime = runtime
        self._broker = broker
        self._observer = observer
        self._operator = Operator(by="testbed", clock=runtime.clock)
        self._dedupe_window = dedupe_window
        self._slots = 0
        self._processes: list[BedProcess] = []

    def add(self) -> BedProcess:
        """Start a process in a slot of its own."""
        self._slots += 1
        return self.start(f"bed-{self._slots}")

    def start(self, slot: str) -> BedProcess:
        """Start a process in this slot."""
        name = f"{slot}.{len(self._processes) + 1}"
        process = BedProcess(name, slot, self._broker.process(name))
        self._processes.append(process)
        config = self._config(slot)

        def live() -> None:
            try:
                for job_type in self.app.job_types.values():
                    job_type.check()
                apply_schedules(process.broker, self.app.namespace, self.app.schedules.values(), self._operator)
                run_start_hooks(self.app)
                engine = process.engine = Worker(
                    self._runtime, process.broker, config, self.app.job_types, self._make_pool
                )
                engine.state.shared = engine.state.shared._replace(observer=self._observer)
                engine.run()
            finally:
                process.over = True

        with self._runtime.group(name):
            self._runtime.start(name, live)
        return process

    def alive(self) -> list[BedProcess]:
        """Those that were neither killed nor have ended, oldest first."""
        return [process for process in self._processes if not process.over]

    def chosen(self, name: str | None) -> BedProcess:
        """The one of that name; None: the oldest.

        Raises:
            TestbedError: it is not alive.
        """
        alive = self.alive()
        found = next((process for process in alive if name in (None, process.name)), None)
        if found is None:
            raise TestbedError(f"there is no worker {name or ''} alive, only {[process.name for process in alive]}")
        return found

    def kill(self, process: BedProcess) -> None:
        """SIGKILL. Does not return if the caller belongs to the process."""
        process.over = True
        process.broker.kill()
        self._runtime.kill(process.name)

    def kill_all(self) -> None:
        """The connections of all of them die; their actors with the runtime."""
        for process in self.alive():
            process.over = True
            process.broker.kill()

    def _config(self, slot: str) -> WorkerConfig:
        queues = tuple(
            QueueConfig(name=q.name, partitions=q.partitions, lanes=q.lanes, concurrency=q.concurrency, order=q.order)
            for q in self.queues
        )
        return WorkerConfig(
            namespace=self.app.namespace,
            slot=slot,
            queues=queues,
            idle_wait=LOOK,
            idle_wait_max=LOOK,
            quarantine=False,
            schedules=bool(self.app.schedules),
            dedupe_window=self._dedupe_window,
        )

    def _make_pool(self, engine: EngineState, queue: str, slots: int, kind: str) -> Pool:
        """Handlers of a process executor run in threads as well: here a process is a group of actors."""
        name = f"{engine.config.slot}-{queue}-{kind}"
        if kind.startswith("alone-"):
            kind, slots = kind.removeprefix("alone-"), 1
        if kind == "async":
            return AsyncPool(self._runtime, engine.inbox, name, slots, SteppingEventLoop(self._runtime))
        return ThreadPool(self._runtime, engine.inbox, name, slots)


def no_app() -> TestbedError:
    """Nobody has said what the Testbed is to run."""
    return TestbedError("give the Testbed its app, or enqueue a job first")


def app_of(job_type: JobType[Any, Any]) -> App:
    """The app that a job type was declared in.

    Raises:
        TestbedError: it was not declared in any.
    """
    found = next((app for app in apps() if app.job_types.get(job_type.name) is job_type), None)
    if found is None:
        raise TestbedError(f"{job_type!r} belongs to no app: declare it with @app.job")
    return found
