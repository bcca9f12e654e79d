"""What a child process reports, done to the real attempt; and what the child is told of it."""

from __future__ import annotations

from dataclasses import asdict

from processor.engine.attempt import Attempt
from processor.errors import JobLost, JobYielded
from processor.executors.child_frames import Assigned, Report


def apply(attempt: Attempt, report: Report) -> None:
    """Do to the real attempt what the handler did in the child.

    The owning thread may drain the attempt at any moment in between, so the order matters: what a progress stands for
    (steps, children) comes before it, and what it makes superfluous after it.
    """
    for step in report.steps:
        attempt.save_step(step)
    for record in report.children:
        attempt.spawn(record, "")
    if report.progress is not None:
        attempt.note(report.progress)
    if report.save and attempt.latest is not None:
        attempt.save(attempt.latest)
    attempt.forget_steps(report.forgotten)
    if report.reported is not None:
        attempt.progressed(*report.reported)
    if report.beat:
        attempt.heartbeat()


def assigned(attempt: Attempt, trace: str) -> Assigned:
    """What a child is told of an attempt; `trace` is its span, as `Assigned` has it."""
    limits = asdict(attempt.limits)
    return Assigned(attempt.job, attempt.fencing_token, attempt.resumed, attempt.steps, limits, attempt.patience, trace)


def synced(attempt: Attempt) -> str:
    """Wait until all that was reported is durable; what a child is told of it."""
    try:
        attempt.sync()
    except JobLost:
        return "lost"
    except JobYielded:
        return "yielded"
    return "durable"
