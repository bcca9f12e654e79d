"""The job queue that goes on where it stopped, on another worker, with only Kafka to run.

The table of contents, in the order of a job's life:

    app             `App`: queues and job types are declared; jobs are enqueued, and asked for later
    job_types       `JobType`: what `@app.job` makes of a handler
    schedules       `app.schedule`: jobs that the clock starts
    policies        `Retry`, `Backoff` and what else may become of a failed job
    payloads        payloads as JSON, checked and upgraded; typed_json and fidelity see that data travels unchanged
    client          sends jobs into their lane, and gives `Handle`s: status, progress and result
    tracing         spans of enqueues, attempts and steps, where OpenTelemetry is configured
    wire            topics, records and their bytes, headers, settings
    broker          the log: the contract (base), Kafka, memory, a local Kafka for development
    engine          takes jobs from the log, checkpoints and completes them in one transaction; owns partitions
    executors       run handlers: threads, an event loop, child processes
    context         what a handler touches: steps, loops, checkpoints; context.rules says how they resume
    core            decisions without I/O: verdicts, windows, live jobs, order, dedupe, topic plan
    runtime         threads and inboxes, real ones and those of a simulation
    process         a worker process: supervision, slots, signals, probes, metrics
    admin, testing  what operators call; jobs without a broker
    job, states, errors, clock      the vocabulary of all of them; texts, events and logs say what happens
    cli             the command line

`import processor` loads nothing of that: names are loaded when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from processor.app import App as App
    from processor.client.backlog import QueueFull as QueueFull
    from processor.client.handles import Handle as Handle
    from processor.client.handles import JobProgress as JobProgress
    from processor.client.handles import JobStatus as JobStatus
    from processor.context import AsyncContext as AsyncContext
    from processor.context import Context as Context
    from processor.errors import AttemptTimedOut as AttemptTimedOut
    from processor.errors import EnqueueUnconfirmed as EnqueueUnconfirmed
    from processor.errors import JobFailed as JobFailed
    from processor.errors import JobNotFinished as JobNotFinished
    from processor.errors import ProcessorError as ProcessorError
    from processor.errors import RetryableError as RetryableError
    from processor.errors import TerminalError as TerminalError
    from processor.job_types import JobType as JobType
    from processor.policies import After as After
    from processor.policies import Backoff as Backoff
    from processor.policies import Dead as Dead
    from processor.policies import Discard as Discard
    from processor.policies import Park as Park
    from processor.policies import Retry as Retry
    from processor.states import State as State

_EXPORTS = {
    "After": "policies",
    "App": "app",
    "AsyncContext": "context",
    "AttemptTimedOut": "errors",
    "Backoff": "policies",
    "Context": "context",
    "Dead": "policies",
    "Discard": "policies",
    "EnqueueUnconfirmed": "errors",
    "Handle": "client.handles",
    "JobFailed": "errors",
    "JobNotFinished": "errors",
    "JobProgress": "client.handles",
    "JobStatus": "client.handles",
    "JobType": "job_types",
    "Park": "policies",
    "ProcessorError": "errors",
    "QueueFull": "client.backlog",
    "Retry": "policies",
    "RetryableError": "errors",
    "State": "states",
    "TerminalError": "errors",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    """Load an exported name at its first use (PEP 562)."""
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'processor' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"processor.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
