"""`job why`."""

from __future__ import annotations

import click

from processor.cli.output import Output, output_options, show
from processor.cli.target import Target, target_options
from processor.errors import ProcessorError


@click.command("why")
@click.argument("job_id", metavar="ID")
@target_options
@output_options
def why(out: Output, target: Target, job_id: str) -> None:
    """Tell why a job is not running (or that it is), and what to do. The first line is the answer."""
    from processor.admin.why import facts_of
    from processor.core.why import Cause, reasons

    app = target.app()
    facts = facts_of(app.broker(), app.namespace, job_id, app.client().clock.now_ms())
    known = app.job_types.get(facts.type)
    found = reasons(facts) if known is None else reasons(facts.allowing(known.attempts))
    answer = found[0]
    if answer.cause is Cause.UNKNOWN:
        raise ProcessorError(f"{answer.text} in namespace {app.namespace}", hint=answer.advice)
    if out.as_json:
        told = [{"cause": each.cause.value, "text": each.text, "advice": each.advice} for each in found]
        out.facts({"id": job_id, "state": facts.state, "reasons": told})
        return
    for each in found:
        out.line(show(each.text if each is answer else f"also: {each.text}"))
        if each.advice:
            out.line(show(f"  {each.advice}"), "dim")
