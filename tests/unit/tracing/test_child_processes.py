"""Spans of attempts in child processes: the worker writes them, also of those that die."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.trace import StatusCode

from processor.clock import SystemClock
from processor.context.port import ContextLimits
from processor.core.outcome import Crashed, Outcome, Succeeded
from processor.core.write_set import Origin
from processor.engine.attempt import Attempt, AttemptShared
from processor.engine.config import QueueConfig, WorkerConfig
from processor.engine.queue_partition import QueuePartition
from processor.executors.loading import absolute
from processor.executors.processes import ProcessPool
from processor.job import Job
from processor.runtime import Inbox, ThreadedRuntime
from processor.tracing import WorkerTracing, found
from processor.wire.trace_context import own_trace
from tests.unit.tracing.spans import Traced, context_of, told
from tests.waiting import eventually

JOBS = """
import os
from opentelemetry import trace
from processor import App, Context

app = App("groups")

@app.job("tells")
def tells(ctx: Context) -> list:
    span = trace.get_current_span()
    span.set_attributes({"rows": 7, "names": ["a", "b"], "odd": object()})
    context = span.get_span_context()
    return [f"{context.trace_id:x}", f"{context.span_id:x}", span.is_recording()]

@app.job("dies")
def dies(ctx: Context) -> None:
    os._exit(3)
"""


class _Number:
    assignment = 1
    epoch = 1


class Bench:
    """A pool with one child, of the app above, in a worker that traces."""

    def __init__(self, folder: Path) -> None:
        (folder / "traced_jobs.py").write_text(JOBS, "utf-8")
        runtime, app_path = ThreadedRuntime(), absolute(f"{folder / 'traced_jobs.py'}:app")
        self._inbox: Inbox[Any] = Inbox(runtime)
        queues = (QueueConfig(name="q"),)
        config = WorkerConfig(namespace="groups", slot="w-0", queues=queues, app_path=app_path)
        self.pool = ProcessPool(runtime, self._inbox, "children", 1, config)
        spans = found()
        assert spans is not None
        tracing = WorkerTracing("groups", "w-0", spans)
        self._shared = AttemptShared(self._inbox, SystemClock(), ContextLimits(), runtime.signal, 1.0, None, tracing)

    def run(self, job_type: str) -> Outcome:
        job = Job("j", job_type, 1, "q", b"", 0)
        attempt = Attempt(self._shared, cast(QueuePartition, _Number), None, Origin("t", 0, 0), job, b"", None)
        self.pool.submit([attempt])

        def ended() -> bool:
            self.pool.nudge()
            return attempt.outcome is not None

        eventually(ended, 60.0)
        assert attempt.outcome is not None
        return attempt.outcome


@pytest.fixture
def bench(traced: Traced, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    assert made.pool.stop(10.0)


def test_a_handler_in_a_child_process_is_inside_its_workers_span(bench: Bench, traced: Traced) -> None:
    outcome = bench.run("tells")
    assert isinstance(outcome, Succeeded), outcome
    span = traced.one("process tells")
    context = context_of(span)
    assert json.loads(outcome.result or b"") == [f"{context.trace_id:x}", f"{context.span_id:x}", True]
    assert context.trace_id == own_trace("j").trace_id
    facts = told(span)
    assert (facts["rows"], facts["names"], facts["job.outcome"]) == (7, ("a", "b"), "succeeded")
    assert "odd" not in facts


def test_a_child_process_that_dies_leaves_its_span(bench: Bench, traced: Traced) -> None:
    assert isinstance(bench.run("dies"), Crashed)
    span = traced.one("process dies")
    assert told(span)["job.outcome"] == "crashed"
    assert span.status.status_code is StatusCode.ERROR
    assert "exit code 3" in (span.status.description or "")
