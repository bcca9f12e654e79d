"""One worker process, put together: checks, start hooks, signals, probes, the engine, an exit code.

1. The topics are as the plan wants them, else exit code 4 and what to do.
2. What the app declares as schedules is written; its start hooks run: pools and clients of the user.
3. Signals, which were listened to before (`stop_signals`), reach the engine: SIGTERM or SIGINT stop in good order, a
   second one at once; SIGHUP ends without leaving the group, because somebody starts the same slot again.
4. Probes answer; the engine runs until it is stopped.

The broker is made by the caller after any fork, and passed in: this floor knows no concrete one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from processor import events
from processor.admin import verify_topics
from processor.admin.orders import Operator
from processor.admin.schedules import apply_schedules
from processor.engine.config import QueueConfig, WorkerConfig
from processor.engine.loop import Worker
from processor.errors import DefinitionError, ProcessorError, UnknownQueue
from processor.executors.loading import Application, run_start_hooks
from processor.executors.pools import make_pool
from processor.executors.random_state import reseed
from processor.process.probes import Address, Probes
from processor.process.stop_signals import StopSignals
from processor.runtime import ThreadedRuntime
from processor.runtime.gc_tuning import collect_seldom

if TYPE_CHECKING:
    from processor.broker.base import Broker, TopicSpec
    from processor.wire.settings import Settings

log = events.logger(__name__)

RECYCLED = 5
"""Exit code of a process that stopped in good order to be rid of attempts that nobody can end: start it anew."""
READY_LOOK = 0.02
"""Seconds between two looks whether the worker is ready, until it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What one worker process is told beside the settings."""

    queues: tuple[str, ...] = ()
    """Queues to serve; empty: all that a job type of the app uses."""
    concurrency: int | None = None
    """Overrides what each queue declares."""
    app_path: str | None = None
    """`MODULE:APP`, for the children of process executors."""
    folder: str | None = None
    """Working directory of those children; None: that of this process when they start."""
    http: Address | None = None
    """Where the probes listen; None: nowhere."""
    log_jobs: bool = False
    """A log line for each job that ends."""
    log_format: str = ""
    """For the logs of child processes: `text` or `json`."""


def worker_config(app: Application, settings: Settings, slot: str, options: ServeOptions) -> WorkerConfig:
    """The engine's config, from the app's declarations, the settings and the options.

    Raises:
        UnknownQueue: an option names a queue that the app does not declare.
        DefinitionError: handlers want processes of their own, and the app cannot be imported by name there.
    """
    used = {getattr(job_type, "queue", None) for job_type in app.job_types.values()}
    queues = _queues(app.queues, options, used)
    _refuse_unreachable(app, queues, options.app_path)
    for job_type in app.job_types.values():
        job_type.check()
    worker, topics = settings.worker, settings.topics
    return WorkerConfig(
        namespace=app.namespace,
        slot=slot,
        queues=queues,
        linger=worker.linger,
        idle_wait_max=worker.poll_idle,
        outbox_max_records=worker.outbox_max_records,
        outbox_max_bytes=worker.outbox_max_bytes,
        inflight_max_records=worker.inflight_max_records,
        inflight_max_bytes=worker.inflight_max_bytes,
        promote_after=worker.promote_after,
        revoke_wait=worker.revoke_wait,
        grace=worker.grace,
        stop_grace=worker.stop_grace,
        abandoned_max=worker.abandoned_max,
        unknown_type_patience=worker.unknown_type_patience,
        watchdog=worker.watchdog,
        schedules=True,
        status_retention=topics.status_retention,
        dedupe_window=topics.dedupe_window,
        replay_time=topics.replay_time,
        checkpoint_max_bytes=worker.checkpoint_max_bytes,
        result_max_bytes=worker.result_max_bytes,
        payload_max_bytes=settings.client.payload_max_bytes,
        tracing=worker.tracing,
        app_path=options.app_path,
        child_folder=options.folder,
        quarantine=options.app_path is not None,
        log_jobs=options.log_jobs,
        child_log_format=options.log_format,
        child_env={"PROCESSOR_KAFKA__BOOTSTRAP": settings.kafka.bootstrap},
    )


def serve(
    app: Application,
    broker: Broker,
    config: WorkerConfig,
    *,
    signals: StopSignals,
    plan: Sequence[TopicSpec],
    http: Address | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> int:
    """Be a worker process until told to stop; its exit code. Call it on the main thread.

    Raises:
        TopicMissing, TopicMismatch: the cluster's topics are not fit for these jobs.
        MemberFenced: another process took this slot.
        BrokerError: the cluster refuses, or did not answer the check of the topics.
    """
    for difference in verify_topics(broker, plan):
        log.warning("topics.differ", extra={"topic": difference.topic, "text": difference.text})
    apply_schedules(broker, app.namespace, app.schedules.values(), Operator(), max_bytes=config.payload_max_bytes)
    reseed()
    run_start_hooks(app)
    worker = Worker(ThreadedRuntime(), broker, config, app.job_types, make_pool)
    collect_seldom()
    signals.hand_to(lambda leave: worker.stop(leave=leave), config.grace)
    probes = None if http is None else Probes(worker, http)
    _announce_readiness(worker, config, on_ready)
    try:
        worker.run()
    except ProcessorError as error:
        log.error("worker.refused", extra={"error": str(error), "code": error.code, "hint": error.hint})
        return error.exit_code
    finally:
        if probes is not None:
            probes.close()
    log.info("worker.stopped", extra={"slot": config.slot})
    return RECYCLED if worker.recycled else 0


def _queues(
    declared: Mapping[str, Any], options: ServeOptions, used: Collection[str | None]
) -> tuple[QueueConfig, ...]:
    # A queue without a job type in this code has its handlers elsewhere: here its jobs would only be parked.
    unknown = [name for name in options.queues if name not in declared]
    if unknown:
        raise UnknownQueue(
            f"the app declares no queue {', '.join(unknown)}", hint=f"it declares {', '.join(sorted(declared))}"
        )
    chosen = options.queues or [name for name in declared if name in used] or tuple(declared)
    return tuple(
        QueueConfig(
            name=queue.name,
            partitions=queue.partitions,
            lanes=queue.lanes,
            concurrency=options.concurrency or queue.concurrency,
            order=queue.order,
        )
        for queue in (declared[name] for name in dict.fromkeys(chosen))
    )


def _refuse_unreachable(app: Application, queues: Sequence[QueueConfig], app_path: str | None) -> None:
    served = {queue.name for queue in queues}
    for job_type in app.job_types.values():
        wants = job_type.executor == "process" and getattr(job_type, "queue", None) in served
        if wants and app_path is None:
            raise DefinitionError(
                f"job type {job_type.name}: process executors need the app importable by name",
                hint="start the worker with MODULE:APP, so that its child processes can import the handler",
            )


def _announce_readiness(worker: Worker, config: WorkerConfig, on_ready: Callable[[], None]) -> None:
    clock = worker.state.clock
    began = clock.monotonic()
    pause = threading.Event()

    def look() -> None:
        while not worker.ready:
            pause.wait(READY_LOOK)
        numbers = len(worker.state.numbers)
        seconds = round(clock.monotonic() - began, 3)
        log.info("worker.ready", extra={"slot": config.slot, "numbers": numbers, "seconds": seconds})
        on_ready()

    threading.Thread(target=look, name="readiness", daemon=True).start()
