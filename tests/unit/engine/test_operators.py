"""Orders of operators, in every state a job can be in, and over restarts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from processor.policies import Backoff, Park, Retry
from processor.states import State
from tests.unit.engine.scene import Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=3, partitions=2, settings={"stop_grace": 1.0})
    yield scene
    scene.close()


def rows(scene: Scene, seen: list[int], last: int = 30) -> Any:
    def handler(ctx: Any, payload: Any) -> int:
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, last + 1), every="100ms"):
            seen.append(row)
            scene.runtime.pass_time(0.1)
        return len(seen)

    return handler


def test_running_job_is_cancelled_at_its_next_item_and_keeps_the_reason(scene: Scene) -> None:
    seen: list[int] = []
    scene.define("rows", rows(scene, seen, 10_000))
    scene.start("w-0")
    scene.enqueue("rows", "job-1")
    scene.until(lambda: len(seen) > 5)
    scene.order("cancel", "job:job-1", life=1, reason="wrong file")
    scene.until(lambda: scene.state_of("job-1") is State.CANCELLED, 2.0)
    assert scene.status_of("job-1").note == "wrong file (by me@here)"
    scene.settle()
    assert scene.dead_letters() == []


def test_queued_job_is_cancelled_before_it_starts(scene: Scene) -> None:
    """Also if the order came before any worker: no job starts before control is read."""
    ran: list[str] = []
    scene.define("plain", lambda ctx, payload: ran.append(ctx.id))
    scene.enqueue("plain", "job-1")
    scene.enqueue("plain", "job-2")
    scene.order("cancel", "job:job-1", life=1)
    scene.start("w-0")
    scene.settle()
    assert ran == ["job-2"]
    assert scene.state_of("job-1") is State.CANCELLED


def test_ready_job_without_a_slot_is_cancelled_at_once(scene: Scene) -> None:
    scene.concurrency = 1
    scene.define("slow", lambda ctx, payload: scene.runtime.pass_time(20.0))
    scene.start("w-0")
    scene.until(scene.active)
    ids = [f"job-{index}" for index in range(40)]
    for job_id in ids:
        scene.enqueue("slow", job_id)
    scene.runtime.pass_time(1.0)
    scene.order("cancel", f"job:{ids[-1]}", life=1)
    scene.until(lambda: scene.state_of(ids[-1]) is State.CANCELLED, 3.0)


def test_retrying_job_is_cancelled_at_once_and_its_record_finds_no_life(scene: Scene) -> None:
    calls: list[int] = []

    def flaky(ctx: Any, payload: Any) -> None:
        calls.append(ctx.attempt)
        raise ValueError("no")

    scene.define("flaky", flaky, retry=Retry(5, Backoff("10s")))
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0")
    scene.enqueue("flaky", "job-1", key="k")
    scene.enqueue("plain", "job-2", key="k")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    scene.runtime.pass_time(0.5)
    status = scene.status_of("job-1")
    assert status.number is not None
    scene.order("cancel", "job:job-1", life=1, queue="q", number=status.number, type="flaky", reason="stop it")
    scene.until(lambda: scene.state_of("job-1") is State.CANCELLED, 2.0)
    assert scene.status_of("job-1").note == "stop it (by me@here)"
    scene.until(lambda: scene.state_of("job-2") is State.SUCCEEDED, 2.0)
    worker.kill()
    scene.start("w-1")
    scene.settle()
    assert calls == [1]
    assert scene.ends()["job-1", 1] == [State.CANCELLED]


def test_retrying_job_is_cancelled_by_whoever_reads_it_next(scene: Scene) -> None:
    """Without the number, or with the owner away: the order holds when the record comes back."""
    calls: list[int] = []

    def flaky(ctx: Any, payload: Any) -> None:
        calls.append(ctx.attempt)
        raise ValueError("no")

    scene.define("flaky", flaky, retry=Retry(5, Backoff("3s")))
    scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    scene.order("cancel", "job:job-1", life=1)
    scene.settle()
    assert calls == [1]
    assert scene.ends() == {("job-1", 1): [State.CANCELLED]}


def test_parked_job_is_cancelled_or_goes_on(scene: Scene) -> None:
    calls: list[str] = []

    def flaky(ctx: Any, payload: Any) -> None:
        calls.append(ctx.id)
        if calls.count(ctx.id) == 1:
            raise ValueError("no")

    scene.define("flaky", flaky, retry=Retry(5).on(ValueError, Park("ask Ada")))
    scene.start("w-0")
    for job_id in ("job-1", "job-2"):
        scene.enqueue("flaky", job_id)
    scene.until(lambda: {scene.state_of("job-1"), scene.state_of("job-2")} == {State.WAITING})
    scene.order("cancel", "job:job-1", life=1)
    scene.order("retry", "job:job-2", life=1, seen=scene.status_of("job-2").at)
    scene.until(lambda: scene.state_of("job-1") is State.CANCELLED, 3.0)
    scene.until(lambda: scene.state_of("job-2") is State.SUCCEEDED, 3.0)
    scene.settle()
    assert sorted(calls) == ["job-1", "job-2", "job-2"]


def test_order_to_go_on_holds_over_a_restart_and_only_once(scene: Scene) -> None:
    calls: list[str] = []

    def flaky(ctx: Any, payload: Any) -> None:
        calls.append(ctx.id)
        raise ValueError("no")

    scene.define("flaky", flaky, retry=Retry(5).on(ValueError, Park("ask Ada")))
    first = scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.WAITING)
    scene.runtime.pass_time(0.5)
    first.kill()
    scene.order("retry", "job:job-1", life=1, seen=scene.status_of("job-1").at)
    second = scene.start("w-1")
    scene.until(lambda: len(calls) == 2)
    scene.runtime.pass_time(2.0)
    second.kill()
    scene.start("w-2")
    scene.until(scene.active)
    scene.runtime.pass_time(2.0)
    assert len(calls) == 2, "it waits again, and the old order is not meant for that"


def test_cancel_never_hits_a_later_life(scene: Scene) -> None:
    ran: list[int] = []
    scene.define("plain", lambda ctx, payload: ran.append(payload))
    scene.order("cancel", "job:job-1", life=1)
    scene.enqueue("plain", "job-1", 1)
    scene.enqueue("plain", "job-1", 2, life=2, derived=True)
    scene.start("w-0")
    scene.settle()
    assert ran == [2]
    assert scene.ends() == {("job-1", 1): [State.CANCELLED], ("job-1", 2): [State.SUCCEEDED]}


def test_paused_queue_starts_nothing_saves_what_runs_and_goes_on(scene: Scene) -> None:
    seen: list[int] = []
    scene.define("rows", rows(scene, seen))
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0")
    scene.enqueue("rows", "job-1")
    scene.until(lambda: len(seen) > 5)
    scene.order("pause", "queue:q")
    scene.runtime.pass_time(1.0)
    reached = len(seen)
    scene.enqueue("plain", "job-2")
    scene.runtime.pass_time(5.0)
    assert len(seen) == reached < 30
    assert scene.state_of("job-2") is None
    worker.kill()
    scene.start("w-1")
    scene.until(scene.active)
    scene.runtime.pass_time(2.0)
    assert len(seen) == reached, "kept over a restart"
    scene.order("resume", "queue:q")
    scene.settle()
    assert seen == list(range(1, 31))
    assert scene.state_of("job-2") is State.SUCCEEDED


def test_paused_queue_goes_on_in_the_same_worker_where_it_was(scene: Scene) -> None:
    seen: list[int] = []
    scene.define("rows", rows(scene, seen))
    scene.start("w-0")
    scene.enqueue("rows", "job-1")
    scene.until(lambda: len(seen) > 5)
    scene.order("pause", "queue:q")
    scene.runtime.pass_time(2.0)
    scene.order("resume", "queue:q")
    scene.settle()
    assert seen == list(range(1, 31))


@pytest.mark.parametrize("restart", [False, True])
def test_paused_type_lets_the_others_go_on(scene: Scene, restart: bool) -> None:
    seen: list[int] = []
    scene.define("rows", rows(scene, seen))
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0")
    scene.enqueue("rows", "job-1")
    scene.until(lambda: len(seen) > 5)
    scene.order("pause", "type:rows", reason="bank is down")
    scene.enqueue("rows", "job-2")
    scene.enqueue("plain", "job-3")
    scene.until(lambda: {scene.state_of("job-1"), scene.state_of("job-2")} == {State.WAITING}, 3.0)
    assert "bank is down" in (scene.status_of("job-2").note or "")
    scene.until(lambda: scene.state_of("job-3") is State.SUCCEEDED, 3.0)
    if restart:
        worker.kill()
        scene.start("w-1")
        scene.until(scene.active)
        scene.runtime.pass_time(2.0)
        assert {scene.state_of("job-1"), scene.state_of("job-2")} == {State.WAITING}
    scene.order("resume", "type:rows")
    scene.settle()
    assert seen == [*range(1, 31), *range(1, 31)] or sorted(seen) == sorted([*range(1, 31), *range(1, 31)])
    assert {scene.state_of("job-1"), scene.state_of("job-2")} == {State.SUCCEEDED}


def test_unreadable_order_is_passed_over(scene: Scene) -> None:
    from processor.broker.base import OutRecord
    from processor.wire import topics
    from tests.unit.engine.scene import NS

    scene.append(OutRecord(topics.control_topic(NS), b"queue:q", b"garbage"))
    scene.define("plain", lambda ctx, payload: payload)
    scene.start("w-0")
    scene.enqueue("plain", "job-1")
    scene.settle()
    assert scene.state_of("job-1") is State.SUCCEEDED


def test_no_job_starts_before_control_is_read(scene: Scene) -> None:
    """To its true end: the order that concerns the job is the last of thousands, and older ones said otherwise."""
    ran: list[str] = []
    scene.define("rows", lambda ctx, payload: ran.append(ctx.id))
    scene.define("free", lambda ctx, payload: ran.append(ctx.id))
    for place in range(3000):
        scene.order("pause", f"type:other-{place}")
    scene.order("resume", "type:rows")
    scene.order("pause", "type:rows")
    for number in range(3):
        scene.enqueue("rows", f"rows-{number}")
        scene.enqueue("free", f"free-{number}")
    scene.start("w-0")
    scene.until(lambda: len(ran) == 3)
    scene.runtime.pass_time(2.0)
    assert all(job_id.startswith("free") for job_id in ran)
    scene.order("resume", "type:rows")
    scene.until(lambda: len(ran) == 6)
