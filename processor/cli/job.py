"""`processor job`: start jobs, look at them, wait for their results."""

from __future__ import annotations

import difflib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Column, Output, moment, output_options, show
from processor.cli.payload import payload_of
from processor.cli.target import Target, target_options
from processor.errors import DefinitionError, JobNotFinished, ProcessorError, TopicMissing, UnknownJobType
from processor.states import TERMINAL, State
from processor.wire.names import fault_of_id

if TYPE_CHECKING:
    from processor.admin import JobRow, SavedProgress
    from processor.app import App
    from processor.client.handles import Handle
    from processor.wire.records import StatusRecord

FOR_EVER = ""
"""`--wait-result` without a time."""
WIDE = 110
"""Columns of a terminal that also shows errors in lists; `job show` has them in any case."""
_STATES = click.Choice([state.value for state in State])


@click.group()
def job() -> None:
    """Start jobs, look at them, get their results."""


# -- enqueue -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be enqueued."""

    type: str
    payload: Any
    queue: str | None
    key: str | None
    id: str | None
    version: int | None


@job.command()
@click.argument("type", metavar="TYPE")
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False)
@target_options
@click.option("-q", "--queue", help="Which queue's workers run it; known for the job types of an --app.")
@click.option("--key", help="Ordering key. The job types of an --app take it from the payload.")
@click.option(
    "--id",
    callback=lambda _ctx, _param, value: _checked_id(value),
    help="Its id. Enqueueing the same id again is safe: it runs once.",
)
@click.option("--payload-version", "version", type=click.IntRange(1), help="Of the payload, if not 1; without --app.")
@click.option(
    "--wait-result",
    is_flag=False,
    flag_value=FOR_EVER,
    metavar="[TIME]",
    help="Wait for its end, for ever or so long (--wait-result=30s), and print the result.",
)
@output_options
def enqueue(out: Output, /, target: Target, payload: str | None, wait_result: str | None, **options: Any) -> None:
    """Start a job of TYPE and print its id.

    The payload is JSON on the command line, in a file (@order.json) or on the standard input (-). With --app its model
    checks the payload before anything is sent.
    """
    timeout = _seconds("--wait-result", wait_result) if wait_result else None
    wanted = Wanted(payload=payload_of(payload), **options)
    app = target.app()
    handle = _enqueue(app, wanted)
    if wait_result is None:
        out.record({"id": handle.id, "type": wanted.type, "queue": _queue_of(app, wanted)}, handle.id)
        return
    out.note(f"enqueued {handle.id}")
    _print_result(out, app, handle.id, timeout)


def _enqueue(app: App, wanted: Wanted) -> Handle[Any]:
    queue = _queue_of(app, wanted)
    _refuse_missing_queue(app, queue)
    known = wanted.type in app.job_types
    if known and (wanted.key is not None or wanted.version is not None):
        given = "--key" if wanted.key is not None else "--payload-version"
        raise DefinitionError(
            f"the app declares job type {wanted.type}: its key and version are known, {given} cannot change them",
            hint=f"leave {given} out, or go by --namespace and --queue instead of --app",
        )
    if known and wanted.queue is None:
        return app.enqueue(wanted.type, wanted.payload, id=wanted.id)
    version = wanted.version or 1
    return app.enqueue(wanted.type, wanted.payload, queue=queue, version=version, key=wanted.key, id=wanted.id)


def _queue_of(app: App, wanted: Wanted) -> str:
    known = app.job_types.get(wanted.type)
    if known is not None:
        return wanted.queue or known.queue
    if wanted.queue is not None:
        return wanted.queue
    if not app.job_types:
        raise UnknownJobType(
            f"which queue? nothing is known here of job type {wanted.type}",
            hint="say whose workers run it (--queue), or give --app, whose job types know their queues",
        )
    near = difflib.get_close_matches(wanted.type, app.job_types, n=1)
    raise UnknownJobType(
        f"the app has no job type {wanted.type}",
        hint=f"did you mean {near[0]}?" if near else f"it has: {', '.join(sorted(app.job_types)) or 'none'}",
    )


def _refuse_missing_queue(app: App, queue: str) -> None:
    """Ask before sending: a topic that does not exist is told at once, and a broker that is away as such."""
    from processor.admin import queues_of
    from processor.job import Lane
    from processor.wire.topics import check_name, jobs_topic

    topic = jobs_topic(app.namespace, check_name(queue, "queue"), Lane.NORMAL)
    if not app.broker().admin().topics([topic]):
        others = ", ".join(queues_of(app.broker(), app.namespace))
        raise TopicMissing(
            f"queue {queue} has no topic {topic}",
            hint=f"processor topics apply creates it; namespace {app.namespace} has "
            + (f"the queues {others}" if others else "no queues yet"),
        )


def _checked_id(job_id: str | None) -> str | None:
    fault = None if job_id is None else fault_of_id(job_id)
    if fault is not None:
        raise click.BadParameter(f"{fault}; an id is not empty and holds no '#'")
    return job_id


def _seconds(option: str, value: str) -> float:
    from processor.wire.durations import parse_duration

    return parse_duration(value, name=option)


# -- waiting -----------------------------------------------------------------------------------------------------------


@job.command()
@click.argument("job_id", metavar="ID")
@target_options
@click.option("--timeout", metavar="TIME", help="Give up after this time, e.g. 30s; the job goes on.")
@output_options
def watch(out: Output, target: Target, job_id: str, timeout: str | None) -> None:
    """Show state and progress of a job until it ends. Exit code 1 if it does not end well."""
    from processor.cli.job_follow import Followed, bar, ended_well, lines

    app = target.app()
    seconds = _seconds("--timeout", timeout) if timeout else None
    followed = Followed(app, job_id)
    if followed.now() is None:
        _warn_of_unknown(out, app, job_id)
    if out.is_terminal:
        with bar(job_id) as shown:
            status = followed.until_end(seconds, shown)
        lines(out, job_id)(status)
    else:
        status = followed.until_end(seconds, lines(out, job_id))
    ended_well(status)


@job.command()
@click.argument("job_id", metavar="ID")
@target_options
@click.option("--timeout", metavar="TIME", help="Wait at most this long, e.g. 30s; 0s: do not wait.")
@output_options
def result(out: Output, target: Target, job_id: str, timeout: str | None) -> None:
    """Wait for the end of a job and print what its handler returned, as JSON. Exit code 1 if it did not end well."""
    seconds = _seconds("--timeout", timeout) if timeout else None
    _print_result(out, target.app(), job_id, seconds)


def _print_result(out: Output, app: App, job_id: str, timeout: float | None) -> None:
    from processor.cli.job_follow import Followed, bar, described, ended_well, told

    followed = Followed(app, job_id)
    status = followed.now()
    if (status is None or status.state not in TERMINAL) and timeout != 0:
        if status is None:
            _warn_of_unknown(out, app, job_id)
        with bar(job_id) as shown:
            status = followed.until_end(timeout, shown)
    if status is None or status.state not in TERMINAL:
        raise JobNotFinished(f"job {job_id} has not ended: {told(status)}", hint=f"processor job watch {job_id}")
    value = None if status.result is None else json.loads(status.result)
    if out.as_json:
        out.facts({**described(job_id, status), "result": value})
    ended_well(status)
    if not out.as_json:
        click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _warn_of_unknown(out: Output, app: App, job_id: str) -> None:
    """A job without a status is queued, or a slip of the keyboard: whoever waits for it is to know."""
    if _queued(app, job_id) is None:
        out.warning(f"nothing is known of job {job_id} in namespace {app.namespace}; waiting for it to appear")


def _queued(app: App, job_id: str) -> JobRow | None:
    from processor.admin import list_jobs

    rows = list_jobs(app.broker(), app.namespace, states=frozenset({State.QUEUED}), limit=sys.maxsize)
    return next((row for row in rows if row.id == job_id), None)


# -- looking -----------------------------------------------------------------------------------------------------------


@job.command("list")
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
            "error": row.error,
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
    if any(row["error"] for row in rows) and not (out.is_terminal and shutil.get_terminal_size().columns < WIDE):
        columns.append(Column(name="error", style=lambda error: "bad" if error else "dim"))
    shown = rows if out.as_json else [{**row, "error": row["error"] or None} for row in rows]
    out.table(columns, shown, empty=f"no jobs in namespace {app.namespace}")
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
        "done": row.done,
        "total": row.total,
        "place": row.place._asdict() if row.place else None,
    }


@job.command("show")
@click.argument("job_id", metavar="ID")
@target_options
@output_options
def show_(out: Output, target: Target, job_id: str) -> None:
    """Show what is known of a job: where it stands, what it saved, why it failed."""
    from processor.admin import job_status, saved_progress

    app = target.app()
    status = job_status(app.broker(), app.namespace, job_id)
    queued = _queued(app, job_id) if status is None else None
    if status is None and queued is None:
        raise ProcessorError(
            f"nothing is known of job {job_id} in namespace {app.namespace}",
            hint="a status is kept for topics.status_retention (7 days unless changed); is the namespace right?",
        )
    queue = status.queue if status is not None else queued.queue if queued is not None else ""
    saved = saved_progress(app.broker(), app.namespace, queue, job_id)
    facts = _known(job_id, status, queued)
    out.facts(facts if out.as_json else _told(facts, app.client().clock.now_ms(), saved))
    if status is not None and status.error is not None and status.error.traceback:
        for line in status.error.traceback.rstrip().splitlines():
            out.line(show(line), "dim")


def _known(job_id: str, status: StatusRecord | None, queued: JobRow | None) -> dict[str, Any]:
    from processor.cli.job_follow import described

    if status is None:
        assert queued is not None
        return {**_row(queued), "note": None, "error": "", "traceback": "", "result": None}
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
    from processor.cli.wording import age, loops, progress

    told = {name: facts[name] for name in ("id", "type", "queue", "state")}
    told["since"] = f"{moment(facts['at'])} ({age(facts['at'], now_ms)} ago)"
    if facts["life"] > 1:
        told["life"] = facts["life"]
    if facts["attempt"]:
        told["attempt"] = facts["attempt"]
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
