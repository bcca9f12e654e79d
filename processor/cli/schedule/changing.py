"""`schedule add`, `remove`, `pause` and `resume`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Output, moment, output_options, show
from processor.cli.payload import payload_of
from processor.cli.schedule.looking import when
from processor.cli.target import Target, target_options
from processor.errors import DefinitionError, UnknownJobType

if TYPE_CHECKING:
    from processor.admin.orders import Operator
    from processor.app import App
    from processor.job import Job
    from processor.wire.records import ScheduleRecord

name_argument = click.argument("name", metavar="NAME")
reason_option = click.option(
    "--reason", default="", metavar="TEXT", help="Why; shown to others, kept in the audit topic."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


def operator_of(app: App, reason: str) -> Operator:
    """Who is typing, by the clock of the app."""
    from processor.admin.orders import Operator

    return Operator(reason=reason, clock=app.client().clock)


@click.command()
@name_argument
@click.argument("type", metavar="TYPE")
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False)
@click.option("--cron", default="", metavar="EXPR", help='Minute hour day month weekday, e.g. "0 2 * * *".')
@click.option("--tz", default="UTC", metavar="ZONE", show_default=True, help="Time zone of --cron, e.g. Europe/Berlin.")
@click.option("--every", metavar="TIME", help="An interval instead, from 1s on, e.g. 10m.")
@click.option(
    "--overlap",
    type=click.Choice(["skip", "queue", "replace"]),
    default="skip",
    show_default=True,
    help="What an instant does while an earlier run goes on.",
)
@click.option(
    "--catch-up",
    type=click.Choice(["none", "last", "all"]),
    default="last",
    show_default=True,
    help="Which missed instants are made up for.",
)
@click.option("--jitter", default="0s", metavar="TIME", help="Fire each instant up to so much later.")
@click.option("-q", "--queue", help="Which queue's workers run it; known for the job types of an --app.")
@click.option("--key", help="Ordering key. The job types of an --app take it from the payload.")
@click.option("--payload-version", "version", type=click.IntRange(1), help="Of the payload, if not 1; without --app.")
@target_options
@dry_run_option
@reason_option
@output_options
def add(out: Output, /, target: Target, name: str, payload: str | None, **options: Any) -> None:
    """Let the clock start jobs of TYPE, or change the schedule of that NAME. It wins over one in the code.

    The payload is JSON on the command line, in a file (@order.json) or on the standard input (-).
    """
    from processor.admin.schedules import add_schedule

    app = target.app()
    who = operator_of(app, options["reason"])
    record = _record(app, name, payload_of(payload), who, options)
    told = {"schedule": name, "when": when(record), "next": _next(record)}
    if options["dry_run"]:
        out.record(
            told, f"schedule {show(name)} would fire {when(record)}: {', '.join(map(moment, _next(record)))}, ..."
        )
        return
    before = add_schedule(app.broker(), app.namespace, record, who)
    done = "added" if before is None else "changed"
    out.record({**told, "done": done}, f"schedule {show(name)} {done}; it fires next at {moment(_next(record)[0])}")
    if name in app.schedules or (before is not None and before.source == "code"):
        out.note(f"the code declares it too: this one wins, until processor schedule remove {show(name)}")
    if before is not None and before.paused:
        out.warning(f"it is still paused: processor schedule resume {show(name)}")


@click.command()
@name_argument
@target_options
@dry_run_option
@reason_option
@output_options
def remove(out: Output, target: Target, name: str, dry_run: bool, reason: str) -> None:
    """Remove a schedule. Jobs that it has started go on.

    One that was added by hand over a declaration of the code gives way to that, if the code is known (--app).
    """
    from processor.admin.schedules import remove_schedule, schedule_named

    app = target.app()
    declared = app.schedules.get(name)
    if dry_run:
        plan = schedule_named(app.broker(), app.namespace, name).plan
        out.record({"schedule": name, "from": plan.source}, f"schedule {show(name)} ({when(plan)}) would be removed")
        return
    left = remove_schedule(app.broker(), app.namespace, name, declared, operator_of(app, reason))
    if left is not None:
        told = f"the one in the code holds again: {when(left)}, next at {moment(_next(left)[0])}"
        out.record({"schedule": name, "holds": "code"}, f"schedule {show(name)} removed; {told}")
        return
    out.record({"schedule": name, "holds": None}, f"schedule {show(name)} removed")
    if declared is not None:
        out.warning("the code declares it: the next worker that starts adds it again; remove it there, or pause it")


@click.command()
@name_argument
@target_options
@dry_run_option
@reason_option
@output_options
def pause(out: Output, target: Target, name: str, dry_run: bool, reason: str) -> None:
    """Let a schedule rest: its instants pass. What it has started goes on. It outlasts restarts and deploys."""
    from processor.admin.schedules import pause_schedule, schedule_named

    app = target.app()
    if dry_run:
        paused = schedule_named(app.broker(), app.namespace, name).plan.paused
        said = "is paused already" if paused else "would rest"
        out.record({"schedule": name, "paused": paused}, f"schedule {show(name)} {said}")
        return
    pause_schedule(app.broker(), app.namespace, name, operator_of(app, reason))
    told = f"schedule {show(name)} rests; processor schedule resume {show(name)} lets it go on"
    out.record({"schedule": name, "paused": True}, told)


@click.command()
@name_argument
@target_options
@dry_run_option
@reason_option
@output_options
def resume(out: Output, target: Target, name: str, dry_run: bool, reason: str) -> None:
    """Let a paused schedule go on with its next instant; those that passed meanwhile are not made up for."""
    from processor.admin.schedules import resume_schedule, schedule_named

    app = target.app()
    if dry_run:
        paused = schedule_named(app.broker(), app.namespace, name).plan.paused
        said = "would go on" if paused else "is not paused"
        out.record({"schedule": name, "paused": paused}, f"schedule {show(name)} {said}")
        return
    resume_schedule(app.broker(), app.namespace, name, operator_of(app, reason))
    following = schedule_named(app.broker(), app.namespace, name).next()
    out.record(
        {"schedule": name, "paused": False, "next": following},
        f"schedule {show(name)} goes on; it fires next at {moment(following)}",
    )


def _next(record: ScheduleRecord) -> list[int]:
    from processor.core.schedules import instants

    return list(islice(instants(record, record.since), 3))


def _record(app: App, name: str, payload: Any, who: Operator, options: dict[str, Any]) -> ScheduleRecord:
    from processor.core.schedules import CLI
    from processor.schedules import Timing

    timing = Timing(
        cron=options["cron"],
        every=options["every"],
        tz=options["tz"],
        overlap=options["overlap"],
        catch_up=options["catch_up"],
        jitter=options["jitter"],
    )
    job = _job(app, options["type"], payload, options)
    return timing.record(name, job, now_ms=who.clock.now_ms(), by=who.by, source=CLI, reason=who.reason)


def _job(app: App, type_: str, payload: Any, options: dict[str, Any]) -> Job:
    """A job like those that the schedule is to start."""
    from processor.job_types import untyped_job
    from processor.schedules import typed_job

    queue, key, version, client = options["queue"], options["key"], options["version"], app.client()
    known = app.job_types.get(type_)
    if known is None:
        if queue is None:
            raise UnknownJobType(
                f"which queue? nothing is known here of job type {type_}",
                hint="say whose workers run it (--queue), or give --app, whose job types know their queues",
            )
        return untyped_job(client, type_, payload, queue=queue, version=version or 1, key=key, job_id=None)
    if key is not None or version is not None or queue not in (None, known.queue):
        raise DefinitionError(
            f"the app declares job type {type_}: its queue ({known.queue}), key and version are known",
            hint="leave --queue, --key and --payload-version out, or go by --namespace instead of --app",
        )
    return typed_job(known, payload, now_ms=client.clock.now_ms(), max_bytes=client.config.payload_max_bytes)
