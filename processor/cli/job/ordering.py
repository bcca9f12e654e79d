"""`job cancel` and `retry`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from processor.cli.output import Output, output_options
from processor.cli.target import Target, target_options
from processor.errors import OrderRefused, ProcessorError
from processor.wire.names import fault_of_id

if TYPE_CHECKING:
    from processor.admin.orders import Operator
    from processor.app import App


def _checked(_context: click.Context, _parameter: click.Parameter, ids: Sequence[str]) -> Sequence[str]:
    for job_id in ids:
        if (fault := fault_of_id(job_id)) is not None:
            raise click.BadParameter(f"{job_id!r}: {fault}")
    return ids


_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...", callback=_checked)
_reason = click.option("--reason", default="", metavar="TEXT", help="Why; it stays with the job.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say where the jobs are now.")


@click.command()
@_ids
@target_options
@_reason
@_dry_run
@output_options
def cancel(out: Output, target: Target, ids: Sequence[str], reason: str, dry_run: bool) -> None:
    """Cancel jobs, wherever they are. A running one hears of it at its next checkpoint, step or item.

    Exit code 1 if one of them has ended already.
    """
    from processor.admin.orders import cancel as cancel_job

    app = target.app()

    def ordered(job_id: str, who: Operator) -> str:
        status = cancel_job(app.broker(), app.namespace, job_id, who)
        if status is None:
            return "it has no status yet: it ends as soon as its turn comes, if there is such a job"
        return f"it was {status.state}"

    _for_each(out, app, ids, reason, dry_run, ("is being cancelled", ordered))


@click.command()
@_ids
@target_options
@_reason
@_dry_run
@output_options
def retry(out: Output, target: Target, ids: Sequence[str], reason: str, dry_run: bool) -> None:
    """Let waiting jobs go on now: those that wait for their retry, that are parked, or that are in doubt.

    Exit code 1 if one of them does not wait. A dead one is sent back by processor dlq redrive.
    """
    from processor.admin.orders import go_on

    app = target.app()
    told = ("goes on", lambda job_id, who: go_on(app.broker(), app.namespace, job_id, who))
    _for_each(out, app, ids, reason, dry_run, told)


def _for_each(
    out: Output,
    app: App,
    ids: Sequence[str],
    reason: str,
    dry_run: bool,
    order: tuple[str, Callable[[str, Operator], str]],
) -> None:
    from processor.admin import job_status
    from processor.admin.orders import Operator

    word, give = order
    who = Operator(reason=reason)
    refused: list[ProcessorError] = []
    for job_id in dict.fromkeys(ids):
        if dry_run:
            status = job_status(app.broker(), app.namespace, job_id)
            state = None if status is None else status.state
            out.record({"id": job_id, "state": state}, f"{job_id}  {state or 'no status'}")
            continue
        try:
            how = give(job_id, who)
        except OrderRefused as error:
            refused.append(error)
            out.record({"id": job_id, "done": False, "how": str(error)}, f"{job_id}  refused")
            continue
        out.record({"id": job_id, "done": True, "how": how}, f"{job_id}  {word}: {how}")
    for other in refused[:-1]:
        out.error(other)
    if refused:
        raise refused[-1]
