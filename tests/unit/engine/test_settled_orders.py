"""Orders about jobs do not stay for ever: carried out, they are noted as settled, and some days later buried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from processor.broker.base import OutRecord
from processor.core.control import HOLDS_MS, KEPT_MS, ORDER_AT, UNSETTLED_MS, Change, ControlTable, change_of
from processor.policies import Backoff, Park, Retry
from processor.states import State
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.records import ControlRecord
from tests.unit.engine.scene import NS, Scene

TOPIC = topics.control_topic(NS)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=5, partitions=2)
    yield scene
    scene.close()


def orders(scene: Scene) -> dict[str, ControlRecord]:
    """What a worker that starts now is told."""
    table: dict[str, ControlRecord] = {}
    for record in scene.broker.records(TOPIC):
        change = change_of(record.key() or b"", record.value(), record.headers())
        if change.record is None:
            table.pop(change.target, None)
        else:
            table[change.target] = change.record
    return table


def settled(scene: Scene, job_id: str) -> bool:
    return bool(orders(scene)[f"job:{job_id}"].settled)


def fails(ctx: Any, payload: Any) -> None:
    raise ValueError("no")


@pytest.mark.parametrize("wait", [None, "3s"], ids=["queued", "retrying"])
def test_a_cancel_that_was_carried_out_is_settled_and_still_holds(scene: Scene, wait: str | None) -> None:
    ran: list[int] = []

    def flaky(ctx: Any, payload: Any) -> None:
        ran.append(ctx.attempt)
        raise ValueError("no")

    scene.define("flaky", flaky, retry=Retry(5, Backoff(wait or "1s")))
    if wait is None:
        scene.order("cancel", "job:job-1", life=1)
    scene.enqueue("flaky", "job-1")
    worker = scene.start("w-0")
    if wait is not None:
        scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
        number = scene.status_of("job-1").number
        scene.order("cancel", "job:job-1", life=1, queue="q", number=number, type="flaky")
        scene.until(lambda: scene.state_of("job-1") is State.CANCELLED, 2.0)
        assert not settled(scene, "job-1"), "its record is still on its way"
    scene.settle()
    scene.until(lambda: settled(scene, "job-1"))
    worker.kill()
    scene.enqueue("flaky", "job-1")
    scene.start("w-1")
    scene.settle()
    assert len(ran) == (wait is not None), "the same id, enqueued again within a day, is the cancelled job"
    assert scene.ends() == {("job-1", 1): [State.CANCELLED]}


def test_an_order_to_go_on_is_settled_by_the_job_that_goes_on(scene: Scene) -> None:
    scene.define("parks", fails, retry=Retry(5).on(ValueError, Park("ask Ada")))
    scene.start("w-0")
    scene.enqueue("parks", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.WAITING)
    first = scene.status_of("job-1").at
    scene.order("retry", "job:job-1", life=1, seen=first)
    scene.until(lambda: settled(scene, "job-1"))
    scene.until(lambda: scene.state_of("job-1") is State.WAITING and scene.status_of("job-1").at > first)


def test_what_is_over_is_buried_and_what_holds_stays(scene: Scene) -> None:
    now = scene.runtime.clock.now_ms()
    old = ControlRecord("job:old", "cancel", now - UNSETTLED_MS - 1, "me@here", life=1)
    waits = ControlRecord("job:waits", "cancel", now - KEPT_MS - HOLDS_MS, "me@here", life=1)
    done = waits._replace(target="job:done", settled=now - KEPT_MS - 1)
    fresh = waits._replace(target="job:fresh", settled=now - HOLDS_MS)
    paused = ControlRecord("type:mail", "pause", now - 2 * UNSETTLED_MS, "me@here")
    for order in (old, waits, done, fresh, paused):
        scene.append(OutRecord(TOPIC, order.target.encode(), encode(order)))
    worker = scene.start("w-0")
    scene.until(lambda: set(orders(scene)) == {"job:waits", "job:fresh", "type:mail"})
    table = worker.worker.state.gate.control
    scene.until(lambda: table.job_order("done") is None and table.job_order("old") is None)
    assert table.job_order("waits") is not None
    assert table.type_pause("mail") is not None


def test_an_order_given_while_the_one_before_it_is_buried_holds(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0")
    scene.until(scene.active)
    scene.order("cancel", "job:job-1", life=2)
    at = orders(scene)["job:job-1"].at
    scene.append(OutRecord(TOPIC, b"job:job-1", None, [(ORDER_AT, b"%d" % (at - 1))]))
    scene.until(lambda: "job:job-1" in orders(scene), 5.0)
    assert orders(scene)["job:job-1"].at == at, "it stands behind the tombstone, where compaction keeps it"
    worker.kill()
    scene.enqueue("plain", "job-1", life=2)
    scene.start("w-1")
    scene.settle()
    assert scene.state_of("job-1") is State.CANCELLED


def test_a_tombstone_without_a_moment_takes_back_anything() -> None:
    table = ControlTable()
    order = ControlRecord("job:a", "cancel", 1000, "me", life=1)
    assert table.apply(Change("job:a", order))
    assert not table.apply(Change("job:a", None, 999))
    assert table.job_order("a") == order
    assert table.apply(Change("job:a", None, 1000))
    assert table.job_order("a") is None
    table.apply(Change("job:a", order))
    assert table.apply(Change("job:a", None))
    assert table.job_order("a") is None
