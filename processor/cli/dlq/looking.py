"""`dlq list`, `show` and `export`: nothing is changed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from processor.cli.dlq.choosing import ALL, STATES, Wanted, filter_options
from processor.cli.output import Column, Output, moment, output_options, show, show_lines
from processor.cli.target import Target, target_options
from processor.cli.wording import age, count

if TYPE_CHECKING:
    from processor.admin.dead_letters import LetterRow

WIDE = 120
"""Columns of a terminal that also shows errors in the list; `dlq show` has them in any case."""
BRIEF = 120
"""Characters of an error in a table."""
_STATE_STYLES = {"open": "bad", "redriven": "good", "discarded": "dim"}


@click.command("list")
@target_options
@filter_options
@click.option("--state", type=STATES, default="open", show_default=True, metavar="STATE", help=f"Or {ALL}.")
@click.option(
    "--group-by",
    type=click.Choice(["fingerprint", "type", "reason"]),
    help="Count letters that have this in common, the largest group first. A fingerprint is an error at a place.",
)
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows at most.")
@output_options
def list_(out: Output, target: Target, wanted: Wanted, state: str, group_by: str | None, limit: int) -> None:
    """List dead letters, the newest last: those that are still open, unless --state says otherwise."""
    from processor.admin.dead_letters import list_letters

    app = target.app()
    asked, every = wanted.filter(app, state), wanted.filter(app, ALL)
    rows = list_letters(app.broker(), app.namespace, every)
    chosen = [row for row in rows if asked.allows(row)]
    now = app.client().clock.now_ms()
    if group_by is not None:
        _groups(out, chosen, group_by, now, limit)
    else:
        _letters(out, chosen[-limit:], now, state)
        if len(chosen) > limit:
            out.note(f"the newest {limit} of {len(chosen):,}; --limit shows more, --group-by counts them")
    others = Counter(row.state.value for row in rows if not asked.allows(row))
    if others:
        out.note(
            f"not shown: {', '.join(f'{count:,} {name}' for name, count in sorted(others.items()))} (--state {ALL})"
        )


def _letters(out: Output, rows: Sequence[LetterRow], now: int, state: str) -> None:
    from processor.cli.dlq.facts import row_facts

    columns = [Column(name="address", whole=True), Column(name="id", whole=True), Column(name="type")]
    columns += [Column(name="queue"), Column(name="reason")]
    if state != "open":
        columns.append(Column(name="state", style=lambda name: _STATE_STYLES.get(name, "")))
    columns += [Column(name="tries", right=True), Column(name="age", right=True)]
    if out.is_terminal and shutil.get_terminal_size().columns < WIDE:
        out.note("errors are left out, the terminal is narrow: processor dlq show ADDRESS")
    else:
        columns.append(Column(name="error", style=lambda error: "bad" if error else "dim"))
    shown = [row_facts(row) for row in rows]
    if not out.as_json:
        shown = [
            {name: value or None for name, value in facts.items()}
            | {"tries": facts["attempts"] or None, "age": age(facts["at"], now), "error": _brief(facts["error"])}
            for facts in shown
        ]
    out.table(columns, shown, empty="no open dead letters" if state == "open" else "no dead letters")


def _groups(out: Output, rows: Sequence[LetterRow], by: str, now: int, limit: int) -> None:
    from processor.admin.dead_letters import group_letters

    groups = group_letters(rows, by)
    shown: list[dict[str, Any]] = [
        {
            by: group.name,
            "count": group.count,
            "open": group.open,
            "first": group.first,
            "last": group.last,
            "types": group.types,
            "reasons": group.reasons,
            "error": group.error,
            "example": str(group.example),
        }
        for group in groups[:limit]
    ]
    if not out.as_json:
        shown = [
            {
                **facts,
                "types": ", ".join(facts["types"]) or None,
                "reasons": ", ".join(facts["reasons"]),
                "last": age(facts["last"], now),
                "error": _brief(facts["error"]),
            }
            for facts in shown
        ]
    columns = [Column(name=by, whole=True), Column(name="count", right=True), Column(name="last", right=True)]
    columns += [Column(name=name) for name, group in (("types", "type"), ("reasons", "reason")) if group != by]
    out.table([*columns, Column(name="example", whole=True), Column(name="error")], shown, empty="no dead letters")
    if len(groups) > limit:
        out.note(f"the largest {limit} of {len(groups):,} groups; --limit shows more")


def _brief(error: str) -> str | None:
    """An error as a table has room for it."""
    if not error:
        return None
    return error if len(error) <= BRIEF else f"{error[:BRIEF]}..."


@click.command("show")
@click.argument("name", metavar="ADDRESS|ID")
@target_options
@output_options
def show_(out: Output, target: Target, name: str) -> None:
    """Show one dead letter, by its address or its job's id: why it was given up, each failure, what it had saved."""
    from processor.admin.dead_letters import find_letters, read_letters
    from processor.cli.dlq.facts import letter_facts, told
    from processor.errors import DeadLetterError

    app = target.app()
    rows = find_letters(app.broker(), app.namespace, name)
    row = next((row for row in rows if str(row.address) == name), rows[-1])
    found = next(iter(read_letters(app.broker(), app.namespace, [row])), None)
    if found is None:
        raise DeadLetterError(f"dead letter {row.address} is gone: retention took it")
    facts = letter_facts(*found)
    out.facts(facts if out.as_json else told(facts, app.client().clock.now_ms()))
    if out.as_json:
        return
    for failure in facts["failures"]:
        out.line("")
        attempt = f"attempt {failure['attempt']}" if failure["attempt"] else "failure"
        out.line(f"{attempt}, {moment(failure['at'])}, {show(failure['worker'] or '-')}", "dim")
        out.line("\n  ".join(show_lines(f"{failure['kind']}: {failure['message']}")), "bad")
        for line in failure["traceback"].rstrip().splitlines():
            out.line(show(line), "dim")
    others = [str(other.address) for other in rows if other.address != row.address]
    if others:
        out.note(f"{len(others)} more of this job: {', '.join(others)}")


@click.command()
@click.argument("names", nargs=-1, metavar="[ADDRESS|ID]...")
@target_options
@filter_options
@click.option("--state", type=STATES, default=ALL, show_default=True, metavar="STATE", help="Only letters in it.")
@output_options
def export(out: Output, target: Target, names: Sequence[str], wanted: Wanted, state: str) -> None:
    """Write dead letters, whole, as one JSON object per line."""
    from processor.admin.dead_letters import list_letters, missing_letter, read_letters
    from processor.cli.dlq.facts import letter_facts

    app = target.app()
    rows = list_letters(app.broker(), app.namespace, wanted.filter(app, state, names))
    known = {row.id for row in rows} | {str(row.address) for row in rows}
    for name in names:
        if name not in known:
            raise missing_letter(app.namespace, name)
    for row, letter in read_letters(app.broker(), app.namespace, rows):
        facts = letter_facts(row, letter)
        out.record(facts, json.dumps(facts, ensure_ascii=False))
    out.note(count(len(rows), "letter"))
