"""The options that say which jobs are replayed, into what, and as what."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from processor.core.replay.spec import STATES, Spec, parse_test
from processor.errors import ReplayError
from processor.job import Lane

Command = Callable[..., Any]

_LANES = click.Choice([lane.value for lane in Lane])


def _tests(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            parse_test(value)
        except ReplayError as error:
            raise click.BadParameter(f"{error}: {error.hint}") from error
    return values


_OPTIONS = (
    click.argument("ids", nargs=-1, metavar="[ID]..."),
    click.option("-q", "--queue", "queues", multiple=True, metavar="QUEUE", help="Of this queue; several for more."),
    click.option("--all", "everything", is_flag=True, help="All that the queues still hold."),
    click.option("--since", metavar="TIME", help="Enqueued at this moment or later: 2026-11-28T09:00Z, or 2h (ago)."),
    click.option("--until", metavar="TIME", help="Enqueued before this moment."),
    click.option(
        "--from-offset",
        "from_offsets",
        multiple=True,
        metavar="[NUMBER@]OFFSET",
        help="From here on in the lane; with NUMBER@ only in that partition; several times for more.",
    ),
    click.option(
        "--to-offset", "to_offsets", multiple=True, metavar="[NUMBER@]OFFSET", help="Up to here, this one not included."
    ),
    click.option("--source-lane", type=_LANES, help="Only records of this lane. [default: all; normal for offsets]"),
    click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this job type."),
    click.option("--key", "keys", multiple=True, metavar="KEY", help="Only this ordering key."),
    click.option(
        "--state", "states", type=click.Choice(STATES), multiple=True, metavar="STATE", help="Only jobs that stand so."
    ),
    click.option(
        "--where",
        multiple=True,
        metavar="PATH=VALUE",
        callback=_tests,
        help="Only payloads with this value at this place: customer.id=7, lines.0.kind=refund. All given must hold.",
    ),
    click.option("--to-namespace", metavar="NAME", help="Into this namespace, on the same cluster."),
    click.option("--to-queue", metavar="QUEUE", help="Into this queue."),
    click.option("--lane", type=_LANES, default=Lane.NORMAL.value, show_default=True, help="Into this lane of it."),
    click.option(
        "--same-ids", is_flag=True, help="Each job keeps its id and begins its next life; else it is a new job."
    ),
    click.option("--from-checkpoint", is_flag=True, help="Go on from what a job had saved, where that is still kept."),
    click.option("--name", metavar="NAME", help="Name of the replay: the same options again, but under another name."),
)


def wish_options(command: Command) -> Command:
    """All of them; the command gets a function `wish(namespace) -> Spec`, and the `name`."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        fields = {name: kwargs.pop(name) for name in _FIELDS}
        if "" in fields["ids"]:
            raise click.UsageError("an empty id means no job: is a variable of the shell unset?")

        def wish(namespace: str) -> Spec:
            return Spec(namespace=namespace, **fields)

        return command(*args, wish=wish, **kwargs)

    made: Command = run
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


_FIELDS = (
    *("ids", "queues", "everything", "since", "until", "from_offsets", "to_offsets", "source_lane"),
    *("types", "keys", "states", "where", "to_namespace", "to_queue", "lane", "same_ids", "from_checkpoint"),
)
