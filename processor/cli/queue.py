"""`processor queue`: what waits, pausing, and where a queue goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Column, Output, output_options, show
from processor.cli.target import Target, target_options
from processor.cli.wording import count
from processor.job import Lane
from processor.wire.names import fault_of

if TYPE_CHECKING:
    from processor.admin.queues import Seek

_LANES = click.Choice([lane.value for lane in Lane])
_reason = click.option("--reason", default="", metavar="TEXT", help="Why; shown to others, kept in the audit topic.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.group()
def queue() -> None:
    """Queues: what waits in them, pausing them, and where they go on."""


@queue.command("list")
@target_options
@output_options
def list_(out: Output, target: Target) -> None:
    """List the queues: what waits, who serves them, what is paused."""
    from processor.admin.orders import orders_now
    from processor.admin.queues import list_queues

    app = target.app()
    orders = orders_now(app.broker(), app.namespace)
    found = list_queues(app.broker(), app.namespace, orders)
    columns = [
        Column(name="queue", whole=True),
        *(Column(name=lane, right=True) for lane in Lane if any(lane in row.waiting for row in found)),
        Column(name="partitions", right=True),
        Column(name="workers", right=True),
        Column(name="unowned", right=True, style=lambda unowned: "warn" if unowned else "dim"),
        Column(name="paused", style=lambda paused: "warn" if paused else ""),
    ]
    rows = [asdict(row) for row in found]
    if not out.as_json:
        rows = [{**row, **row["waiting"], "workers": len(row["workers"])} for row in rows]
    out.table(columns, rows, empty=f"no queues in namespace {app.namespace}: processor topics apply")
    for name, pause in sorted(orders.paused_types().items()):
        out.line(f"job type {show(name)} is paused: {show(pause)}", "warn")


@queue.command()
@click.argument("name", metavar="QUEUE")
@target_options
@output_options
def lag(out: Output, target: Target, name: str) -> None:
    """What waits in each partition of a queue, and who owned it last."""
    from processor.admin import queue_lag

    app = target.app()
    rows = [
        {
            "lane": row.lane,
            "number": row.number,
            "next": row.start,
            "end": row.end,
            "waiting": row.waiting,
            "slot": row.slot,
            "epoch": row.epoch,
        }
        for row in queue_lag(app.broker(), app.namespace, [name])
    ]
    columns = [
        Column(name="lane"),
        *(Column(name=column, right=True) for column in ("number", "next", "end", "waiting")),
        Column(name="slot"),
        Column(name="epoch", right=True),
    ]
    out.table(columns, rows)


# -- pausing -----------------------------------------------------------------------------------------------------------

_name = click.argument("name", metavar="[QUEUE]", required=False)
_type = click.option("--type", "job_type", metavar="NAME", help="A job type instead of a queue.")


@queue.command()
@_name
@_type
@target_options
@_reason
@output_options
def pause(out: Output, target: Target, name: str | None, job_type: str | None, reason: str) -> None:
    """Let a queue, or a job type, rest: nothing of it starts, what runs saves and yields. It outlasts restarts."""
    from processor.admin.orders import Operator
    from processor.admin.orders import pause as pause_

    app = target.app()
    if job_type is not None and target.has_code and job_type not in app.job_types:
        out.warning(f"the app has no job type {job_type}: its jobs are paused all the same, if there are any")
    pause_(app.broker(), app.namespace, _target(name, job_type), Operator(reason=reason))
    what = _what(name, job_type)
    undo = name if name is not None else f"--type {job_type}"
    out.record({"paused": what}, f"{what} rests; processor queue resume {undo} lets it go on")


@queue.command()
@_name
@_type
@target_options
@_reason
@output_options
def resume(out: Output, target: Target, name: str | None, job_type: str | None, reason: str) -> None:
    """Let a paused queue, or job type, go on."""
    from processor.admin.orders import Operator
    from processor.admin.orders import resume as resume_

    app = target.app()
    resume_(app.broker(), app.namespace, _target(name, job_type), Operator(reason=reason))
    what = _what(name, job_type)
    out.record({"resumed": what}, f"{what} goes on")


def _target(name: str | None, job_type: str | None) -> str:
    from processor.admin.orders import target_of

    if (name is None) == (job_type is None):
        raise click.UsageError("name a queue, or a job type with --type")
    if job_type is not None and (fault := fault_of(job_type, 200)) is not None:
        raise click.UsageError(f"--type: {fault}")
    return target_of(name, job_type)


def _what(name: str | None, job_type: str | None) -> str:
    return f"queue {name}" if name is not None else f"job type {job_type}"


# -- seeking -----------------------------------------------------------------------------------------------------------


@queue.command()
@click.argument("name", metavar="QUEUE")
@click.argument("to", metavar="begin|end|OFFSET")
@click.option("--number", "numbers", type=click.IntRange(0), multiple=True, help="Only this partition; several times.")
@click.option("--lane", type=_LANES, default=Lane.NORMAL.value, show_default=True, help="Which lane.")
@target_options
@_dry_run
@_reason
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_options
def seek(out: Output, /, target: Target, name: str, to: str, **options: Any) -> None:
    """Set where a queue goes on. No worker may serve it.

    What lies before that place is not run; what lies behind it runs, even if it has run before. This is how a
    partition that is held because its offsets are lost, or whose records are gone, is set right.
    """
    from processor.admin.orders import Operator
    from processor.admin.queues import plan_seek
    from processor.admin.queues import seek as seek_

    app = target.app()
    plan = plan_seek(app.broker(), app.namespace, name, to, lane=Lane(options["lane"]), numbers=options["numbers"])
    _show(out, plan)
    if options["dry_run"]:
        return
    if not options["yes"] and not _agreed(name, plan):
        raise click.Abort
    seek_(app.broker(), app.namespace, name, plan, Operator(reason=options["reason"]))
    out.note(f"{count(len(plan), 'partition')} of queue {name} set")


def _show(out: Output, plan: Sequence[Seek]) -> None:
    columns = [Column(name=name, right=name != "topic") for name in ("topic", "number", "before", "to", "waiting")]
    rows = [
        {
            "topic": each.place.topic,
            "number": each.place.partition,
            "before": each.before,
            "to": each.to,
            "waiting": each.waiting,
        }
        for each in plan
    ]
    out.table(columns, rows)


def _agreed(name: str, plan: Sequence[Seek]) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("this changes what runs: give --yes, or look first with --dry-run")
    return click.confirm(f"Set {count(len(plan), 'partition')} of queue {name}?", err=True)
