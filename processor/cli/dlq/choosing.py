"""Which dead letters a command means: by address or job id, by filters, or all that are open."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import moment
from processor.errors import DeadLetterError

if TYPE_CHECKING:
    from processor.admin.dead_letters import LetterFilter, LetterRow
    from processor.app import App

Command = Callable[..., Any]

ALL = "all"
STATES = click.Choice(["open", "redriven", "discarded", ALL])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the filter options said."""

    reasons: tuple[str, ...]
    types: tuple[str, ...]
    queues: tuple[str, ...]
    fingerprints: tuple[str, ...]
    since: str | None

    @property
    def says_something(self) -> bool:
        """Whether any filter was given."""
        return bool(self.reasons or self.types or self.queues or self.fingerprints or self.since)

    def filter(self, app: App, state: str, names: Sequence[str] = ()) -> LetterFilter:
        """As the admin functions take it."""
        from processor.admin.dead_letters import LetterFilter
        from processor.core.redrive import LetterState
        from processor.wire.durations import parse_duration

        since = None
        if self.since is not None:
            now = app.client().clock.now_ms()
            since = now - round(parse_duration(self.since, name="--since") * 1000)
        return LetterFilter(
            states=frozenset() if state == ALL else frozenset({LetterState(state)}),
            reasons=frozenset(self.reasons),
            types=frozenset(self.types),
            queues=frozenset(self.queues),
            fingerprints=frozenset(self.fingerprints),
            names=frozenset(names),
            since=since,
        )


def filter_options(command: Command) -> Command:
    """The filters; the command gets a `Wanted` as `wanted`."""

    @click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this job type; several times for more.")
    @click.option("-q", "--queue", "queues", multiple=True, metavar="QUEUE", help="Only this queue.")
    @click.option(
        "--dead-reason", "reasons", multiple=True, metavar="WORD", help="Only what was given up as exhausted, dead, ..."
    )
    @click.option("--fingerprint", "fingerprints", multiple=True, metavar="HEX", help="Only this error at this place.")
    @click.option("--since", metavar="TIME", help="Only what was given up within this time, e.g. 2h.")
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        fields = ("reasons", "types", "queues", "fingerprints", "since")
        return command(*args, wanted=Wanted(**{name: kwargs.pop(name) for name in fields}), **kwargs)

    return run


def chosen(app: App, names: Sequence[str], wanted: Wanted, all_open: bool) -> list[LetterRow]:
    """The letters that a change is about, newest last.

    Raises:
        click.UsageError: nothing was chosen, or in two ways.
        DeadLetterError: a name means no letter, or one that was redriven already.
    """
    from processor.admin.dead_letters import list_letters

    if names and (all_open or wanted.says_something):
        raise click.UsageError("name letters, or choose them with filters or --all-open, not both")
    if "" in names:
        raise click.UsageError("an empty name means no letter: is a variable of the shell unset?")
    if not names and not all_open and not wanted.says_something:
        raise click.UsageError("which letters? Name addresses or job ids, give filters, or --all-open")
    if not names:
        return list_letters(app.broker(), app.namespace, wanted.filter(app, "open"))
    known = list_letters(app.broker(), app.namespace, wanted.filter(app, ALL, names))
    found = {row.address: row for row in (_named(app, known, name) for name in names)}
    return sorted(found.values(), key=lambda row: (row.at, row.address))


def _named(app: App, known: Sequence[LetterRow], name: str) -> LetterRow:
    """The letter of an address, or the newest of a job."""
    from processor.admin.dead_letters import missing_letter
    from processor.core.audit import REPLAY

    mine = [row for row in known if str(row.address) == name] or [row for row in known if row.id == name]
    if not mine:
        raise missing_letter(app.namespace, name)
    row = max(mine, key=lambda row: (row.life, row.address))
    if row.state == "redriven":
        by = row.settled
        who = f" by {by.by} at {moment(by.at)}" if by is not None else ""
        done = "replayed" if by is not None and by.action == REPLAY else "redriven"
        raise DeadLetterError(
            f"dead letter {row.address} was {done} already{who}: life {row.life + 1} of job {row.id} has begun",
            hint=f"processor job show {row.id} tells how that goes; if it dies as well, it has a letter of its own",
        )
    return row
