"""`job list` and `show`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from processor.cli.job.waiting import queued_row
from processor.cli.output import Column, Output, moment, output_options, show
from processor.cli.target import Target, target_options
from processor.errors import ProcessorError
from processor.states import State

if TYPE_CHECKING:
    from processor.admin import JobRow, SavedProgress
    from processor.wire.records import StatusRecord

WIDE = 110
"""Columns of a terminal that also shows errors in lists; `job show` has them in any case."""
_STATES = click.Choice([state.value for state in State])


@click.command("list")
@target_options
@click.option(
    "--state", "states", multiple=True, type=_STATES, metavar="STATE", help="Only this one; several times for more."
)
@click.option("--type", "type_", help="Only this job type.")
@click.option("-q", "--queue", help="Only this queue.")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows at most.")
@output_options
def list_(out: Output, target: Target, states: Sequence[str], type_: str | None, queue: str | None, limit: int) -> None:
    """List jobs, the latest change first: those with a status, and those that wait in a lane."""
    from processor.admin import list_jobs
    from processor.cli.job.limits import ends_in
    from processor.cli.wording import age, progress, state_style

    app = target.app()
    chosen = frozenset(State(state) for state in states) or None
    found = list_jobs(app.broker(), app.namespace, queue=queue, states=chosen, type_=type_, limit=limit + 1)
    now = app.client().clock.now_ms()
    rows = [
        {
            **_row(row),
            "age": age(row.at, now),
            "progress": progress(row.done, row.total),
            "ends in": ends_in(row.kill_at, row.ends_at, now),
            "why": row.error or row.note or None,
        }
        for row in found[:limit]
    ]
    columns = [
        Column(name="id", whole=True),
        Column(name="type"),
        Column(name="queue"),
        Column(name="state", style=state_style),
        Column(name="age", right=True),
    ]
    if any(row["done"] is not None for row in rows):
        columns.append(Column(name="progress", right=True))
    if any(row["ends in"] is not None for row in rows):
        columns.append(Column(name="ends in", right=True))
    narrow = out.is_terminal and shutil.get_terminal_size().columns < WIDE
    if any(row["why"] for row in rows) and narrow:
        out.note("why is left out, the terminal is narrow: processor job show ID")
    if any(row["why"] for row in rows) and not narrow:
        columns.append(Column(name="why", style=lambda why: "bad" if why else "dim"))
    shown = [_row(row) for row in found[:limit]] if out.as_json else rows
    such = "jobs" if queue is None and chosen is None and type_ is None else "such jobs"
    out.table(columns, shown, empty=f"no {such} in namespace {app.namespace}")
    if len(found) > limit:
        out.note(f"the latest {limit}; --limit shows more")


def _row(row: JobRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": row.type,
        "queue": row.queue,
        "state": row.state,
        "life": row.life,
        "attempt": row.attempt,
        "at": row.at,
        "worker": row.worker,
        "error": row.error,
        "note": row.note or None,
        "done": row.done,
        "total": row.total,
        "due_at": row.due_at,
        "kill_at": row.kill_at,
        "ends_at": row.ends_at,
        "place": row.place._asdict() if row.place else None,
    }


@click.command("show")
@click.argument("job_id", metavar="ID")
@target_options
@output_options
def show_(out: Output, target: Target, job_id: str) -> None:
    """Show what is known of a job: where it stands, what it saved, how long it may take, why it failed."""
    from processor.admin import job_status, saved_progress
    from processor.cli.job.limits import limits_of

    app = target.app()
    status = job_status(app.broker(), app.namespace, job_id)
    queued = queued_row(app, job_id) if status is None else None
    if status is None and queued is None:
        raise ProcessorError(
            f"nothing is known of job {job_id} in namespace {app.namespace}",
            hint="a status is kept for topics.status_retention (7 days unless changed); is the namespace right?",
        )
    queue = status.queue if status is not None else queued.queue if queued is not None else ""
    saved = saved_progress(app.broker(), app.namespace, queue, job_id)
    facts = _known(job_id, status, queued)
    known = app.job_types.get(facts["type"])
    facts["attempts"] = None if known is None else known.attempts
    facts["limits"] = limits_of(None if known is None else known.options, facts)
    out.facts(facts if out.as_json else _told(facts, app.client().clock.now_ms(), saved))
    if status is not None and status.error is not None and status.error.traceback:
        for line in status.error.traceback.rstrip().splitlines():
            out.line(show(line), "dim")


def _known(job_id: str, status: StatusRecord | None, queued: JobRow | None) -> dict[str, Any]:
    from processor.cli.job.following import described

    if status is None:
        assert queued is not None
        return {**_row(queued), "traceback": "", "result": None}
    return {
        **described(job_id, status),
        "type": status.type,
        "queue": status.queue,
        "place": None,
        "traceback": status.error.traceback if status.error else "",
        "result": None if status.result is None else json.loads(status.result),
    }


def _told(facts: dict[str, Any], now_ms: int, saved: SavedProgress | None) -> dict[str, Any]:
    """The same for people: what is not there is left out."""
    from processor.cli.job.limits import told_limits
    from processor.cli.wording import age, loops, progress, until

    told = {name: facts[name] for name in ("id", "type", "queue", "state")}
    told["since"] = f"{moment(facts['at'])} ({age(facts['at'], now_ms)} ago)"
    if facts["life"] > 1:
        told["life"] = facts["life"]
    if facts["attempt"]:
        most = "" if facts["attempts"] is None else f" of {facts['attempts']}"
        told["attempt"] = f"{facts['attempt']}{most}"
    if facts["due_at"] is not None:
        told["begins" if facts["state"] == State.SCHEDULED else "goes on"] = until(facts["due_at"], now_ms)
    told.update(told_limits(facts, now_ms))
    told["worker"] = facts["worker"]
    if facts["done"] is not None:
        told["progress"] = progress(facts["done"], facts["total"])
    told["note"] = facts["note"]
    if facts["place"]:
        told["waits in"] = "{topic}, partition {partition}, offset {offset}".format(**facts["place"])
    if saved is not None and not saved.ended:
        record = saved.progress
        told["saved"] = loops(record.loops, record.cursor) if record else None
        told["steps"] = ", ".join(step.name for step in saved.steps)
    told["error"] = facts["error"]
    if facts["result"] is not None:
        told["result"] = json.dumps(facts["result"], ensure_ascii=False)
    return {name: value for name, value in told.items() if value not in (None, "")}
