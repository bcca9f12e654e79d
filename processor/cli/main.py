"""`processor`: the root of the command line. Commands are imported when they are asked for: `--help` is to be quick."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import NoReturn

import click

COMMANDS = {
    "demo": ("processor.cli.demo:demo", "The whole story on real input, with a real broker it starts itself."),
    "dev": ("processor.cli.dev:dev", "Broker and worker in one, reloaded when a file is saved."),
    "broker": ("processor.cli.broker:broker", "A real local Kafka: no Docker, no Java, no Maven needed."),
    "worker": ("processor.cli.worker:worker", "Run the jobs of an app."),
    "job": ("processor.cli.job:job", "Start jobs, look at them, get their results."),
    "queue": ("processor.cli.queue:queue", "Queues: what waits, pausing, and where they go on."),
    "schedule": ("processor.cli.schedule:schedule", "Jobs that the clock starts: look, add, pause, trigger, backfill."),
    "checkpoint": ("processor.cli.checkpoint:checkpoint", "What running jobs have saved."),
    "dlq": ("processor.cli.dlq:dlq", "Dead letters: what was given up, why, and its way back."),
    "dashboard": ("processor.cli.dashboard:dashboard", "Jobs, failures and dead letters in the browser."),
    "bulk": ("processor.cli.bulk:bulk", "One action on exactly the jobs that a filter means."),
    "projection": ("processor.cli.projection:projection", "The copy of the log in SQL that the dashboard asks."),
    "replay": ("processor.cli.replay:replay", "Jobs of a queue's history run again, here or elsewhere."),
    "outbox": ("processor.cli.outbox:outbox", "Jobs stored in your database with your rows, sent after the commit."),
    "alerts": ("processor.cli.alerts:alerts", "What somebody should look at, and who hears of it."),
    "topics": ("processor.cli.topics:topics", "The topics of an app: what they are, should be, and hold."),
    "config": ("processor.cli.config:config", "Settings, and where each value comes from."),
    "doctor": ("processor.cli.doctor:doctor", "Check this machine, the cluster and the app."),
}
"""Name -> where it is, and what it does (here, so that the list of commands imports none of them)."""


class LazyGroup(click.Group):
    """A group whose commands are imported at their first use. A module that is not installed is no command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [name for name, (place, _) in COMMANDS.items() if find_spec(place.partition(":")[0]) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        rows = [(name, COMMANDS[name][1]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kafka-job-processor", prog_name="processor")
def root() -> None:
    """The job queue that goes on where it stopped, on another worker, with only Kafka to run."""


def main() -> NoReturn:
    """Entry point of the script."""
    root(prog_name="processor")
    raise AssertionError("click ends the process")
