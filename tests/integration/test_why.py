"""`processor job why` on a real broker: what it says of a job is what keeps it from running."""

from __future__ import annotations

import time

import pytest

from processor.admin.orders import Operator, pause, resume, target_of
from processor.admin.why import facts_of
from processor.broker.base import OutRecord
from processor.core.why import Cause, Reason, reasons
from processor.states import State
from processor.wire.codec import encode
from processor.wire.records import CheckpointRecord
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)

WHO = Operator(reason="the bank is closed", by="ada@desk")


def answers(fleet: Fleet, job_id: str) -> list[Reason]:
    return reasons(facts_of(fleet.broker, fleet.namespace, job_id, time.time_ns() // 1_000_000))


def until(fleet: Fleet, job_id: str, cause: Cause) -> Reason:
    """Wait until this is the answer."""
    eventually(
        lambda: answers(fleet, job_id)[0].cause is cause, 40, lambda: f"{answers(fleet, job_id)} {fleet.describe()}"
    )
    return answers(fleet, job_id)[0]


def open_gate(fleet: Fleet, name: str) -> None:
    (fleet.folder / f"gate-{name}").touch()


def test_what_waits_before_any_worker_is_there(fleet: Fleet) -> None:
    assert [each.cause for each in answers(fleet, "nobody-knows-it")] == [Cause.UNKNOWN]
    job = fleet.app.enqueue("strict", {"amount": 1}).id
    later = fleet.app.enqueue("strict", {"amount": 1}, delay="1h").id
    assert [each.cause for each in answers(fleet, job)] == [Cause.NO_WORKER]
    assert [each.cause for each in answers(fleet, later)] == [Cause.NOT_DUE, Cause.NO_WORKER]
    pause(fleet.broker, fleet.namespace, target_of(QUEUE, None), WHO)
    pause(fleet.broker, fleet.namespace, target_of(None, "strict"), WHO)
    assert [each.cause for each in answers(fleet, job)] == [Cause.QUEUE_PAUSED, Cause.TYPE_PAUSED, Cause.NO_WORKER]
    (worker,) = fleet.start_ready("a")
    assert [each.cause for each in answers(fleet, job)][:2] == [Cause.QUEUE_PAUSED, Cause.TYPE_PAUSED]
    resume(fleet.broker, fleet.namespace, target_of(QUEUE, None), WHO)
    told = until(fleet, job, Cause.TYPE_PAUSED)
    assert told.text == "job type strict is paused: the bank is closed (by ada@desk)"
    eventually(lambda: fleet.state_of(job) is State.WAITING, 20, fleet.describe)
    assert [each.cause for each in answers(fleet, job)] == [Cause.TYPE_PAUSED], "now it is parked"
    resume(fleet.broker, fleet.namespace, target_of(None, "strict"), WHO)
    assert "it has ended: succeeded" in until(fleet, job, Cause.ENDED).text
    assert worker.alive


def test_what_waits_for_its_turn_its_key_or_its_retry(fleet: Fleet) -> None:
    fleet.start_ready("a", concurrency=1)
    retries = fleet.append("fails.once")
    fleet.flush()
    assert "attempt 1 failed (builtins.ValueError" in until(fleet, retries.id, Cause.RETRY).text
    unknown = fleet.append("no.such.type")
    fleet.flush()
    until(fleet, unknown.id, Cause.DEPLOY)
    runs = fleet.append("gated", {"key": "one"}, key="one")
    fleet.flush()
    assert "on " in until(fleet, runs.id, Cause.RUNNING).text
    follows = fleet.append("gated", {"key": "one"}, key="one")
    number = (fleet.number_of("one") + 1) % 4
    others = [fleet.append("strict", {"amount": 1}, job_id=fleet.id_for(number, f"s{n}")).id for n in range(4)]
    fleet.flush()
    told = until(fleet, follows.id, Cause.KEY)
    assert told.text == f"it waits for its ordering key one: job {runs.id} is before it (running)"
    assert [answers(fleet, job_id)[0].cause for job_id in others] == [Cause.NEXT, *[Cause.BEHIND] * 3]
    assert "behind up to 3 others" in answers(fleet, others[3])[0].text
    open_gate(fleet, "one")
    for job_id in (*others, follows.id, runs.id):
        until(fleet, job_id, Cause.ENDED)


def test_a_running_job_whose_worker_is_gone(fleet: Fleet) -> None:
    (worker,) = fleet.start_ready("a")
    job = fleet.append("gated", {"key": "one"}, key="one")
    fleet.flush()
    until(fleet, job.id, Cause.RUNNING)
    worker.terminate()
    assert worker.wait() == 0, worker.tail()
    until(fleet, job.id, Cause.WORKER_GONE)
    fleet.start_ready("b")
    open_gate(fleet, "one")
    until(fleet, job.id, Cause.ENDED)


def test_a_job_of_a_held_partition(fleet: Fleet) -> None:
    number, other = 1, 2
    # There is history, and neither an offset nor a mark says how far it is done.
    saved = CheckpointRecord("job-x", 1, 0, 2, 7, 0, fleet.lane().topic, 17, number, cursor="5")
    fleet.put(OutRecord(fleet.checkpoints, b"job-x", encode(saved), None, number))
    worker = fleet.start("a")
    eventually(lambda: worker.events("number.held"), 60, fleet.describe)
    stuck = fleet.append("strict", {"amount": 1}, job_id=fleet.id_for(number, "stuck"))
    runs = fleet.append("strict", {"amount": 1}, job_id=fleet.id_for(other, "runs"))
    fleet.flush()
    until(fleet, runs.id, Cause.ENDED)
    told = until(fleet, stuck.id, Cause.HELD)
    assert told.text.startswith(f"its partition {number} of queue {QUEUE} is held by a ")
    assert "number.held" in told.advice
