"""What operators and callers order: pauses, cancels, and going on now, on running workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from processor.admin.orders import Operator, cancel, go_on, orders_now, pause, resume, target_of
from processor.admin.queues import list_queues, plan_seek, seek
from processor.admin.reading import read_to_end
from processor.broker.base import OutRecord, TopicPartition, TopicSpec
from processor.client.orders import cancelling
from processor.clock import SystemClock
from processor.core.checkpoint import NUMBER_KEY
from processor.core.control import HOLDS_MS
from processor.core.control import QUEUE as QUEUE_TARGET
from processor.engine.queue_partition import PartitionPhase
from processor.errors import DefinitionError, OrderRefused, SeekRefused, TopicMissing, UnknownQueue
from processor.job import Lane
from processor.policies import Backoff, Park, Retry
from processor.states import State
from processor.wire import topics
from processor.wire.codec import decode_audit, encode
from processor.wire.groups import queue_group
from processor.wire.records import AuditRecord
from tests.unit.engine.scene import NS, QUEUE, Scene, lane_record

WHO = Operator(reason="wrong customer", by="ada@desk")


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=11)
    scene.broker.admin().create_topics([TopicSpec(name=topics.audit_topic(NS), partitions=1)])
    yield scene
    scene.close()


def audits(scene: Scene) -> list[AuditRecord]:
    place = TopicPartition(topics.audit_topic(NS), 0)
    return [decode_audit(record.value() or b"") for record in read_to_end(scene.broker, [place])]


def looping(scene: Scene) -> list[int]:
    """A job type that saves an item every half second; the items done."""
    done: list[int] = []

    def loop(ctx: Any, payload: Any) -> None:
        for item in ctx.each("rows", lambda after: range(0 if after is None else after + 1, 1000), cursor=lambda i: i):
            scene.runtime.wait_for(lambda: False, 0.5)
            done.append(item)

    scene.define("loop", loop)
    return done


def flaky(scene: Scene, wait: str = "10m") -> list[int]:
    """A job type that fails once and then waits; attempts that began."""
    runs: list[int] = []

    def fail_once(ctx: Any, payload: Any) -> None:
        runs.append(ctx.attempt)
        if len(runs) == 1:
            raise ValueError("not yet")

    scene.define("flaky", fail_once, retry=Retry(5, Backoff(wait)))
    return runs


def test_a_running_job_is_cancelled_with_its_reason(scene: Scene) -> None:
    done = looping(scene)
    scene.start("w-0")
    scene.enqueue("loop", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RUNNING)
    status = cancel(scene.broker, NS, "job-1", WHO)
    assert status is not None
    assert status.state is State.RUNNING
    scene.until(lambda: scene.state_of("job-1") is State.CANCELLED, 2.0)
    ended = len(done)
    assert scene.status_of("job-1").note == "wrong customer (by ada@desk)"
    scene.runtime.pass_time(2.0)
    assert len(done) == ended
    (told,) = audits(scene)
    assert (told.action, told.subject, told.by, told.job_id) == ("cancel", "job:job-1", "ada@desk", "job-1")


def test_a_queued_job_is_cancelled_before_it_starts(scene: Scene) -> None:
    done = looping(scene)
    scene.enqueue("loop", "job-1")
    assert cancel(scene.broker, NS, "job-1", WHO) is None, "nothing is known of it"
    scene.start("w-0")
    scene.until(lambda: scene.state_of("job-1") is State.CANCELLED)
    assert done == []


def test_a_job_that_waits_for_its_retry_is_cancelled_at_once(scene: Scene) -> None:
    runs = flaky(scene)
    scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    cancel(scene.broker, NS, "job-1", WHO)
    scene.until(lambda: scene.state_of("job-1") is State.CANCELLED, 2.0)
    scene.settle(700.0)
    assert runs == [1]


def test_what_has_ended_is_not_cancelled(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    scene.start("w-0")
    scene.enqueue("plain", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED)
    with pytest.raises(OrderRefused, match="ended already: succeeded"):
        cancel(scene.broker, NS, "job-1", WHO)
    with pytest.raises(OrderRefused, match="has ended: succeeded"):
        go_on(scene.broker, NS, "job-1", WHO)
    assert audits(scene) == []


def test_a_retry_comes_now_and_its_own_record_finds_it_done(scene: Scene) -> None:
    runs = flaky(scene, "10m")
    scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    assert go_on(scene.broker, NS, "job-1", WHO) == "attempt 2 begins now instead of later"
    scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED, 2.0)
    scene.settle(900.0)  # the record in the chain has come home by then
    assert runs == [1, 2]
    assert scene.ends()["job-1", 1] == [State.SUCCEEDED]
    assert go_on_is_refused(scene, "job-1")


def test_a_retry_of_a_kept_key_comes_now_with_its_progress(scene: Scene) -> None:
    """Its key stays blocked meanwhile, and its progress lies in the checkpoint topic."""
    order: list[str] = []

    def step_then_fail(ctx: Any, payload: Any) -> None:
        ctx.step("once", lambda: order.append(f"{ctx.id} step"))
        order.append(f"{ctx.id} attempt {ctx.attempt}")
        if ctx.id == "first" and ctx.attempt == 1:
            raise ValueError("not yet")

    scene.define("keyed", step_then_fail, retry=Retry(5, Backoff("10m")))
    scene.start("w-0")
    scene.enqueue("keyed", "first", key="k")
    scene.enqueue("keyed", "second", key="k")
    scene.until(lambda: scene.state_of("first") is State.RETRYING)
    go_on(scene.broker, NS, "first", WHO)
    scene.until(lambda: scene.state_of("second") is State.SUCCEEDED, 3.0)
    assert order == ["first step", "first attempt 1", "first attempt 2", "second step", "second attempt 1"]
    scene.settle(900.0)
    assert len(order) == 5


def test_a_parked_job_goes_on(scene: Scene) -> None:
    runs: list[int] = []

    def parks(ctx: Any, payload: Any) -> None:
        runs.append(ctx.attempt)
        if len(runs) == 1:
            raise ValueError("who is this?")

    scene.define("parks", parks, retry=Retry(5).on(ValueError, Park("ask Ada")))
    scene.start("w-0")
    scene.enqueue("parks", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.WAITING)
    assert go_on(scene.broker, NS, "job-1", WHO) == "it was waiting, and goes on"
    scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED, 3.0)


def test_going_on_is_said_of_the_wait_that_was_seen(scene: Scene) -> None:
    """By the clock of the worker alone: an operator's that is an hour behind or ahead changes nothing, and a later wait
    is not meant.
    """
    runs: list[int] = []

    def parks(ctx: Any, payload: Any) -> None:
        runs.append(ctx.attempt)
        if len(runs) <= 2:
            raise ValueError("who is this?")

    class Shifted(SystemClock):
        def __init__(self, shift_ms: int) -> None:
            self.shift_ms = shift_ms

        def now_ms(self) -> int:
            return scene.runtime.clock.now_ms() + self.shift_ms

    scene.define("parks", parks, retry=Retry(5).on(ValueError, Park("ask Ada")))
    scene.start("w-0")
    scene.enqueue("parks", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.WAITING)
    go_on(scene.broker, NS, "job-1", Operator(clock=Shifted(3_600_000)))
    scene.until(lambda: len(runs) == 2)
    scene.until(lambda: scene.state_of("job-1") is State.WAITING)
    scene.runtime.pass_time(30.0)
    assert len(runs) == 2, "the order was about the wait before"
    go_on(scene.broker, NS, "job-1", Operator(clock=Shifted(-3_600_000)))
    scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED, 3.0)


def test_a_cancel_is_not_about_the_same_id_long_after(scene: Scene) -> None:
    done: list[str] = []
    scene.define("plain", lambda ctx, payload: done.append(ctx.id))
    for job_id in ("job-1", "job-2"):
        cancel(scene.broker, NS, job_id, Operator(clock=scene.runtime.clock))
    job = scene.enqueue("plain", "job-1")
    later = job._replace(id="job-2", enqueued_at=job.enqueued_at + HOLDS_MS + 1000)
    scene.append(lane_record(later))
    scene.start("w-0")
    scene.settle()
    assert done == ["job-2"]
    assert scene.state_of("job-1") is State.CANCELLED


def test_a_job_in_doubt_runs_its_step_again_when_somebody_says_so(scene: Scene) -> None:
    runs: list[str] = []

    def charge(ctx: Any) -> str:
        runs.append(ctx.id)
        if len(runs) == 1:
            scene.workers[0].kill()
        return "charged"

    scene.define("pay", lambda ctx, payload: ctx.once("charge", charge, ctx))
    scene.start("w-0")
    scene.enqueue("pay", "job-1")
    scene.until(lambda: scene.workers[0].over)
    scene.start("w-0")
    scene.until(lambda: scene.state_of("job-1") is State.IN_DOUBT)
    assert go_on(scene.broker, NS, "job-1", WHO) == "it was in_doubt, and goes on"
    scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED, 5.0)
    assert runs == ["job-1", "job-1"]


def test_a_cancel_that_meets_a_job_on_its_way_to_the_chain_ends_it_at_once(scene: Scene) -> None:
    """Whoever cancels it has read that it runs; when the order is heard it has just failed."""
    runs = flaky(scene)
    scene.start("w-0")
    scene.enqueue("flaky", "first", key="k")
    scene.enqueue("flaky", "second", key="k")
    scene.until(lambda: scene.state_of("first") is State.RETRYING)
    running = scene.status_of("first")._replace(state=State.RUNNING, number=None, due_at=None)
    order = cancelling("first", running, by="ada@desk", reason="", now_ms=scene.runtime.clock.now_ms())
    assert order is not None
    scene.append(OutRecord(topics.control_topic(NS), order.target.encode(), encode(order)))
    scene.until(lambda: scene.state_of("first") is State.CANCELLED, 2.0)
    scene.until(lambda: scene.state_of("second") is State.SUCCEEDED, 2.0)
    scene.settle(900.0)
    assert len(runs) == 2


def test_what_is_being_cancelled_is_not_sent_on(scene: Scene) -> None:
    flaky(scene)
    scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    scene.workers[0].freeze()
    cancel(scene.broker, NS, "job-1", WHO)
    with pytest.raises(OrderRefused, match="is being cancelled"):
        go_on(scene.broker, NS, "job-1", WHO)


def test_a_job_that_is_due_when_its_end_is_forgotten_is_not_sent_on_early(scene: Scene) -> None:
    flaky(scene, "25h")
    scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    with pytest.raises(OrderRefused, match="would run twice"):
        go_on(scene.broker, NS, "job-1", Operator(clock=scene.runtime.clock))


def go_on_is_refused(scene: Scene, job_id: str) -> bool:
    with pytest.raises(OrderRefused):
        go_on(scene.broker, NS, job_id, WHO)
    return True


def test_going_on_is_refused_where_nothing_waits(scene: Scene) -> None:
    looping(scene)
    assert go_on_is_refused(scene, "nobody")
    scene.start("w-0")
    scene.enqueue("loop", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RUNNING)
    assert go_on_is_refused(scene, "job-1")


def test_a_queue_rests_within_a_second_and_over_restarts(scene: Scene) -> None:
    done = looping(scene)
    worker = scene.start("w-0")
    scene.enqueue("loop", "job-1")
    scene.until(lambda: len(done) >= 2)
    pause(scene.broker, NS, target_of(QUEUE, None), WHO)
    scene.runtime.pass_time(1.0)
    rested = len(done)
    scene.runtime.pass_time(3.0)
    assert len(done) == rested
    worker.stop()
    scene.until(lambda: worker.over)
    scene.start("w-0")
    scene.until(scene.active)
    scene.runtime.pass_time(3.0)
    assert len(done) == rested
    assert orders_now(scene.broker, NS).paused_queues == {QUEUE}
    resume(scene.broker, NS, target_of(QUEUE, None), WHO)
    scene.until(lambda: len(done) > rested, 3.0)
    assert done == sorted(done)
    assert [told.action for told in audits(scene)] == ["pause", "resume"]


def test_a_paused_queue_with_waiting_jobs_is_not_taken_for_a_standstill(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0", watchdog=4.0)
    scene.until(scene.active)
    pause(scene.broker, NS, target_of(QUEUE, None), WHO)
    scene.runtime.pass_time(1.0)
    scene.enqueue("plain", "job-1")
    scene.runtime.pass_time(20.0)
    assert worker.worker.state.counters.events["held"] == 0
    assert {number.phase for number in worker.worker.state.numbers.values()} == {PartitionPhase.ACTIVE}
    resume(scene.broker, NS, target_of(QUEUE, None), WHO)
    scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED, 5.0)


def test_what_cannot_be_paused_or_resumed_is_refused(scene: Scene) -> None:
    with pytest.raises(UnknownQueue):
        pause(scene.broker, NS, f"{QUEUE_TARGET}elsewhere", WHO)
    with pytest.raises(DefinitionError):
        pause(scene.broker, NS, f"{QUEUE_TARGET}Not a queue", WHO)
    with pytest.raises(OrderRefused, match="queue q is not paused"):
        resume(scene.broker, NS, target_of(QUEUE, None), WHO)
    with pytest.raises(OrderRefused, match="job type mail is not paused"):
        resume(scene.broker, NS, target_of(None, "mail"), WHO)
    with pytest.raises(TopicMissing):
        cancel(scene.broker, "nowhere", "job-1", WHO)


def test_queues_are_listed_with_what_waits_and_why_they_rest(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    for place in range(5):
        scene.enqueue("plain", f"job-{place}")
    pause(scene.broker, NS, target_of(QUEUE, None), WHO)
    (row,) = list_queues(scene.broker, NS)
    assert (row.queue, row.partitions, row.waiting, row.workers, row.unowned) == (
        QUEUE,
        3,
        {Lane.NORMAL: 5, Lane.DUE: 0},
        [],
        3,
    )
    assert row.paused == "wrong customer (by ada@desk)"
    scene.start("w-0")
    scene.until(scene.active)
    (row,) = list_queues(scene.broker, NS)
    assert (row.workers, row.unowned) == (["w-0"], 0)


# --- seeking ------------------------------------------------------------------------------------------------------


def test_seek_passes_over_what_is_before_and_runs_what_is_behind(scene: Scene) -> None:
    runs: list[str] = []
    scene.define("plain", lambda ctx, payload: runs.append(ctx.id))
    ids = [f"x{place}" for place in range(200) if scene.number_of(f"x{place}") == 0][:6]
    for job_id in ids:
        scene.enqueue("plain", job_id)
    plan = plan_seek(scene.broker, NS, QUEUE, "4", numbers=[0])
    assert [(each.before, each.to, each.waiting) for each in plan] == [(None, 4, 2)]
    seek(scene.broker, NS, QUEUE, plan, WHO)
    worker = scene.start("w-0")
    scene.settle()
    assert runs == ids[4:]
    with pytest.raises(OrderRefused, match="workers serve queue q: w-0"):
        seek(scene.broker, NS, QUEUE, plan, WHO)
    worker.stop()
    scene.until(lambda: worker.over)
    seek(scene.broker, NS, QUEUE, plan_seek(scene.broker, NS, QUEUE, "begin"), WHO)
    scene.start("w-0")
    scene.settle()
    assert runs == [*ids[4:], *ids], "history runs again where somebody says so"
    detail = [told.detail for told in audits(scene)]
    assert detail[0] == "sim.jobs.q-0 from None to 4"
    assert len(detail) == 4


def test_a_held_partition_without_offset_and_mark_is_set_right(scene: Scene) -> None:
    """It was worked on before, and nothing says how far: it is held until somebody says where it goes on."""
    scene.define("plain", lambda ctx, payload: payload)
    scene.start("w-0")
    first = scene.id_for(0)
    scene.enqueue("plain", first)
    scene.settle()
    scene.workers[0].kill()
    scene.broker.admin().delete_records({scene.lane(): 1})
    scene.append(OutRecord(topics.checkpoints_topic(NS, QUEUE), NUMBER_KEY, None, None, 0))
    scene.broker.faults.forget_offsets(queue_group(NS, QUEUE))
    scene.until(lambda: not scene.broker.admin().members(queue_group(NS, QUEUE)))
    worker = scene.start("w-1")

    def held() -> bool:
        if worker.engine is None:
            return False
        numbers = worker.worker.state.numbers
        return (QUEUE, 0) in numbers and numbers[QUEUE, 0].phase is PartitionPhase.HELD

    scene.until(held)
    worker.stop()
    scene.until(lambda: worker.over)
    seek(scene.broker, NS, QUEUE, plan_seek(scene.broker, NS, QUEUE, "end", numbers=[0]), WHO)
    scene.start("w-2")
    scene.until(scene.active)


def test_seek_refuses_what_is_not_there(scene: Scene) -> None:
    with pytest.raises(SeekRefused, match="no partition 7, 9"):
        plan_seek(scene.broker, NS, QUEUE, "end", numbers=[9, 7, 0])
    with pytest.raises(SeekRefused, match="no lane high"):
        plan_seek(scene.broker, NS, QUEUE, "end", lane=Lane.HIGH)
    with pytest.raises(SeekRefused, match="'-1' is no place in a lane"):
        plan_seek(scene.broker, NS, QUEUE, "-1")
    with pytest.raises(SeekRefused, match="holds offsets 0 to 0, not 5"):
        plan_seek(scene.broker, NS, QUEUE, "5")
    with pytest.raises(UnknownQueue):
        plan_seek(scene.broker, NS, "elsewhere", "end")
