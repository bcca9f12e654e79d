"""`processor broker`: a real local Kafka, started and stopped by hand."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from processor.broker.dev import DevBroker

DEFAULT_PORT = 9092
"""Where Kafka's clients look first."""
FETCHED_MB = 43
"""What the first start downloads."""


def default_data_dir() -> Path:
    """Where the cluster lives unless `--data` says otherwise: `$XDG_DATA_HOME`, else `~/.local/share`."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "kafka-job-processor" / "broker"


_data = click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    show_default="~/.local/share/kafka-job-processor/broker",
    help="The cluster's folder; kept on stop.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")


def _cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `start` and `run` share."""
    for option in (
        click.option("--version", default=None, help="Kafka version; the newest known one for a new folder."),
        click.option("--brokers", type=click.Choice(["1", "3"]), default=None, help="Number of brokers, 1 if new."),
        click.option("--port", type=click.IntRange(1, 65_535), default=DEFAULT_PORT, show_default=True),
        _data,
    ):
        command = option(command)
    return command


@click.group()
def broker() -> None:
    """A real local Kafka: no Docker, no Java, no Maven needed."""


@broker.command()
@_cluster_options
@_json
def start(data_dir: Path, port: int, brokers: str | None, version: str | None, as_json: bool) -> None:
    """Start it in the background; an already running one is left alone."""
    with Output().errors():
        kafka = _cluster(data_dir, port, brokers, version)
        if not kafka.is_running():
            kafka.start(detached=True)
        _show(kafka, as_json=as_json)


@broker.command()
@_data
def stop(data_dir: Path) -> None:
    """Stop it. Its data stays."""
    from processor.broker.dev import DevBroker

    with Output().errors():
        kafka = DevBroker.at(data_dir)
        if kafka.is_running():
            kafka.stop()
            click.echo("stopped")
        else:
            click.echo("not running")


@broker.command()
@_data
@_json
def status(data_dir: Path, as_json: bool) -> None:
    """Say whether it runs, and where. Exit code 3 if it does not."""
    from processor.broker.dev import DevBroker

    with Output().errors():
        kafka = DevBroker.at(data_dir)
        _show(kafka, as_json=as_json)
        if not kafka.is_running():
            sys.exit(3)


@broker.command()
@_cluster_options
def run(data_dir: Path, port: int, brokers: str | None, version: str | None) -> None:
    """Run it in the foreground until Ctrl-C."""
    import signal
    import threading

    ended = threading.Event()
    with Output().errors(), _cluster(data_dir, port, brokers, version) as kafka:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        _show(kafka, as_json=False)
        ended.wait()
        click.echo("stopping", err=True)
        # A second Ctrl-C ends this process at once, and the brokers end with it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _cluster(data_dir: Path, port: int, brokers: str | None, version: str | None) -> DevBroker:
    """The cluster of the folder; what is not asked for is as the folder remembers it."""
    from processor.broker.dev import DEFAULT_VERSION, DevBroker, DevBrokerConfig

    if (data_dir / "cluster.json").exists():
        known = DevBroker.at(data_dir).config
        version, brokers = version or known.version, brokers or str(known.brokers)
    config = DevBrokerConfig(
        data_dir=data_dir, port=port, brokers=int(brokers or 1), version=version or DEFAULT_VERSION
    )
    return DevBroker(config, progress=show_fetch)


def show_fetch(done: int, total: int, name: str) -> None:
    """How far the download of Kafka is, on stderr."""
    line = f"fetching Kafka, {FETCHED_MB} MB, once: {done} of {total} files  {name}".rstrip()
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line}", nl=done == total, err=True)
    else:
        click.echo(line, err=True)


def _show(kafka: DevBroker, *, as_json: bool) -> None:
    state: dict[str, Any] = {
        "running": kafka.is_running(),
        "bootstrap": kafka.bootstrap,
        "pids": kafka.pids,
        "version": kafka.config.version,
        "data": str(kafka.config.data_dir),
    }
    if as_json:
        click.echo(json.dumps(state))
    elif state["running"]:
        click.echo(f"Kafka {state['version']} at {state['bootstrap']}  (data: {state['data']})")
    else:
        click.echo(f"not running  (data: {state['data']})")
