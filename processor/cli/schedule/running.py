"""`schedule trigger` and `backfill`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Column, Output, moment, output_options, show
from processor.cli.schedule.changing import dry_run_option, name_argument, operator_of, reason_option
from processor.cli.target import Target, target_options
from processor.cli.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from processor.admin.schedules import Backfill

SHOWN = 20
"""Instants of a backfill that are listed for people."""


def _moment(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no moment: write 2026-12-24 or 2026-12-24T18:00+01:00") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return round(found.timestamp() * 1000)


@click.command()
@name_argument
@target_options
@dry_run_option
@reason_option
@output_options
def trigger(out: Output, target: Target, name: str, dry_run: bool, reason: str) -> None:
    """Start a job of a schedule now, beside its instants; print the job's id. A paused one can be triggered too."""
    from processor.admin.schedules import schedule_named
    from processor.admin.schedules import trigger as trigger_

    app = target.app()
    if dry_run:
        plan = schedule_named(app.broker(), app.namespace, name).plan
        out.record({"schedule": name, "type": plan.type}, f"a job {show(plan.type)} would start in queue {plan.queue}")
        return
    job_id = trigger_(app.broker(), app.namespace, name, operator_of(app, reason))
    out.record({"schedule": name, "id": job_id}, job_id)


@click.command()
@name_argument
@click.option("--from", "since", required=True, metavar="MOMENT", callback=_moment, help="The first; UTC if no zone.")
@click.option("--to", "until", required=True, metavar="MOMENT", callback=_moment, help="Up to here, this one excluded.")
@target_options
@dry_run_option
@reason_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_options
def backfill(out: Output, /, target: Target, name: str, since: int, until: int, **options: Any) -> None:
    """Start the jobs of a schedule for a stretch of the past: of each instant that has none yet.

    The time in a job's id is its instant. Running it again starts no job twice: those that have run are left out, and
    those on their way are known by their ids.
    """
    from processor.admin.schedules import backfill as backfill_
    from processor.admin.schedules import plan_backfill

    app = target.app()
    plan = plan_backfill(app.broker(), app.namespace, name, since, until)
    chosen = [each for each in plan if each.state is None]
    _show(out, plan)
    out.note(f"{count(len(chosen), 'job')} to start; {len(plan) - len(chosen)} of {len(plan)} are known already")
    if options["dry_run"] or not chosen:
        return
    if not options["yes"] and not _agreed(name, len(chosen)):
        raise click.Abort
    who = operator_of(app, options["reason"])
    with out.progress("starting jobs", len(chosen)) as tick:
        backfill_(app.broker(), app.namespace, name, chosen, who, tick)


def _show(out: Output, plan: Sequence[Backfill]) -> None:
    rows = [{"instant": each.instant, "id": each.job_id, "state": each.state} for each in plan]
    if not out.as_json:
        rows = [{**row, "instant": moment(each.instant)} for row, each in zip(rows, plan, strict=True)][:SHOWN]
    columns = [Column(name="instant"), Column(name="id", whole=True), Column(name="state")]
    out.table(columns, rows, empty="no instants there")
    if len(plan) > SHOWN and not out.as_json:
        out.note(f"... and {len(plan) - SHOWN} more")


def _agreed(name: str, jobs: int) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("this starts jobs: give --yes, or look first with --dry-run")
    return click.confirm(f"Start {count(jobs, 'job')} of schedule {name}?", err=True)
