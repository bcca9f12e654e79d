"""`job watch` and `result`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from processor.cli.output import Output, output_options
from processor.cli.target import Target, target_options
from processor.errors import JobNotFinished
from processor.states import TERMINAL, State

if TYPE_CHECKING:
    from processor.admin import JobRow
    from processor.app import App


@click.command()
@click.argument("job_id", metavar="ID")
@target_options
@click.option("--timeout", metavar="TIME", help="Give up after this time, e.g. 30s; the job goes on.")
@output_options
def watch(out: Output, target: Target, job_id: str, timeout: str | None) -> None:
    """Show state and progress of a job until it ends. Exit code 1 if it does not end well."""
    from processor.cli.job.following import Followed, bar, ended_well, lines

    app = target.app()
    seconds = in_seconds("--timeout", timeout) if timeout else None
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


@click.command()
@click.argument("job_id", metavar="ID")
@target_options
@click.option("--timeout", metavar="TIME", help="Wait at most this long, e.g. 30s; 0s: do not wait.")
@output_options
def result(out: Output, target: Target, job_id: str, timeout: str | None) -> None:
    """Wait for the end of a job and print what its handler returned, as JSON. Exit code 1 if it did not end well."""
    seconds = in_seconds("--timeout", timeout) if timeout else None
    print_result(out, target.app(), job_id, seconds)


def print_result(out: Output, app: App, job_id: str, timeout: float | None) -> None:
    """Wait for the end of a job and print its result."""
    from processor.cli.job.following import Followed, bar, described, ended_well, told

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
    if queued_row(app, job_id) is None:
        out.warning(f"nothing is known of job {job_id} in namespace {app.namespace}; waiting for it to appear")


def queued_row(app: App, job_id: str) -> JobRow | None:
    """A job without a status: one that waits in a lane, or until it is due for the first time; None: it does not."""
    from processor.admin import list_jobs

    for state in (State.QUEUED, State.SCHEDULED):
        rows = list_jobs(app.broker(), app.namespace, states=frozenset({state}), limit=sys.maxsize)
        found = next((row for row in rows if row.id == job_id), None)
        if found is not None:
            return found
    return None


def in_seconds(option: str, value: str) -> float:
    """A time as an option gives it."""
    from processor.wire.durations import parse_duration

    return parse_duration(value, name=option)
