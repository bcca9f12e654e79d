"""What a child process reports, done to the real attempt by its port here; and what the child is told of it."""

from __future__ import annotations

from dataclasses import asdict

from processor.errors import JobLost, JobYielded
from processor.executors.child_frames import Assigned, Report
from processor.executors.local_port import LocalPort


def apply(port: LocalPort, report: Report) -> None:
    """Do to the real attempt what the handler did in the child.

    The owning thread may drain the attempt at any moment in between, so the order matters: what a progress stands for
    (steps, children) comes before it, and what it makes superfluous after it.
    """
    for step in report.steps:
        port.save_step(step)
    for record in report.children:
        port.spawn(record, "")
    if report.progress is not None:
        port.note(report.progress)
    latest = port.mailbox.latest
    if report.save and latest is not None:
        port.save(latest)
    port.forget_steps(report.forgotten)
    if report.reported is not None:
        port.progressed(*report.reported)
    if report.beat:
        port.heartbeat()


def assigned(port: LocalPort, trace: str) -> Assigned:
    """What a child is told of an attempt; `trace` is its span, as `Assigned` has it."""
    limits = asdict(port.limits)
    return Assigned(port.job, port.fencing_token, port.resumed, port.steps, limits, port.patience, trace)


def synced(port: LocalPort) -> str:
    """Wait until all that was reported is durable; what a child is told of it."""
    try:
        port.sync()
    except JobLost:
        return "lost"
    except JobYielded:
        return "yielded"
    return "durable"
