"""Nothing that a handler, a payload or a name does harms a worker or another job: on real workers and a real Kafka.

One worker with one slot for each kind of executor, and behind each bad job a healthy one of the same partition and the
same executor: it succeeds, the process is the same, and it stops at once.
"""

from __future__ import annotations

import time

import pytest

from processor.states import State
from processor.wire.codec import encode
from processor.wire.records import DeadLetterRecord
from tests.integration import bad_jobs
from tests.integration.fleet import Fleet
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)


def kinds(prefix: str, executor: str) -> list[str]:
    """Names of the bad job types of an executor."""
    from tests.integration.jobs_app import app

    return [name for name in app.job_types if name.startswith(f"{prefix}.") and name.endswith(f".{executor}")]


def run_all(fleet: Fleet, names: list[str], executor: str) -> dict[str, tuple[str, str]]:
    """Each job with a healthy one behind it, in one partition: name -> (bad id, healthy id). All have ended."""
    ids = {}
    for place, name in enumerate(names):
        number = place % 2
        bad = fleet.append(name, {"number": 1}, job_id=fleet.id_for(number, f"bad-{name}"))
        fine = fleet.append(f"fine.{executor}", job_id=fleet.id_for(number, f"fine-{name}"))
        ids[name] = (bad.id, fine.id)
    fleet.flush()
    fleet.finish([job_id for pair in ids.values() for job_id in pair], timeout=90)
    return ids


def letters_of(fleet: Fleet, ids: set[str]) -> dict[str, DeadLetterRecord]:
    """The dead letters of these jobs, once all of them are there."""

    def found() -> dict[str, DeadLetterRecord]:
        letters = {letter.id: letter for letter in fleet.dead_letters()}
        return letters if ids <= letters.keys() else {}

    return eventually(found, 30, fleet.describe)


@pytest.mark.parametrize("executor", bad_jobs.EXECUTORS)
def test_handler_that_raises_anything_ends_its_own_job_alone(fleet: Fleet, executor: str) -> None:
    (worker,) = fleet.start_ready("a", concurrency=1)
    pid = worker.pid
    names = kinds("raise", executor)
    assert len(names) >= len(bad_jobs.RAISED)
    ids = run_all(fleet, names, executor)
    letters = letters_of(fleet, {bad for bad, _ in ids.values()})
    for name, (bad, fine) in ids.items():
        kind = name.split(".")[1]
        assert fleet.end_of(fine).state is State.SUCCEEDED, name
        end = fleet.end_of(bad)
        assert end.state is State.DEAD, name
        assert end.error is not None
        assert bad_jobs.CAUSE[kind] in end.error.kind, name
        assert len(end.error.message) <= 2000
        assert "geheim" not in end.error.message
        (failure,) = letters[bad].failures or []
        # Nothing was raised in there by the one that gave something to be awaited.
        assert ("bad_jobs.py" in failure.traceback) is (kind != "coroutine"), name
        assert len(failure.traceback) <= 16_000
    harmless = kinds("harmless", executor)
    for name, pair in run_all(fleet, harmless, executor).items():
        assert [fleet.end_of(job_id).state for job_id in pair] == [State.SUCCEEDED] * 2, name
    fleet.settle()
    assert worker.alive
    assert worker.pid == pid
    assert len(fleet.processes) == 1
    if executor == "process":
        # The child itself outlives what its handlers raise.
        assert len(worker.events("child.started")) == 1
    began = time.monotonic()
    worker.terminate()
    assert worker.wait() == 0
    assert time.monotonic() - began < 2.0


def test_record_whose_id_breaks_the_rule_is_kept_raw(fleet: Fleet) -> None:
    """Written by another program, or by an older version: a `#` ends the id in the keys of a checkpoint topic."""
    (worker,) = fleet.start_ready("a", concurrency=1)
    bad = [fleet.append("steps", {"count": 3}, job_id=job_id) for job_id in ("order#7", "line\nbreak", "x" * 300)]
    numbers = [fleet.number_of(job.id) for job in bad]
    fine = [fleet.append("fine.thread", job_id=fleet.id_for(n, f"fine-{place}")) for place, n in enumerate(numbers)]
    fleet.flush()
    fleet.finish([job.id for job in fine])
    letters = eventually(lambda: len(fleet.dead_letters()) >= len(bad) and fleet.dead_letters(), 30, fleet.describe)
    assert {letter.reason for letter in letters or []} == {"undecodable"}
    assert sorted(letter.raw or b"" for letter in letters or []) == sorted(encode(job) for job in bad)
    assert all("cannot be one" in (letter.failures or [])[0].message for letter in letters or [])
    assert worker.alive
    assert not worker.events("number.held")
