"""`processor worker MODULE:APP`: run the jobs of an app. Composes settings, slots, Kafka and the worker's processes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Output

if TYPE_CHECKING:
    from processor.app import App
    from processor.broker.base import Broker
    from processor.engine.config import WorkerConfig
    from processor.process.probes import Address
    from processor.process.slots import Slot
    from processor.process.starter import Starter
    from processor.process.stop_signals import StopSignals
    from processor.wire.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the command line said."""

    app_path: str
    queues: tuple[str, ...]
    processes: int | None
    concurrency: int | None
    instance: str | None
    http: str | None
    grace: str | None
    log_format: str
    log_jobs: bool
    bootstrap: str | None
    supervise: bool
    ready_fd: int | None = None
    """A pipe of whoever started this: told when the worker is ready, and what it has loaded."""

    def overrides(self) -> dict[str, Any]:
        """The flags that are settings."""
        return {
            "worker.processes": self.processes,
            "worker.grace": self.grace,
            "kafka.bootstrap": self.bootstrap,
        }


@click.command()
@click.argument("app_path", metavar="MODULE:APP", envvar="PROCESSOR_APP")
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    help="Serve this queue; several times for more. Default: all that a job type uses.",
)
@click.option("--processes", type=click.IntRange(1, 512), help="Worker processes, each in a slot of its own.")
@click.option("--concurrency", type=click.IntRange(1), help="Jobs at a time per queue, process and kind of executor.")
@click.option("--instance", help="Name of the slot. Default: the lowest free number of this host.")
@click.option("--http", metavar="[HOST:]PORT", help="Probes and metrics; process i listens on PORT + i.")
@click.option("--grace", metavar="TIME", help="How long a stop waits for running jobs to save and yield, e.g. 30s.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--log-jobs", is_flag=True, help="A log line for each job that ends, not only for those that fail.")
@click.option("--bootstrap", metavar="HOST:PORT", help="Kafka brokers to ask first.")
@click.option(
    "--supervise/--no-supervise", default=True, help="Start a worker that dies again (default), or end with it."
)
@click.option("--ready-fd", type=int, hidden=True)
def worker(**flags: Any) -> None:
    """Run the jobs of MODULE:APP (or FILE.py:APP) until stopped.

    SIGTERM or Ctrl-C stops in good order: running jobs save and yield, and other workers go on with them. A second one,
    a second later or more, stops at once. SIGHUP restarts the processes one after the other.
    """
    from processor.logs import configure

    chosen = Flags(**flags)
    configure(chosen.log_format)
    with Output().errors():
        sys.exit(_run(chosen))


def _run(flags: Flags) -> int:
    from processor.cli.target import load_app
    from processor.executors.loading import absolute
    from processor.logs import write_lines_at_once
    from processor.process.probes import parse_address
    from processor.process.service import ServeOptions, worker_config
    from processor.process.slots import take_slots
    from processor.process.starter import Starter
    from processor.process.stop_signals import StopSignals
    from processor.process.supervisor import Supervisor
    from processor.process.threads import warn_of_threads

    # A container's process 1 takes leave of orphans; a process that runs handlers cannot: their own are among them.
    forks = flags.supervise or os.getpid() == 1
    # Before anything of the user's runs.
    signals = StopSignals(hang_up=not forks)
    # As of now: the module, or a job, may change the working directory.
    folder, app_path = os.getcwd(), absolute(flags.app_path)
    write_lines_at_once()
    app = load_app(flags.app_path)
    warn_of_threads(signals.thread)
    starter = None if flags.ready_fd is None else Starter(flags.ready_fd)
    if starter is not None:
        starter.tell_of_files()
    # Before any fork, so that no child needs to: importing makes no client and no thread.
    importlib.import_module("processor.broker.kafka")
    settings = _settings(app, flags)
    http = None if flags.http is None else parse_address(flags.http)
    options = ServeOptions(
        queues=flags.queues,
        concurrency=_concurrency(flags, settings),
        app_path=app_path,
        folder=folder,
        http=http,
        log_jobs=flags.log_jobs,
        log_format=flags.log_format,
    )
    count = settings.worker.processes if flags.supervise else 1
    slots = take_slots(app.namespace, settings.worker.state_dir, count, instance=flags.instance)
    # Made here once, so that mistakes are told before anything starts.
    config = worker_config(app, settings, slots[0].name, options)
    _summary(flags, settings, config, slots, http)
    if not forks:
        return _serve(app, settings, config, flags.app_path, http, signals, _ready(starter))

    def serve(index: int, slot: Slot, on_ready: Callable[[], None], signals: StopSignals) -> int:
        address = None if http is None else http.plus(index)
        return _serve(app, settings, replace(config, slot=slot.name), flags.app_path, address, signals, on_ready)

    # A process that forks has one thread.
    signals.close()
    return Supervisor(slots, serve, grace=config.grace, arrived=signals.pending, restarts=flags.supervise).run()


def _serve(
    app: App,
    settings: Settings,
    config: WorkerConfig,
    app_path: str,
    http: Address | None,
    signals: StopSignals,
    on_ready: Callable[[], None] = lambda: None,
) -> int:
    """One worker process, from here on with a Kafka of its own."""
    from processor.errors import TopicError
    from processor.process.service import serve

    broker = _broker(settings)
    # Handlers that start jobs speak to the cluster that the flags name.
    app.bind(broker)
    with Output().errors():
        try:
            with signals.outlives_c_code():
                return serve(app, broker, config, signals=signals, plan=app.topic_plan(), http=http, on_ready=on_ready)
        except TopicError as error:
            error.hint = f"processor topics plan --app {app_path}, then: apply"
            raise
    raise AssertionError("errors() exits or raises")


def _ready(starter: Starter | None) -> Callable[[], None]:
    return (lambda: None) if starter is None else starter.ready


def _broker(settings: Settings) -> Broker:
    from processor.broker.kafka import KafkaBroker, from_settings

    return KafkaBroker(from_settings(settings))


def _settings(app: App, flags: Flags) -> Settings:
    """The app's settings, which it may have been made with, and the flags above them."""
    from pydantic import ValidationError

    from processor.errors import SettingsError

    settings = app.settings()
    for name, value in flags.overrides().items():
        if value is None:
            continue
        table, _, field = name.partition(".")
        group = getattr(settings, table)
        try:
            changed = type(group).model_validate({**group.model_dump(), field: value})
        except ValidationError as error:
            raise SettingsError(f"{name}: {error.errors()[0]['msg']}", hint="processor worker --help") from None
        settings = settings.model_copy(update={table: changed})
    return settings


def _concurrency(flags: Flags, settings: Settings) -> int | None:
    """What was asked for; a mere default leaves each queue what it declares."""
    from processor.wire.settings_sources import origins

    if flags.concurrency is not None:
        return flags.concurrency
    named = any(item.name == "worker.concurrency" and item.origin != "default" for item in origins(settings))
    return settings.worker.concurrency if named else None


def _summary(flags: Flags, settings: Settings, config: WorkerConfig, slots: list[Slot], http: Address | None) -> None:
    """A few lines for whoever started it by hand."""
    if flags.log_format != "text":
        return
    queues = ", ".join(f"{queue.name} ({queue.concurrency} at a time)" for queue in config.queues)
    lines = [
        f"processor worker: {config.namespace} at {settings.kafka.bootstrap}",
        f"  queues   {queues}",
        f"  slots    {', '.join(slot.name for slot in slots)}",
    ]
    if http is not None:
        lines.append(f"  probes   http://{http.host}:{http.port}/healthz /readyz /metrics")
    lines.append("  Ctrl-C stops in good order, a second one at once.")
    click.echo("\n".join(lines), err=True)
