"""`schedule list` and `next`."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Column, Output, moment, output_options, show
from processor.cli.target import Target, target_options
from processor.errors import DefinitionError
from processor.wire.durations import format_duration

if TYPE_CHECKING:
    from processor.app import App
    from processor.core.schedules import Standing
    from processor.wire.records import ScheduleRecord


@click.command("list")
@target_options
@output_options
def list_(out: Output, target: Target) -> None:
    """List the schedules: when they fire, what they start, how far they are, and where they were declared."""
    from processor.admin.schedules import schedules_now

    app = target.app()
    found = schedules_now(app.broker(), app.namespace).standings
    facts = [_facts(app, found[name]) for name in sorted(found)]
    columns = [
        Column(name="schedule", whole=True),
        Column(name="type"),
        Column(name="when"),
        Column(name="overlap"),
        Column(name="next"),
        Column(name="last"),
        Column(name="runs", right=True),
        Column(name="skipped", right=True, style=lambda skipped: "warn" if skipped else ""),
        Column(name="from"),
        Column(name="paused", style=lambda paused: "warn" if paused else ""),
    ]
    rows = facts if out.as_json else [_row(each) for each in facts]
    out.table(columns, rows, empty=f"no schedules in namespace {app.namespace}")
    for name in sorted(app.schedules.keys() - found.keys()):
        out.note(f"schedule {show(name)} is declared in the code; a worker adds it when it starts")


@click.command("next")
@click.argument("name", metavar="NAME")
@click.option("-n", "--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
@target_options
@output_options
def next_(out: Output, target: Target, name: str, count: int) -> None:
    """The next instants of a schedule, in UTC and in its time zone. Its jitter comes on top."""
    from processor.admin.schedules import schedule_named
    from processor.core.schedules import instants

    app = target.app()
    standing = schedule_named(app.broker(), app.namespace, name)
    plan = standing.plan
    after = max(standing.after, app.client().clock.now_ms())
    rows = [{"utc": moment(at), plan.tz: local(plan, at), "at": at} for at in islice(instants(plan, after), count)]
    out.table([Column(name=column) for column in dict.fromkeys(("utc", plan.tz)) if column != "UTC"], rows)
    if plan.paused:
        out.warning(f"schedule {show(name)} is paused: processor schedule resume {show(name)}")


def when(plan: ScheduleRecord) -> str:
    """When a schedule fires, for people."""
    jitter = f" + up to {format_duration(plan.jitter / 1000)}" if plan.jitter else ""
    if plan.every:
        return f"every {format_duration(plan.every / 1000)}{jitter}"
    return f"{plan.cron} {plan.tz}{jitter}"


def local(plan: ScheduleRecord, at: int) -> str:
    """A moment in the schedule's time zone."""
    from processor.core.schedules import zone

    return datetime.fromtimestamp(at / 1000, zone(plan.tz)).strftime("%a %Y-%m-%d %H:%M:%S%z")


def _facts(app: App, standing: Standing) -> dict[str, Any]:
    """What there is to know of a schedule; moments in milliseconds."""
    plan, fired = standing.plan, standing.fired
    declared = app.schedules.get(plan.name)
    try:
        following = standing.next()
    except DefinitionError as error:
        following = None
        fault = str(error)
    else:
        fault = ""
    return {
        "schedule": plan.name,
        "type": plan.type,
        "queue": plan.queue,
        "when": when(plan),
        "overlap": plan.overlap,
        "catch_up": plan.catch_up,
        "next_at": following,
        "fault": fault,
        "last_at": None if fired is None else fired.instant,
        "last_job": fired.job_id if fired is not None and fired.job_id else None,
        "runs": 0 if fired is None else fired.fired,
        "skipped": 0 if fired is None else fired.skipped,
        "from": plan.source,
        "over_code": plan.source == "cli" and declared is not None,
        "paused": plan.paused,
        "by": plan.by,
        "reason": plan.reason,
    }


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    why = f"by {facts['by']}" + (f": {facts['reason']}" if facts["reason"] else "")
    return {
        **facts,
        "next": facts["fault"] or moment(facts["next_at"]),
        "last": moment(facts["last_at"]),
        "from": f"{facts['from']} (over code)" if facts["over_code"] else facts["from"],
        "paused": why if facts["paused"] else "",
    }
