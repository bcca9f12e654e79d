"""`processor bulk`: one action on exactly the jobs that a filter means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from processor.cli.output import Column, Output, output_options
from processor.cli.projection import database_option, needs_dashboard, opened, projecting
from processor.cli.target import Target, target_options
from processor.cli.wording import count
from processor.errors import SettingsError

if TYPE_CHECKING:
    from processor.app import App
    from processor.ops.bulk.job import Bulks
    from processor.ops.bulk.plan import Plan
    from processor.ops.store import Store

ACTIONS = ("redrive", "discard", "cancel", "retry")
SHOWN = 20
"""Jobs of a dry run that are shown."""


@click.command()
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("words", nargs=-1, metavar="[FILTER]...")
@target_options
@database_option
@click.option("--dry-run", is_flag=True, help="Only say which jobs are meant.")
@click.option("--expected", type=click.IntRange(0), metavar="N", help="Do nothing if other than N jobs are meant.")
@click.option("--from-zero", is_flag=True, help="Of a redrive: begin at the beginning, not at the checkpoint.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit topic.")
@click.option("--here", is_flag=True, help="Run it here until it is done, for when no dashboard runs.")
@output_options
@needs_dashboard
def bulk(
    out: Output, /, target: Target, action: str, words: tuple[str, ...], database: str | None, **options: Any
) -> None:
    """Do ACTION to exactly the jobs that a filter means now: `processor bulk redrive state:dead error:ValueError`.

    It runs as a job, in whichever `processor dashboard` runs, and goes on in another one if that stops. Follow it with
    `processor job watch`, end it with `processor job cancel`. Jobs that come or change later are left alone.
    """
    from processor.identity import operator
    from processor.ops.bulk.job import Bulks, Tools

    app = target.app()
    with opened(app, database) as store:
        plan = _planned(app, store, action, " ".join(words), from_zero=options["from_zero"])
        if options["dry_run"]:
            _show(out, store, app, plan)
            return
        if not options["reason"].strip():
            raise SettingsError("why?", hint="give --reason: it stays with each job in the audit log")
        if options["expected"] is not None and options["expected"] != plan.count:
            raise SettingsError(
                f"{count(plan.count, 'job')} are meant now, not {options['expected']}", hint="look again: --dry-run"
            )
        bulks = Bulks(Tools(app=app, store=store, clock=app.client().clock))
        started = bulks.start(plan, operator(), options["reason"])
        text = f"{action} of {count(plan.count, 'job')} is begun: processor job watch {started}"
        out.record({"id": started, "jobs": plan.count, "digest": plan.digest}, text)
        if options["here"]:
            _run_here(out, app, store, bulks, started)


def _planned(app: App, store: Store, action: str, q: str, *, from_zero: bool) -> Plan:
    from processor.ops.bulk.plan import Action, make_plan
    from processor.ops.search import search_names, search_of

    assert action in get_args(Action)
    with projecting(app, store) as projector:
        projector.catch_up()
        fields = search_names(search_of(app))
        return make_plan(store, action, q, app.client().clock.now_ms(), fields=fields, from_zero=from_zero)  # type: ignore[arg-type]  # click allows no other


def _show(out: Output, store: Store, app: App, plan: Plan) -> None:
    from processor.ops.bulk.plan import JobSet
    from processor.ops.search import search_names, search_of

    jobs = JobSet(store, plan, search_names(search_of(app)))
    if out.as_json:
        ids = [row["id"] for part in jobs.parts() if part is not None for row in part.rows]
        out.record({"jobs": plan.count, "digest": plan.digest, "ids": ids}, "")
        return
    first = next((part.rows for part in jobs.parts(size=SHOWN) if part is not None), ())
    columns = [Column(name="id", whole=True), Column(name="type"), Column(name="state")]
    out.table(columns, [dict(row) for row in first], empty="no job is meant")
    out.note(f"{plan.action} of {count(plan.count, 'job')}; nothing is done: --dry-run")


def _run_here(out: Output, app: App, store: Store, bulks: Bulks, started: str) -> None:
    import threading

    from processor.ops.bulk.worker import BulkWorker

    stop = threading.Event()
    with projecting(app, store) as projector:
        thread = threading.Thread(target=projector.run, args=(stop,), name="projector", daemon=True)
        worker = BulkWorker(bulks)
        thread.start()
        worker.start()
        try:
            result = bulks.app.handle(started).result(timeout=None)
        finally:
            worker.stop()
            stop.set()
            thread.join(10)
    out.record(result, ", ".join(f"{name} {value}" for name, value in result.items() if value))
