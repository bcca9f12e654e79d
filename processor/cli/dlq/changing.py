"""`dlq redrive` and `discard`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from processor.cli.dlq.choosing import Wanted, chosen, filter_options
from processor.cli.output import Column, Output, output_options, show
from processor.cli.payload import payload_of
from processor.cli.stopping import Stop, between_batches
from processor.cli.target import Target, target_options
from processor.cli.wording import count
from processor.errors import DeadLetterError, PayloadInvalid

if TYPE_CHECKING:
    from processor.admin.dead_letters import LetterRow
    from processor.admin.redrive import Order, Settlement
    from processor.app import App

SHOWN = 50
"""Letters of a dry run, and refusals, that people are shown; `--json` has all."""

_names = click.argument("names", nargs=-1, metavar="[ADDRESS|ID]...")
_all_open = click.option("--all-open", is_flag=True, help="All letters that are open, less what filters leave out.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
_reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit topic.")
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def _finite(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter("it is a number of letters a second, more than 0")
    return value


@click.command()
@_names
@target_options
@filter_options
@_all_open
@click.option("--from-zero", is_flag=True, help="Begin at the beginning, not at the checkpoint; children are new ones.")
@click.option(
    "--payload",
    metavar="JSON|@FILE|-",
    help="Another payload for one job. With --app its model checks it. The ordering key stays as it was.",
)
@click.option("--rate", type=float, callback=_finite, metavar="N", help="Letters a second at most.")
@_dry_run
@_reason
@_yes
@output_options
def redrive(out: Output, /, target: Target, names: Sequence[str], wanted: Wanted, **options: Any) -> None:
    """Send dead letters back to their queues: each job begins a new life and goes on from its checkpoint.

    Name letters by address or job id, choose them with filters, or take --all-open. A job is sent once, however often
    the command is run: one that was stopped half-way is simply run again.
    """
    from processor.admin.redrive import plan_redrive, redrive_letters
    from processor.core.redrive import Redrive

    app = target.app()
    rows = chosen(app, names, wanted, options["all_open"])
    payload, version = None, None
    if options["payload"] is not None:
        payload, version = _payload(app, target, rows, options["payload"])
    how = Redrive(from_zero=options["from_zero"], payload=payload, version=version)
    order = _order(app, options["reason"], options["rate"])
    if options["dry_run"]:
        _show_plan(out, plan_redrive(app.broker(), app.namespace, rows, how, order), len(rows))
        return
    if target.has_code:
        _warn_of_unknown_types(out, app, rows)
    where = "from zero" if how.from_zero else "from their checkpoints"
    if not _agreed(out, rows, f"Redrive {count(len(rows), 'letter')} {where}?", options["yes"]):
        return
    with out.progress("redriving", len(rows)) as tick, _stoppable() as stop:
        result = redrive_letters(app.broker(), app.namespace, rows, how, _ticking(order, tick, stop))
    _tell(out, "redriven", rows, result)


@click.command()
@_names
@target_options
@filter_options
@_all_open
@_dry_run
@_reason
@_yes
@output_options
def discard(out: Output, /, target: Target, names: Sequence[str], wanted: Wanted, **options: Any) -> None:
    """Note that dead letters need nothing more. They stay in the topic, and can be redriven by address all the same."""
    from processor.admin.redrive import discard_letters
    from processor.cli.dlq.facts import row_facts

    app = target.app()
    rows = [row for row in chosen(app, names, wanted, options["all_open"]) if row.state == "open"]
    if options["dry_run"]:
        columns = [Column(name=name) for name in ("address", "id", "type", "queue", "reason")]
        shown = [row_facts(row) for row in rows]
        out.table(columns, shown if out.as_json else shown[:SHOWN], empty="no open dead letter is meant")
        out.note(f"{count(len(rows), 'letter')} would be discarded")
        return
    if not _agreed(out, rows, f"Discard {count(len(rows), 'letter')}?", options["yes"]):
        return
    order = _order(app, options["reason"], None)
    with out.progress("discarding", len(rows)) as tick, _stoppable() as stop:
        result = discard_letters(app.broker(), app.namespace, rows, _ticking(order, tick, stop))
    _tell(out, "discarded", rows, result)


# -- parts -------------------------------------------------------------------------------------------------------------


def _order(app: App, reason: str, rate: float | None) -> Order:
    from processor.admin.redrive import Order
    from processor.identity import operator

    return Order(by=operator(), reason=reason, rate=rate, clock=app.client().clock)


@contextmanager
def _stoppable() -> Iterator[Stop]:
    """Ctrl-C says what it means for the letters."""
    try:
        with between_batches() as stop:
            yield stop
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped: what was done stays done; run it again for what is still open") from None


def _ticking(order: Order, tick: Any, stop: Stop) -> Order:
    from dataclasses import replace

    return stop.heard_by(replace(order, done=tick))


def _payload(app: App, target: Target, rows: Sequence[LetterRow], text: str) -> tuple[bytes, int | None]:
    """The new payload and its version, checked as far as anything is known of it.

    Raises:
        click.UsageError: it is meant for more than one letter, or is no JSON.
        PayloadInvalid, PayloadTooLarge: it cannot be one of that job type.
    """
    from processor.payloads import encode_untyped

    if len(rows) != 1:
        raise click.UsageError(f"--payload is for one job, and {count(len(rows), 'letter')} are meant: name one")
    (row,) = rows
    value = payload_of(text)
    data = encode_untyped(value, row.type, app.client().config.payload_max_bytes)
    known = app.job_types.get(row.type) if target.has_code else None
    if known is None:
        return data, None
    if not known.takes_payload:
        raise PayloadInvalid(f"job type {row.type} takes no payload", hint="leave --payload out")
    known.decode_payload(data, known.version)
    return data, known.version


def _warn_of_unknown_types(out: Output, app: App, rows: Sequence[LetterRow]) -> None:
    for name in sorted({row.type for row in rows if row.life} - set(app.job_types)):
        out.warning(f"the app has no job type {show(name)}: its workers will give it up again")


def _agreed(out: Output, rows: Sequence[LetterRow], question: str, yes: bool) -> bool:
    """Whether to go on; False: there is nothing to do."""
    if not rows:
        if out.as_json:
            out.facts({"done": 0, "skipped": 0, "refused": []})
        out.note("no open dead letter is meant")
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask here: say --yes, or look first with --dry-run")
    types = sorted({row.type or "no job" for row in rows})
    out.note(f"{count(len(rows), 'letter')} of {show(', '.join(types[:5]))}{' ...' if len(types) > 5 else ''}")
    click.confirm(question, abort=True, err=True)
    return True


def _show_plan(out: Output, plan: Any, total: int) -> None:
    from processor.admin.redrive import Item

    shown: list[dict[str, Any]] = []
    refused = 0
    for prepared in plan:
        row = prepared[0]
        facts = {"address": str(row.address), "id": row.id, "type": row.type, "queue": row.queue}
        if isinstance(prepared, Item):
            job = prepared.job
            assert job is not None
            facts |= {"life": job.life, "number": job.number, "would": f"go on {prepared.detail}", "refused": ""}
            if not job.carried:
                facts["would"] = "begin at the beginning"
        else:
            refused += 1
            facts |= {"life": None, "number": None, "would": "be refused", "refused": str(prepared[1])}
        shown.append(facts)
    columns = [Column(name="address", whole=True), Column(name="id", whole=True), Column(name="type")]
    columns += [Column(name="queue"), Column(name="life", right=True), Column(name="would")]
    if refused:
        columns.append(Column(name="refused"))
        # What needs a person's eye comes last, where it is seen.
        shown.sort(key=lambda facts: bool(facts["refused"]))
    out.table(columns, shown if out.as_json else shown[-SHOWN:], empty="no open dead letter is meant")
    out.note(f"{count(total - refused, 'letter')} would be redriven, {refused} refused; nothing was sent")


def _tell(out: Output, done: str, rows: Sequence[LetterRow], result: Settlement) -> None:
    refused = [
        {"address": str(row.address), "id": row.id, "error": str(error), "hint": error.hint}
        for row, error in result.refused
    ]
    if out.as_json:
        out.facts({"done": result.done, "skipped": result.skipped, "refused": refused})
    out.line(f"{count(result.done, 'letter')} {done}")
    if result.skipped:
        out.note(f"{result.skipped} skipped: doubles, or settled by somebody else meanwhile")
    for facts in refused[:SHOWN]:
        out.warning(show(facts["error"] + (f" ({facts['hint']})" if facts["hint"] else "")))
    if refused:
        raise DeadLetterError(
            f"{len(refused)} of {count(len(rows), 'letter')} could not be {done}",
            hint="each warning above says why" if len(refused) <= SHOWN else "--json names all",
        )
