"""Orders of operators on a real Kafka: what runs hears of them within a second, and they outlast the workers."""

from __future__ import annotations

import time

import pytest

from processor.admin.jobs import list_jobs
from processor.admin.orders import Operator, cancel, go_on, pause, resume, target_of
from processor.admin.queues import list_queues, plan_seek, seek
from processor.admin.reading import partitions_of, read_to_end
from processor.client.orders import give
from processor.core.control import KEPT_MS, change_of
from processor.states import State
from processor.wire.records import ControlRecord
from processor.wire.topics import control_topic
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)

WHO = Operator(reason="wrong customer", by="ada@desk")
HEARD = 2.0
"""Seconds until an order is carried out, on a busy machine; a second on a quiet one."""


def items(fleet: Fleet) -> int:
    return len(fleet.ledger("item"))


def test_a_running_job_is_cancelled(fleet: Fleet) -> None:
    fleet.start_ready("a")
    job = fleet.append("walk", {"items": 2000, "pause": 0.01})
    fleet.flush()
    fleet.until_noted(20)
    began = time.monotonic()
    cancel(fleet.broker, fleet.namespace, job.id, WHO)
    status = fleet.end_of(job.id)
    took = time.monotonic() - began
    assert (status.state, status.note) == (State.CANCELLED, "wrong customer (by ada@desk)")
    assert took < 10 * HEARD
    reached = items(fleet)
    assert reached < 2000
    fleet.settle()
    assert items(fleet) == reached


def test_a_queue_rests_over_a_restart_and_goes_on_where_it_was(fleet: Fleet) -> None:
    (first,) = fleet.start_ready("a")
    job = fleet.append("walk", {"items": 300, "pause": 0.01})
    fleet.flush()
    fleet.until_noted(20)
    pause(fleet.broker, fleet.namespace, target_of(QUEUE, None), WHO)
    eventually(lambda: first.events("control.heard"), 20, fleet.describe)

    last = [items(fleet), time.monotonic()]

    def rests() -> bool:
        """No item for half a second; one takes ten milliseconds."""
        if items(fleet) != last[0]:
            last[:] = [items(fleet), time.monotonic()]
        return time.monotonic() - last[1] > 0.5

    eventually(rests, 20, fleet.describe)
    reached = items(fleet)
    first.terminate()
    assert first.wait() == 0
    (second,) = fleet.start_ready("b")
    assert second.events("control.heard")
    assert items(fleet) == reached
    row = next(row for row in list_queues(fleet.broker, fleet.namespace) if row.queue == QUEUE)
    assert (row.paused, row.workers) == ("wrong customer (by ada@desk)", ["b"])
    resume(fleet.broker, fleet.namespace, target_of(QUEUE, None), WHO)
    assert fleet.end_of(job.id).state is State.SUCCEEDED
    assert [line["item"] for line in fleet.ledger("item")] == sorted({line["item"] for line in fleet.ledger("item")})
    fleet.settle()


def test_a_paused_type_starts_nowhere_under_load_and_after_restarts(fleet: Fleet) -> None:
    """On three workers; what another type has to do goes on."""
    workers = fleet.start_ready("a", "b", "c")
    jobs = [fleet.append("walk", {"items": 1, "pause": 0.1}) for _ in range(3_000)]
    fleet.flush()
    fleet.until_noted(100)
    paused_at = time.monotonic()
    pause(fleet.broker, fleet.namespace, target_of(None, "walk"), WHO)
    eventually(lambda: all(worker.events("control.heard") for worker in workers), 20, fleet.describe)

    last = [items(fleet), time.monotonic()]

    def rests() -> bool:
        if items(fleet) != last[0]:
            last[:] = [items(fleet), time.monotonic()]
        return time.monotonic() - last[1] > 1.0

    eventually(rests, 30, fleet.describe)
    begun = fleet.ledger("start")
    assert len(begun) < len(jobs)
    late = max(float(line["at"]) for line in begun) - paused_at
    assert late < 10 * HEARD
    for worker in workers:
        worker.terminate()
        assert worker.wait() == 0
    fleet.start_ready("a", "b", "c")
    other = fleet.append("leaf", {"count": 1})
    fleet.flush()
    fleet.finish([other.id])
    assert len(fleet.ledger("start")) == len(begun)
    resume(fleet.broker, fleet.namespace, target_of(None, "walk"), WHO)
    fleet.finish((job.id for job in jobs), 120)


def test_a_retry_comes_now(fleet: Fleet) -> None:
    fleet.start_ready("a")
    job = fleet.append("fails.once")
    fleet.flush()
    eventually(lambda: fleet.state_of(job.id) is State.RETRYING, 30, fleet.describe)
    assert go_on(fleet.broker, fleet.namespace, job.id, WHO) == "attempt 2 begins now instead of later"
    assert fleet.end_of(job.id).state is State.SUCCEEDED


def test_a_delayed_job_waits_in_the_chain(fleet: Fleet) -> None:
    fleet.start_ready("a")
    began = time.time()
    later = fleet.app.enqueue("strict", {"amount": 1}, delay="3s")
    never = fleet.app.enqueue("strict", {"amount": 1}, delay="1h")
    scheduled = list_jobs(fleet.broker, fleet.namespace, states=frozenset({State.SCHEDULED}))
    assert {row.id for row in scheduled} == {later.id, never.id}
    cancel(fleet.broker, fleet.namespace, never.id, WHO)
    assert fleet.end_of(never.id).state is State.CANCELLED
    status = fleet.end_of(later.id)
    assert status.state is State.SUCCEEDED
    assert status.at / 1000 - began >= 3.0, "never early"
    assert not [line for line in fleet.ledger() if line["job"] == never.id]


def test_orders_about_jobs_are_settled_and_buried(fleet: Fleet) -> None:
    topic = control_topic(fleet.namespace)

    def orders() -> dict[str, ControlRecord | None]:
        places = partitions_of(fleet.broker, [topic])
        changes = (change_of(r.key() or b"", r.value(), r.headers()) for r in read_to_end(fleet.broker, places))
        return {change.target: change.record for change in changes}

    now = time.time_ns() // 1_000_000
    old = ControlRecord("job:old", "cancel", now - 2 * KEPT_MS, "ada@desk", life=1, settled=now - KEPT_MS - 1)
    producer = fleet.broker.producer()
    give(producer, fleet.namespace, old, 10.0)
    producer.close()
    job = fleet.append("walk", {"items": 10, "pause": 0.01})
    fleet.flush()
    cancel(fleet.broker, fleet.namespace, job.id, WHO)
    fleet.start_ready("a")
    assert fleet.end_of(job.id).state is State.CANCELLED
    eventually(lambda: orders()["job:old"] is None, 30, fleet.describe)
    order = orders()[f"job:{job.id}"]
    assert order is not None
    assert order.settled >= now


def test_seek_passes_over_what_waits(fleet: Fleet) -> None:
    waits = [fleet.append("strict", {"amount": 1}).id for _ in range(12)]
    fleet.flush()
    plan = plan_seek(fleet.broker, fleet.namespace, QUEUE, "end")
    assert sum(each.to for each in plan) >= len(waits)
    seek(fleet.broker, fleet.namespace, QUEUE, plan, WHO)
    fleet.start_ready("a")
    later = [fleet.append("strict", {"amount": 1}).id for _ in range(12)]
    fleet.flush()
    fleet.finish(later)
    assert fleet.ends().keys() == {(job_id, 1) for job_id in later}
    fleet.settle()
