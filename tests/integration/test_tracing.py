"""Traces of a real worker on a real Kafka: a job that fails, a worker that is killed, and one trace of all of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.fleet import Fleet
from tests.integration.jobs_app import Flaky
from tests.unit.tracing.conftest import program, traced
from tests.unit.tracing.spans import Traced, context_of
from tests.waiting import eventually

__all__ = ["program", "traced"]

pytestmark = pytest.mark.timeout(240)


def test_attempts_of_two_processes_lie_in_one_trace(fleet: Fleet, traced: Traced) -> None:
    path = fleet.folder / "spans.jsonl"
    path.touch()

    def spans(count: int) -> list[dict[str, Any]]:
        def look() -> list[dict[str, Any]]:
            found = [json.loads(line) for line in path.read_text().splitlines()]
            return [span for span in found if span["name"] == "process flaky"]

        return eventually(lambda: found if len(found := look()) >= count else [], 60, fleet.describe)

    env = {"JOBS_TRACES": str(path)}
    (first_worker,) = fleet.start_ready("a", env=env)
    with traced.tracer.start_as_current_span("request"):
        handle = fleet.app.job_types["flaky"].enqueue(Flaky(items=3, at=2, times=1))
    spans(1)
    # Perhaps before its end is in the log: then the attempt is made once more.
    first_worker.kill()
    fleet.start_ready("a", env=env)
    fleet.finish([handle.id])
    found = spans(2)
    publish = context_of(traced.one("publish flaky"))
    assert (found[0]["job.outcome"], found[-1]["job.outcome"]) == ("retrying", "succeeded")
    assert (found[0]["job.attempt"], found[-1]["job.attempt"]) == (1, 2)
    assert len({span["pid"] for span in found}) == 2
    assert {(span["trace"], span["parent"]) for span in found} == {(found[0]["trace"], found[0]["parent"])}
    assert [span["links"] for span in found] == [[[publish.trace_id, publish.span_id]]] * len(found)
