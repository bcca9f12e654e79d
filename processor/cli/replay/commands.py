"""`replay plan`, `run` and `list`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Column, Output, moment, output_options
from processor.cli.replay.telling import how, plan_facts, tell_outcome, tell_plan
from processor.cli.replay.wishing import wish_options
from processor.cli.stopping import Stop, between_batches
from processor.cli.target import Target, target_options
from processor.cli.wording import count
from processor.core.replay.spec import Spec
from processor.errors import ReplayError

if TYPE_CHECKING:
    from processor.admin.replay import Plan
    from processor.app import App

Wish = Callable[[str], Spec]


def _finite(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter("it is a number of jobs a second, more than 0")
    return value


@click.command()
@wish_options
@target_options
@output_options
def plan(out: Output, target: Target, wish: Wish, name: str | None) -> None:
    """What a replay would send, by type and state, and what of it the queues have deleted already. Nothing is sent.

    Which part of the history is said by job ids, by --since and --until, by offsets, or by --all.
    """
    app = target.app()
    _show(out, app, _planned(out, app, wish, name))


@click.command()
@wish_options
@target_options
@click.option("--rate", type=float, callback=_finite, metavar="N", help="Jobs a second at most.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent, as `replay plan` does.")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown with each job, kept in the audit topic.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_options
def run(out: Output, /, target: Target, wish: Wish, name: str | None, **options: Any) -> None:
    """Run jobs of a queue's history again. A job is sent once: a command that was stopped is simply run again.

    The same options are the same replay. Once it is done, --name begins another one with them.
    """
    from processor.admin.orders import Operator
    from processor.admin.replay import Outcome, run_replay
    from processor.admin.transactions import Order

    app = target.app()
    made = _planned(out, app, wish, name)
    if options["dry_run"]:
        _show(out, app, made)
        return
    if not out.as_json:
        tell_plan(out, made, app.client().clock.now_ms())
    if made.replay.done is not None or not made.choice.jobs:
        _say_done(out, made)
        tell_outcome(out, made, Outcome(before=len(made.choice.jobs)))
        return
    _say_begun(out, made)
    if not options["yes"]:
        _ask(out, made)
    who = Operator(reason=options["reason"], clock=app.client().clock)
    order = Order(by=who.by, reason=who.reason, rate=options["rate"], clock=who.clock)
    with out.progress("replaying", len(made.left)) as tick, _stoppable(made) as (stop, done):

        def through(jobs: int) -> None:
            done(jobs)
            tick(jobs)

        outcome = run_replay(app.broker(), made, stop.heard_by(replace(order, done=through)))
    tell_outcome(out, made, outcome)


@click.command("list")
@target_options
@output_options
def list_(out: Output, target: Target) -> None:
    """List the replays into a namespace: what they are about, and how far they have come."""
    from processor.admin.replay import replays_of

    app = target.app()
    rows = []
    for found in replays_of(app.broker(), app.namespace).replays.values():
        begun, spec = found.begun, None if found.frozen is None else found.frozen.spec
        rows.append(
            {
                "name": found.name,
                "from": None if spec is None else f"{spec.namespace}/{','.join(spec.queues) or '*'}",
                "sent": len(found.sent),
                "done": found.done is not None,
                "begun": None if begun is None else begun.at if out.as_json else moment(begun.at),
                "by": None if begun is None else begun.by,
                "reason": None if begun is None else begun.reason,
            }
        )
    columns = [Column(name="name", whole=True), Column(name="from"), Column(name="sent", right=True)]
    columns += [Column(name=name) for name in ("done", "begun", "by", "reason")]
    out.table(columns, rows, empty=f"no replay went into namespace {app.namespace}")


# -- parts -------------------------------------------------------------------------------------------------------------


def _planned(out: Output, app: App, wish: Wish, name: str | None) -> Plan:
    from processor.admin.replay import plan_replay

    spec = wish(app.namespace)
    try:
        spec.check()
    except ReplayError as error:
        raise click.UsageError(f"{error} {error.hint}") from error
    out.note("reading the history ...")
    return plan_replay(app.broker(), spec, app.client().clock.now_ms(), name)


def _show(out: Output, app: App, made: Plan) -> None:
    if out.as_json:
        out.facts(plan_facts(made))
        return
    tell_plan(out, made, app.client().clock.now_ms())
    if made.replay.done is not None:
        _say_done(out, made)
    else:
        _say_begun(out, made)
    out.note(f"{count(len(made.left), 'job')} would go {how(made)}; nothing was sent")


def _say_done(out: Output, made: Plan) -> None:
    done = made.replay.done
    if done is None:
        out.note("no job is meant")
    else:
        out.note(
            f"replay {made.name} was done by {done.by} at {moment(done.at)}; to do the same once more, give it a --name"
        )


def _say_begun(out: Output, made: Plan) -> None:
    begun = made.replay.begun
    if begun is not None:
        out.note(
            f"replay {made.name} was begun by {begun.by} at {moment(begun.at)} and has sent {len(made.replay.sent):,}; "
            "it goes on with what was meant then"
        )


def _ask(out: Output, made: Plan) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask here: say --yes, or look first with --dry-run")
    click.confirm(f"Replay {count(len(made.left), 'job')} {how(made)}?", abort=True, err=True)


@contextmanager
def _stoppable(made: Plan) -> Iterator[tuple[Stop, Callable[[int], None]]]:
    """Ctrl-C says where the replay stands, and how it goes on."""
    through = len(made.choice.jobs) - len(made.left)

    def done(jobs: int) -> None:
        nonlocal through
        through += jobs

    try:
        with between_batches() as stop:
            yield stop, done
    except KeyboardInterrupt:
        total = len(made.choice.jobs)
        raise KeyboardInterrupt(
            f"stopped: {through:,} of {total:,} jobs of replay {made.name} are through, {total - through:,} are not; "
            "the same command goes on with them, and sends none twice"
        ) from None
