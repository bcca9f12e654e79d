"""`processor checkpoint`: what running jobs have saved, as the checkpoint topic holds it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Column, Output, moment, output_options, show
from processor.cli.target import Target, target_options
from processor.errors import ProcessorError
from processor.states import State

if TYPE_CHECKING:
    from processor.admin import JobRow, SavedProgress
    from processor.app import App
    from processor.core.live import LiveView


@click.group()
def checkpoint() -> None:
    """What running jobs have saved."""


@checkpoint.command("list")
@target_options
@click.option("-q", "--queue", help="Only this queue.")
@output_options
def list_(out: Output, target: Target, queue: str | None) -> None:
    """List the unfinished jobs that have saved something, the latest save first."""
    from processor.admin import list_jobs, live_jobs, queues_of
    from processor.cli.wording import age, loops, size, state_style
    from processor.job import LoopProgress

    app = target.app()
    broker, namespace = app.broker(), app.namespace
    known = {row.id: row for row in list_jobs(broker, namespace, queue=queue, limit=sys.maxsize)}
    now = app.client().clock.now_ms()
    rows = [
        _row(view, name, number, known)
        for name in ([queue] if queue is not None else queues_of(broker, namespace))
        for number, view in live_jobs(broker, namespace, name)
        if not view.ended
    ]
    rows.sort(key=lambda row: row["at"] or 0, reverse=True)
    if not out.as_json:
        rows = [
            {
                **row,
                "loops": loops({name: LoopProgress(**at) for name, at in row["loops"].items()}, row["cursor"]),
                "age": age(row["at"], now),
                "size": size(row["size"]),
                "steps": row["steps"] or None,
            }
            for row in rows
        ]
    columns = [
        Column(name="id", whole=True),
        Column(name="type"),
        Column(name="queue"),
        Column(name="state", style=state_style),
        Column(name="loops"),
        Column(name="steps", right=True),
        Column(name="age", right=True),
        Column(name="size", right=True),
    ]
    out.table(columns, rows, empty="no unfinished job has saved anything")


def _row(view: LiveView, queue: str, number: int, known: Mapping[str, JobRow]) -> dict[str, Any]:
    from processor.wire import codec

    record = codec.decode_checkpoint(view.progress) if view.progress else None
    live = codec.decode_live_job(view.job) if view.job else None
    row = known.get(view.id)
    if row is not None and row.life < view.life:
        row = None
    job_type = codec.decode_job(live.job).type if live else row.type if row else None
    state = row.state if row else live.state if live else State.QUEUED
    values = [view.progress or b"", view.job or b"", *view.steps.values(), *view.signals.values()]
    return {
        "id": view.id,
        "type": job_type,
        "queue": queue,
        "number": number,
        "state": state,
        "cursor": record.cursor if record else None,
        "loops": {name: at._asdict() for name, at in ((record.loops if record else None) or {}).items()},
        "steps": len(view.steps),
        "at": record.at if record else live.since if live else None,
        "size": sum(len(value) for value in values),
        "promoted": live is not None,
    }


@checkpoint.command("show")
@click.argument("job_id", metavar="ID")
@target_options
@click.option("-q", "--queue", help="Its queue; found by itself unless given.")
@output_options
def show_(out: Output, target: Target, job_id: str, queue: str | None) -> None:
    """Show all that a job has saved: cursor, state, loops, steps, and where its record lies."""
    app = target.app()
    name, saved = _saved(app, job_id, queue)
    facts = _facts(job_id, name, saved)
    if out.as_json:
        out.facts(facts)
        return
    now = app.client().clock.now_ms()
    out.facts(_told(facts, now))
    if facts["loops"]:
        out.line("")
        columns = [Column(name="loop"), *(Column(name=name, right=True) for name in ("items", "total", "cursor"))]
        out.table([*columns, Column(name="finished")], facts["loops"])
    if facts["steps"]:
        out.line("")
        out.table([Column(name=name) for name in ("step", "phase", "result", "error")], facts["steps"])


def _saved(app: App, job_id: str, queue: str | None) -> tuple[str, SavedProgress]:
    """What is saved, and in which queue: the status names it, else all are searched."""
    from processor.admin import job_status, queues_of, saved_progress

    broker, namespace = app.broker(), app.namespace
    status = None if queue is not None else job_status(broker, namespace, job_id)
    names = [queue] if queue is not None else [status.queue] if status is not None else queues_of(broker, namespace)
    for name in names:
        saved = saved_progress(broker, namespace, name, job_id)
        if saved is not None:
            return name, saved
    told = f"it is {status.state}" if status is not None else "nor is its state known"
    raise ProcessorError(
        f"nothing is saved of job {job_id} in namespace {namespace}; {told}",
        hint="a job saves when a step or an item of a loop is done; what it saved goes when it has ended",
    )


def _facts(job_id: str, queue: str, saved: SavedProgress) -> dict[str, Any]:
    record, live = saved.progress, saved.live
    newest = record or live
    return {
        "id": job_id,
        "queue": queue,
        "number": saved.number,
        "ended": saved.ended,
        "promoted": live is not None,
        "reason": live.reason if live else "",
        "home": None if record is None else {"topic": record.home_topic, "offset": record.home_offset},
        "version": None
        if newest is None
        else {
            "life": newest.life,
            "hop": newest.hop,
            "epoch": newest.epoch,
            "sequence": newest.sequence,
        },
        "attempt": record.attempt if record else None,
        "at": record.at if record else live.since if live else None,
        "done": record.done if record else None,
        "total": record.total if record else None,
        "cursor": record.cursor if record else None,
        "state": record.state if record else None,
        "loops": [
            {"loop": name, "items": at.items, "total": at.total, "cursor": at.cursor, "finished": at.exhausted}
            for name, at in ((record.loops if record else None) or {}).items()
        ],
        "steps": [
            {"step": step.name, "phase": step.phase, "result": step.result, "error": step.error} for step in saved.steps
        ],
        "signals": list(saved.signals),
    }


def _told(facts: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """The same for people, without the tables; what is not there is left out."""
    from processor.cli.wording import age, progress

    home, version = facts["home"], facts["version"]
    lies = "in the checkpoint topic (promoted)" if facts["promoted"] else None
    if lies is None and home:
        lies = f"{home['topic']}, partition {facts['number']}, offset {home['offset']}"
    told = {
        "id": facts["id"],
        "queue": f"{facts['queue']}, number {facts['number']}",
        "home": lies,
        "parked": facts["reason"],
        "saved": f"{moment(facts['at'])} ({age(facts['at'], now_ms)} ago)" if facts["at"] is not None else None,
        "version": " ".join(f"{name} {value}" for name, value in version.items()) if version else None,
        "attempt": facts["attempt"],
        "progress": progress(facts["done"], facts["total"]) if facts["done"] is not None else None,
        "cursor": facts["cursor"],
        "state": facts["state"],
        "signals": ", ".join(show(signal) for signal in facts["signals"]),
        "ended": "yes: an end mark, gone with the next flush" if facts["ended"] else None,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}
