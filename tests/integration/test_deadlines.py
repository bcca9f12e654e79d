"""Time limits and cancels of handlers that do not listen, on real workers and a real Kafka, in every executor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from processor.admin.orders import Operator, cancel
from processor.states import State
from processor.texts import place_of
from processor.wire.records import DeadLetterRecord, StatusRecord
from tests.integration import bad_jobs
from tests.integration.fleet import Fleet, Process
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)

EXECUTORS: tuple[str, ...] = bad_jobs.EXECUTORS
WHO = Operator(reason="wrong customer", by="ada@desk")
QUICK = {"worker.stop_grace": "300ms", "worker.abandoned_max": "50"}


def started(fleet: Fleet, job_id: str) -> int:
    """Attempts of this job that have come to their handler's endless part."""
    return sum(line["job"] == job_id for line in fleet.ledger("start"))


def ends_of(fleet: Fleet, jobs: dict[str, str]) -> dict[str, StatusRecord]:
    """Executor -> how its job ended."""
    return {executor: fleet.end_of(job_id, 60.0) for executor, job_id in jobs.items()}


def letters_of(fleet: Fleet, jobs: dict[str, str]) -> dict[str, DeadLetterRecord]:
    found = {letter.id: letter for letter in fleet.dead_letters()}
    return {executor: found[job_id] for executor, job_id in jobs.items() if job_id in found}


def forced(worker: Process, jobs: dict[str, str]) -> set[str]:
    """Executors whose attempts were ended by force."""
    by_id = {job_id: executor for executor, job_id in jobs.items()}
    return {by_id[event["job_id"]] for event in worker.events("job.ended_by_force") if event["job_id"] in by_id}


def no_child_is_left(fleet: Fleet, job_id: str) -> None:
    pids = {line["pid"] for line in fleet.ledger("start") if line["job"] == job_id}
    assert pids
    eventually(lambda: not any(_runs(pid) for pid in pids), 20, "the children are gone")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def still_works(fleet: Fleet) -> None:
    """What was left behind takes no slot from others."""
    walks = [fleet.append("walk", {"items": 5}).id for _ in range(20)]
    fleet.flush()
    fleet.finish(walks)
    assert {fleet.state_of(job_id) for job_id in walks} == {State.SUCCEEDED}


def test_attempts_that_take_too_long_fail_and_keep_what_they_saved(fleet: Fleet) -> None:
    fleet.settings |= QUICK
    (worker,) = fleet.start_ready("a")
    jobs = {executor: fleet.app.enqueue(f"slow.{executor}").id for executor in EXECUTORS}
    ends = ends_of(fleet, jobs)
    assert {(end.state, end.attempt) for end in ends.values()} == {(State.DEAD, 2)}
    assert {end.error and (end.error.kind, end.error.message) for end in ends.values()} == {
        ("timeout", "the attempt took longer than 1 s")
    }
    letters = letters_of(fleet, jobs)
    assert {tuple(failure.kind for failure in letter.failures or []) for letter in letters.values()} == {
        ("timeout", "timeout")
    }
    assert all(len(letter.steps or []) == 1 for letter in letters.values())
    places = {executor: place_of((letter.failures or [])[-1].traceback) for executor, letter in letters.items()}
    assert places["thread"].endswith("in sleeping"), "where its thread was"
    assert places["async"].endswith("in swallowing"), "where its coroutine waited"
    for job_id in jobs.values():
        assert sum(line["job"] == job_id for line in fleet.ledger("effect")) == 1, "its step was saved before"
        assert started(fleet, job_id) == 2
    assert forced(worker, jobs) == set(EXECUTORS)
    no_child_is_left(fleet, jobs["process"])
    still_works(fleet)
    fleet.check_ends()


@pytest.mark.parametrize("why", ["killed", "cancelled"])
def test_a_job_that_hears_of_nothing_is_ended_in_every_executor(fleet: Fleet, why: str) -> None:
    fleet.settings |= QUICK
    (worker,) = fleet.start_ready("a")
    kill_after = "4s" if why == "killed" else None
    jobs = {executor: fleet.app.enqueue(f"deaf.{executor}", kill_after=kill_after).id for executor in EXECUTORS}
    eventually(lambda: all(started(fleet, job_id) for job_id in jobs.values()), 60, fleet.describe)
    if why == "cancelled":
        for job_id in jobs.values():
            cancel(fleet.broker, fleet.namespace, job_id, WHO)
    ends = ends_of(fleet, jobs)
    told = {"killed": "its kill date came while it ran", "cancelled": "wrong customer (by ada@desk)"}[why]
    assert {(end.state, end.note) for end in ends.values()} == {(State(why), told)}
    letters = letters_of(fleet, jobs)
    assert set(letters) == (set(EXECUTORS) if why == "killed" else set())
    assert all(letter.reason == "killed" and len(letter.steps or []) == 1 for letter in letters.values())
    assert forced(worker, jobs) == set(EXECUTORS)
    assert [started(fleet, job_id) for job_id in jobs.values()] == [1, 1, 1], "none is tried again"
    no_child_is_left(fleet, jobs["process"])
    still_works(fleet)
    fleet.check_ends()


def test_handlers_that_listen_need_no_force(fleet: Fleet) -> None:
    fleet.settings |= {"worker.stop_grace": "60s"}
    (worker,) = fleet.start_ready("a")
    jobs = {executor: fleet.app.enqueue(f"polite.{executor}").id for executor in EXECUTORS}
    ends = ends_of(fleet, jobs)
    kinds = {executor: end.error.kind for executor, end in ends.items() if end.error is not None}
    assert kinds == {"thread": "timeout", "process": "timeout", "async": "stall"}
    assert forced(worker, jobs) == set()
    fleet.check_ends()
    fleet.settle()


def test_a_job_that_waited_too_long_expires_without_running(fleet: Fleet) -> None:
    job = fleet.app.enqueue("stale")
    fleet.start_ready("a")
    end = fleet.end_of(job.id)
    assert (end.state, end.note) == (State.EXPIRED, "it had not begun 0.2 s after it was due")
    assert started(fleet, job.id) == 0
    fleet.settle()


@pytest.mark.parametrize("kind", ["slow.thread", "blocks"])
def test_a_process_with_too_much_left_behind_starts_anew_in_its_slot(fleet: Fleet, kind: str) -> None:
    """The jobs beside those go on where they were: no item twice."""
    fleet.settings |= {"worker.stop_grace": "300ms", "worker.abandoned_max": "2"}
    worker = fleet.start("a", supervised=True)
    fleet.until_owned()
    walk = fleet.append("walk", {"items": 1500, "pause": 0.01})
    fleet.flush()
    fleet.until_noted(5)
    beside = fleet.app.enqueue("walk.async", {"count": 1000})
    fleet.until_noted(5, "row")
    bad = [fleet.app.enqueue(kind).id for _ in range(2)]
    ends = [fleet.end_of(job_id, 90.0) for job_id in bad]
    assert {end.state for end in ends} == {State.DEAD}
    eventually(lambda: worker.events("worker.recycles"), 60, fleet.describe)
    assert fleet.end_of(walk.id, 90.0).state is State.SUCCEEDED
    rows = [line["item"] for line in fleet.ledger("item")]
    assert rows == list(range(1, 1501)), "no row twice, none left out"
    pids = {line["pid"] for line in fleet.ledger("item")}
    assert len(pids) > 1, "another process went on"
    assert fleet.end_of(beside.id, 90.0).state is State.SUCCEEDED
    rows = [line["item"] for line in fleet.ledger("row")]
    assert sorted(set(rows)) == list(range(1, 1001))
    # In an event loop that is held up nobody can end the item that was begun.
    assert len(rows) - 1000 < len({line["pid"] for line in fleet.ledger("row")})
    assert not worker.events("worker.grace_over"), "it does not wait for what never comes"
    assert worker.alive
    fleet.check_ends()
