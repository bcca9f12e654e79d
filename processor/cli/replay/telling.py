"""A replay's plan and outcome, for machines and for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from processor.cli.output import Column, Output, moment, show
from processor.cli.wording import age, count, state_style
from processor.errors import ReplayError

if TYPE_CHECKING:
    from processor.admin.replay import Gone, Outcome, Plan

SHOWN = 20
"""Partitions, ids and refusals that people are shown; `--json` has all."""


def plan_facts(plan: Plan) -> dict[str, Any]:
    """A plan for machines."""
    spec, replay = plan.frozen.spec, plan.replay
    left = len(plan.left)
    return {
        "name": plan.name,
        "namespace": spec.namespace,
        "to_namespace": spec.target,
        "jobs": len(plan.choice.jobs),
        "sent": len(plan.choice.jobs) - left,
        "left": left,
        "done": replay.done is not None,
        "counts": [
            {"queue": queue, "type": type_, "state": state, "jobs": jobs}
            for (queue, type_, state), jobs in plan.choice.counts().items()
        ],
        "left_out": {reason.value: jobs for reason, jobs in plan.choice.left_out.items()},
        "missing": list(plan.choice.missing),
        "unreadable": plan.unreadable,
        "gone": [_gone_facts(gone) for gone in plan.gone],
    }


def _gone_facts(gone: Gone) -> dict[str, Any]:
    return {
        "queue": gone.queue,
        "lane": gone.lane,
        "number": gone.number,
        "asked": gone.asked,
        "begins": gone.begins,
        "records": gone.records,
        "oldest": gone.oldest,
    }


def tell_plan(out: Output, plan: Plan, now_ms: int) -> None:
    """A plan for people: a table on stdout, what is to be known of it on stderr."""
    facts = plan_facts(plan)
    columns = [
        Column(name="queue", whole=True),
        Column(name="type", whole=True),
        Column(name="state", style=state_style),
        Column(name="jobs", right=True),
    ]
    out.table(columns, facts["counts"], empty="no job is meant")
    for reason, jobs in plan.choice.left_out.items():
        out.note(f"left out: {count(jobs, 'job')}: {reason.words}")
    if plan.unreadable:
        out.warning(f"{count(plan.unreadable, 'record')} of the lanes can be read by no job type and are left out")
    _tell_missing(out, plan.choice.missing)
    _tell_gone(out, plan.gone, now_ms)


def _tell_missing(out: Output, missing: Sequence[str]) -> None:
    if missing:
        more = "" if len(missing) <= SHOWN else f" and {len(missing) - SHOWN} more"
        out.warning(f"no lane holds a record of {show(', '.join(missing[:SHOWN]))}{more}: never there, or deleted")


def _tell_gone(out: Output, gone: Sequence[Gone], now_ms: int) -> None:
    """What the queues have deleted."""
    if not gone:
        return
    for row in gone[:SHOWN]:
        where = f"{row.queue}, lane {row.lane}, partition {row.number}"
        kept = "nothing is kept" if row.oldest is None else f"the oldest is of {_ago(row.oldest, now_ms)}"
        out.warning(
            f"gone: {where}: up to {count(row.records, 'record')} from offset {row.asked} on; "
            f"it begins at {row.begins}, {kept}"
        )
    total = sum(row.records for row in gone)
    if len(gone) > SHOWN:
        out.warning(f"gone: {len(gone) - SHOWN} more partitions; --json has all")
    out.note(
        f"up to {total:,} records of what was asked for were deleted: finished jobs are kept for topics.replay_time "
        "(7 days unless changed)"
    )


def _ago(at_ms: int, now_ms: int) -> str:
    return f"{moment(at_ms)} ({age(at_ms, now_ms)} ago)"


def how(plan: Plan) -> str:
    """Into what and as what, in words."""
    spec = plan.frozen.spec
    into = f"queue {spec.to_queue}" if spec.to_queue else "the same queue" if len(spec.queues) == 1 else "their queues"
    where = f"{into} of namespace {spec.target}" if spec.moves else into
    ids = "under their own ids" if spec.same_ids else "as new jobs"
    return f"into {where}, {ids}, from {'their last checkpoints' if spec.from_checkpoint else 'the start'}"


def tell_outcome(out: Output, plan: Plan, outcome: Outcome) -> None:
    """How it went.

    Raises:
        ReplayError: some jobs could not be sent.
    """
    refused = [
        {"queue": job.queue, "id": job.id, "error": str(error), "hint": error.hint} for job, error in outcome.refused
    ]
    if out.as_json:
        facts = {"name": plan.name, "sent": outcome.sent, "before": outcome.before, "gone": outcome.gone}
        out.facts({**facts, "refused": refused})
    before = f", {outcome.before:,} earlier" if outcome.before else ""
    out.line(f"{count(outcome.sent, 'job')} replayed{before}: replay {plan.name}")
    if outcome.gone:
        out.warning(f"{count(outcome.gone, 'job')} were deleted since they were chosen")
    for row in refused[:SHOWN]:
        out.warning(show(f"{row['queue']}/{row['id']}: {row['error']}" + (f" ({row['hint']})" if row["hint"] else "")))
    if refused:
        raise ReplayError(
            f"{len(refused)} jobs could not be sent",
            hint="each warning above says why; run it again once that is repaired"
            if len(refused) <= SHOWN
            else "--json names all; run it again once that is repaired",
        )
