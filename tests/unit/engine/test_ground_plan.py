"""What a held partition, a failing restore, a swallowed stop and a flood must not do. Simulated, on the memory log."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from processor.broker.base import OffsetCommit, OutRecord, TopicPartition
from processor.broker.memory.admin import MemoryAdmin
from processor.core.checkpoint import NUMBER_KEY
from processor.engine.batch import FlushResult
from processor.engine.queue_partition import PartitionPhase
from processor.engine.upkeep import Members
from processor.errors import RetriableBrokerError
from processor.job import Lane
from processor.states import State
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.records import DedupeMark
from tests.unit.engine.scene import GROUP, NS, QUEUE, Scene
from tests.unit.engine.spy import Spy
from tests.unit.engine.test_invariants import append, define_steps


def ids_of(scene: Scene, number: int, count: int) -> list[str]:
    """So many ids of one number."""
    return [name for place in range(10_000) if scene.number_of(name := f"x{place}") == number][:count]


# --- held means handed back ---------------------------------------------------------------------------------------


def test_held_number_lets_go_of_slots_that_wait_for_the_log() -> None:
    scene = Scene(seed=1)

    def late_and_durable(ctx: Any, payload: Any) -> None:
        scene.runtime.pass_time(2.0)
        ctx.checkpoint(1, durable=True)

    scene.define("late", late_and_durable)
    scene.define("plain", lambda ctx, p: p)
    simulated = scene.start("w-0")
    scene.until(scene.active)
    worker = simulated.worker
    for job_id in ids_of(scene, 0, 4):  # as many as there are slots
        scene.enqueue("late", job_id)
    scene.runtime.pass_time(0.5)
    worker.ownership.hold(worker.state.numbers[QUEUE, 0], "a test")
    other = scene.id_for(1, "after")
    scene.enqueue("plain", other)
    scene.until(lambda: scene.state_of(other) is State.SUCCEEDED, 10)
    scene.settle()  # it was taken up again
    scene.close()


def test_somebody_is_told_of_a_held_number() -> None:
    scene = Scene(seed=1)
    simulated = scene.start("w-0")
    scene.until(scene.active)
    worker = simulated.worker
    worker.ownership.hold(worker.state.numbers[QUEUE, 0], "a test\nof two lines")
    scene.until(lambda: bool(scene.alerts()), 5.0)
    (alert,) = scene.alerts()
    assert (alert.kind, alert.subject, alert.queue) == ("held", f"partition:{QUEUE}-0", QUEUE)
    assert "a test" in alert.text
    scene.close()


def test_held_number_lets_go_of_what_is_in_flight() -> None:
    scene = Scene(seed=1, settings={"inflight_max_records": 24})
    scene.define("slow", lambda ctx, p: scene.runtime.pass_time(0.5))
    simulated = scene.start("w-0")
    scene.until(scene.active)
    worker = simulated.worker
    for job_id in ids_of(scene, 0, 60):
        scene.enqueue("slow", job_id)
    scene.runtime.pass_time(1.0)
    number = worker.state.numbers[QUEUE, 0]
    worker.ownership.hold(number, "a test")
    scene.until(lambda: number.phase is PartitionPhase.HELD, 5)
    assert worker.state.inflight_records == 0
    other = scene.id_for(1, "after")
    scene.enqueue("slow", other)
    scene.until(lambda: scene.state_of(other) is State.SUCCEEDED, 5)
    scene.settle(120)
    scene.close()


def test_held_number_writes_what_its_jobs_did() -> None:
    scene = Scene(seed=1)
    runs: Counter[str] = Counter()

    def handler(ctx: Any, payload: Any) -> None:
        runs[ctx.id] += 1
        scene.runtime.pass_time(1.0)

    scene.define("h", handler)
    simulated = scene.start("w-0")
    scene.until(scene.active)
    for job_id in ids_of(scene, 0, 4):
        scene.enqueue("h", job_id)
    scene.runtime.pass_time(0.5)
    simulated.worker.ownership.hold(simulated.worker.state.numbers[QUEUE, 0], "a test")
    scene.runtime.pass_time(3.0)
    simulated.stop()
    scene.until(lambda: simulated.over)
    scene.start("w-0")
    scene.settle()
    assert set(runs.values()) == {1}
    scene.close()


def test_number_whose_fault_stays_is_tried_ever_more_seldom() -> None:
    scene = Scene(seed=1)
    simulated = scene.start("w-0")
    scene.until(scene.active)
    worker = simulated.worker
    rests: list[float] = []
    for _ in range(4):
        number = worker.state.numbers[QUEUE, 0]
        began = scene.runtime.clock.monotonic()
        worker.ownership.hold(number, "it stays")
        scene.until(lambda: worker.state.numbers[QUEUE, 0].phase is PartitionPhase.ACTIVE, 400)
        rests.append(scene.runtime.clock.monotonic() - began)
    assert [round(rest / 10) for rest in rests] == [1, 2, 4, 8]
    assert worker.state.counters.events["held"] == 4
    scene.close()


# --- restores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
def test_retention_that_moves_during_a_restore_holds_no_number(
    monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """The first marks go between the question where their partition begins and the reading of it."""
    scene = Scene(partitions=partitions)
    marks = TopicPartition(topics.dedupe_topic(NS, QUEUE), 0)
    for place in range(5):
        mark = encode(DedupeMark(f"x{place}", 1, 0, scene.runtime.clock.now_ms()))
        append(scene, OutRecord(marks.topic, b"x", mark, None, 0))
    lanes = [scene.lane(Lane.NORMAL, number) for number in range(partitions)]
    scene.broker.admin().commit(GROUP, [OffsetCommit(lane, 0) for lane in lanes])
    real = MemoryAdmin.begin_offsets
    moved: list[bool] = []

    def begin(self: MemoryAdmin, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        asked = list(places)
        found = real(self, asked)
        if marks in asked and not moved:
            moved.append(True)
            self.delete_records({marks: 2})
        return found

    monkeypatch.setattr(MemoryAdmin, "begin_offsets", begin)
    worker = scene.start("w-0")
    scene.until(scene.active, 5)
    assert moved
    assert worker.worker.state.counters.events["held"] == 0
    scene.close()


def test_partition_without_a_leader_holds_up_no_other_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(partitions=3)
    bad = TopicPartition(topics.checkpoints_topic(NS, QUEUE), 0)
    real, leaderless = MemoryAdmin.end_offsets, [True]

    def ends(self: MemoryAdmin, places: Iterable[TopicPartition], *how: Any) -> dict[TopicPartition, int]:
        asked = list(places)
        if bad in asked and leaderless:
            raise RetriableBrokerError("no leader")
        return real(self, asked, *how)

    monkeypatch.setattr(MemoryAdmin, "end_offsets", ends)
    worker = scene.start("w-0")
    scene.until(lambda: worker.engine is not None and len(list(worker.worker.state.active())) == 2, 10)
    leaderless.clear()
    scene.until(scene.active, 10)
    scene.close()


# --- small but deadly ---------------------------------------------------------------------------------------------


def test_handler_that_swallows_the_stop_has_not_succeeded() -> None:
    scene = Scene(seed=1)
    ran: list[str] = []

    def work(step: str) -> None:
        ran.append(step)
        scene.runtime.pass_time(0.3)

    def handler(ctx: Any, payload: Any) -> str:
        for place in range(6):
            # As a bare `except: pass` does, the mistake that this is about.
            with contextlib.suppress(BaseException):
                ctx.step(f"s{place}", work, f"s{place}")
        return "done"

    scene.define("h", handler)
    worker = scene.start("w-0")
    scene.enqueue("h", "job-1")
    scene.until(lambda: "s1" in ran)
    worker.stop()
    scene.until(lambda: worker.over)
    scene.start("w-0")
    scene.settle()
    assert sorted(set(ran)) == [f"s{place}" for place in range(6)]
    assert scene.state_of("job-1") is State.SUCCEEDED
    scene.close()


@pytest.mark.parametrize("always", [False, True])
def test_flusher_that_meets_what_it_does_not_know_is_noticed(always: bool) -> None:
    """An error that is none of the broker's: tried again, and if it stays the numbers are held, with an alarm."""
    scene = Scene(seed=1)
    define_steps(scene)
    simulated = scene.start("w-0")
    scene.until(scene.active)
    worker = simulated.worker
    calls: list[str] = []

    def before(call: Any) -> None:
        if call.name == "append" and call.records and (always or len(calls) < 2):
            calls.append(call.name)
            raise TypeError("something strange")

    Spy(simulated, before)
    worker.flushing.flusher._drop_producer()
    scene.enqueue("steps", "job-1")
    if always:
        scene.until(lambda: worker.state.counters.events["held"] > 0, 60)
        assert worker.state.counters.events["flush.failed"] >= 5
    else:
        scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED, 60)
        assert worker.state.counters.events["held"] == 0
    assert not scene.runtime.failures
    scene.close()


def test_marks_expire_in_an_owner_that_lives_long() -> None:
    scene = Scene(partitions=1, settings={"dedupe_window": 10.0})
    runs: Counter[str] = Counter()
    scene.define("h", lambda ctx, p: runs.update([ctx.id]))
    worker = scene.start("w-0")
    for place in range(300):
        scene.enqueue("h", f"x-{place}", derived=True)
    scene.settle()
    (number,) = worker.worker.state.numbers.values()
    assert len(number.marks) == 300
    scene.until(lambda: len(number.marks) == 0, 30)
    scene.close()


def test_two_copies_of_the_next_life_leave_no_lag() -> None:
    scene = Scene(seed=1)
    lives: list[int] = []

    def handler(ctx: Any, payload: Any) -> None:
        lives.append(ctx._port.job.life)
        scene.runtime.pass_time(0.7)

    scene.define("h", handler)
    scene.start("w-0")
    scene.enqueue("h", "job-1")
    scene.runtime.pass_time(0.3)
    for life in (2, 2, 3, 2):
        scene.enqueue("h", "job-1", life=life, derived=True)
    scene.settle(20)
    assert lives == [1, 3]
    scene.close()


def test_joining_again_loses_no_result_of_a_flush() -> None:
    """The answer of the census comes in one batch of posts, before the result of the flush under way."""
    scene = Scene(seed=1)
    ledger = define_steps(scene, count=4, seconds=0.2)
    simulated = scene.start("w-0")
    scene.until(scene.active)
    worker = simulated.worker
    for number in range(3):
        scene.enqueue("steps", scene.id_for(number))
    scene.runtime.pass_time(0.3)
    engine, take = worker.state, worker.state.inbox.take
    joined: list[float] = []
    worker.housekeeping.orphans.counted = lambda roll: {QUEUE}  # type: ignore[method-assign]  # the orphans it would find

    def with_a_roll(limit: int | None = None) -> list[object]:
        posts = take(limit)
        if not joined and any(isinstance(post, FlushResult) for post in posts):
            joined.append(scene.runtime.clock.monotonic())
            return [Members(GROUP, ()), *posts]
        return posts

    engine.inbox.take = with_a_roll  # type: ignore[method-assign]  # puts an answer where it does harm
    scene.until(lambda: engine.counters.events["rejoined"] == 1, 30)
    assert scene.runtime.clock.monotonic() - joined[0] < 2.0
    scene.settle()
    assert set(ledger.values()) == {3}  # each step once, in each of the three jobs
    scene.close()


# --- the number's own mark ----------------------------------------------------------------------------------------


def forget_offsets(scene: Scene) -> None:
    """Somebody deletes the group, or its offsets expire."""
    scene.broker._cluster._groups.clear()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_lost_offsets_rerun_nothing(how: str) -> None:
    """Neither after an orderly stop nor after a crash; the epoch goes on."""
    scene = Scene(seed=3, partitions=2)
    runs: Counter[str] = Counter()
    scene.define("h", lambda ctx, p: runs.update([ctx.id]))
    worker = scene.start("w-0")
    for place in range(40):
        scene.enqueue("h", f"job-{place}", lane=Lane.DUE if place % 3 == 0 else Lane.NORMAL)
    scene.settle()
    scene.runtime.pass_time(2.0)
    getattr(worker, how)()
    scene.until(lambda: worker.over, 20)
    scene.runtime.pass_time(5.0)
    forget_offsets(scene)
    second = scene.start("w-1")
    scene.enqueue("h", "after")
    scene.until(lambda: runs["after"] == 1, 20)
    scene.settle()
    assert set(runs.values()) == {1}
    assert all(number.epoch >= 2 for number in second.worker.state.numbers.values())
    scene.close()


def test_history_without_a_mark_is_held() -> None:
    scene = Scene(seed=3, partitions=1)
    runs: Counter[str] = Counter()
    scene.define("h", lambda ctx, p: runs.update([ctx.id]))
    worker = scene.start("w-0")
    for place in range(5):
        scene.enqueue("h", f"job-{place}", derived=True)  # its marks are history
    scene.settle()
    worker.stop()
    scene.until(lambda: worker.over)
    checkpoints = TopicPartition(topics.checkpoints_topic(NS, QUEUE), 0)
    append(scene, OutRecord(checkpoints.topic, NUMBER_KEY, None, None, 0))  # an older version wrote none
    forget_offsets(scene)
    second = scene.start("w-1")
    scene.until(lambda: second.engine is not None and second.worker.state.counters.events["held"] > 0, 20)
    assert set(runs.values()) == {1}
    scene.close()


def test_offsets_set_by_hand_run_what_lies_above_them_again() -> None:
    """An operator's wish: the offset comes without metadata of ours, and the mark does not overrule it."""
    scene = Scene(seed=3, partitions=1)
    runs: Counter[str] = Counter()
    scene.define("h", lambda ctx, p: runs.update([ctx.id]))
    worker = scene.start("w-0")
    for place in range(6):
        scene.enqueue("h", f"job-{place}")
    scene.settle()
    worker.stop()
    scene.until(lambda: worker.over)
    scene.broker.admin().commit(GROUP, [OffsetCommit(scene.lane(), 4)])
    scene.start("w-1")
    scene.settle()
    assert sorted(runs.values()) == [1, 1, 1, 1, 2, 2]
    scene.close()


def test_window_that_fits_into_no_metadata_is_written() -> None:
    """A hot key interleaved with others: each that is done is a range of its own."""
    scene = Scene(partitions=1, concurrency=8)
    runs: Counter[str] = Counter()
    scene.define("quick", lambda ctx, p: runs.update([ctx.id]))

    def holds(ctx: Any, payload: Any) -> None:
        for _ in range(1000):
            scene.runtime.pass_time(0.1)
            ctx.heartbeat()

    hold = scene.define("hold", holds)
    worker = scene.start("w-0")
    scene.enqueue("hold", "holder", key="hot")
    count = 1500
    for place in range(count):
        scene.enqueue("quick", f"hot-{place}", key="hot")
        scene.enqueue("quick", f"free-{place}", key=f"k{place}")
    scene.until(lambda: sum(1 for job_id in runs if job_id.startswith("free")) == count, 120)
    scene.runtime.pass_time(3.0)
    worker.stop()
    scene.until(lambda: worker.over, 60)
    hold.handler = lambda ctx, p: None
    scene.start("w-0")
    scene.settle(240)
    assert len(runs) == 2 * count
    assert set(runs.values()) == {1}
    scene.close()


# --- children -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["step", "once"])
def test_child_of_a_step_takes_no_place_of_another(how: str) -> None:
    """On a resume the step is skipped, and with it what it spawned: the next child was taken for a copy of that."""
    scene = Scene(seed=1)
    got: list[int] = []
    child = scene.define("child", lambda ctx, p: got.append(p["row"]))
    crashed: list[bool] = []

    def handler(ctx: Any, payload: Any) -> None:
        getattr(ctx, how)("first", lambda: [ctx.spawn(child, {"row": row}) for row in (1, 2)])
        scene.runtime.pass_time(0.5)
        if not crashed:
            crashed.append(True)
            worker.kill()
        ctx.spawn(child, {"row": 3})

    scene.define("h", handler)
    worker = scene.start("w-0")
    scene.enqueue("h", "job-1")
    scene.until(lambda: worker.over)
    scene.start("w-0")
    scene.settle()
    assert sorted(got) == [1, 2, 3]
    assert scene.state_of("job-1") is State.SUCCEEDED
    scene.close()


def test_a_handler_that_writes_faster_than_the_flush_is_held_back() -> None:
    """Two thousand children, while the outbox takes a hundred records: they leave in many transactions, all."""
    scene = Scene(seed=2, concurrency=1)
    kind = scene.define("leaf", lambda ctx, payload: None)

    def parent(ctx: Any, payload: Any) -> None:
        for _ in range(2000):
            ctx.spawn(kind, {})

    scene.define("parent", parent)
    simulated = scene.start("w-0", outbox_max_records=100)
    spy = Spy(simulated)
    scene.until(scene.active)
    scene.enqueue("parent", "parent-1")
    scene.settle(300.0)
    sizes = [len([record for record in call.records if record.topic == scene.lane().topic]) for call in spy.calls]
    assert sum(sizes) == 2000
    assert max(sizes) <= 100
    assert len([True for (_, life), states in scene.ends().items() if states == [State.SUCCEEDED]]) == 2001
    scene.close()
