"""A consumer group for each queue: balanced each by itself, fenced each by itself, flushed together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from processor.broker.base import Member, OffsetCommit, OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import Frame
from processor.engine.config import QueueConfig
from processor.engine.fence import STALE_WAIT
from processor.engine.orphan_transactions import DeadSlots
from processor.engine.queue_partition import PartitionPhase
from processor.errors import AbortRequired, StaleMembership
from processor.job import Job, Lane
from processor.states import State
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.groups import former_group, forwarder_group, instance_name, queue_group, slot_of
from processor.wire.headers import routing_headers
from tests.unit.engine.scene import GROUP, NS, QUEUE, Scene, Simulated, config
from tests.unit.engine.spy import Call, Spy
from tests.waiting import eventually

OTHER = "r"
SIZES = {QUEUE: 7, OTHER: 4}


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=5, partitions=SIZES[QUEUE])
    names = [topics.jobs_topic(NS, OTHER, lane) for lane in (Lane.NORMAL, Lane.DUE)]
    names += [topics.checkpoints_topic(NS, OTHER), topics.dedupe_topic(NS, OTHER)]
    scene.broker.admin().create_topics([TopicSpec(name=name, partitions=SIZES[OTHER]) for name in names])
    yield scene
    scene.close()


def both_queues() -> tuple[QueueConfig, ...]:
    return tuple(QueueConfig(name=name, partitions=size, concurrency=4) for name, size in SIZES.items())


def start(scene: Scene, slot: str, *queues: str) -> Simulated:
    """A worker of these queues, of both if none are named."""
    served = tuple(QueueConfig(name=name, partitions=SIZES[name]) for name in queues or SIZES)
    return scene.start(slot, queues=served)


def append_other(scene: Scene, job_id: str, job_type: str = "plain", number: int = 0) -> None:
    """A job of the other queue."""
    job = Job(job_id, job_type, 1, OTHER, json.dumps({}).encode(), scene.runtime.clock.now_ms())
    lane = topics.jobs_topic(NS, OTHER)
    scene.append(OutRecord(lane, job.id.encode(), encode(job), routing_headers(job), number))


def owned(scene: Scene, queue: str) -> dict[str, int]:
    """How many active numbers of a queue each running worker has."""
    return {
        worker.slot: sum(number.queue.name == queue for number in worker.worker.state.active())
        for worker in scene.running
        if worker.engine is not None and queue in worker.worker.state.queues
    }


def fair(scene: Scene, workers: int) -> bool:
    """Whether so many workers share every queue fairly."""
    for queue, size in SIZES.items():
        counts = owned(scene, queue)
        if len(counts) != workers or sum(counts.values()) != size or max(counts.values()) - min(counts.values()) > 1:
            return False
    return True


def members(scene: Scene, group: str) -> list[Member]:
    return scene.broker.admin().members(group)


def test_queues_are_balanced_each_by_itself(scene: Scene) -> None:
    """One worker, four of them, one again; jobs of both queues go on throughout."""
    scene.define("plain", lambda ctx, payload: payload)
    crew = [start(scene, "w-0")]
    scene.until(lambda: fair(scene, 1))
    for place in range(3):
        crew.append(start(scene, f"w-{place + 1}"))
        scene.until(lambda: fair(scene, len(crew)))
    for place in range(8):
        append_other(scene, f"r-{place}", number=place % SIZES[OTHER])
        scene.enqueue("plain", f"q-{place}")
    for worker in crew[1:]:
        worker.stop()
    scene.until(lambda: fair(scene, 1))
    scene.until(lambda: len(scene.ends()) == 16)
    assert set(map(tuple, scene.ends().values())) == {(State.SUCCEEDED,)}


def test_a_worker_of_another_queue_takes_nothing_away(scene: Scene) -> None:
    """Who serves one queue alone is no member of the other's group: nothing there waits for it."""
    start(scene, "w-0")
    start(scene, "w-1", OTHER)
    scene.until(lambda: sorted(owned(scene, OTHER).values()) == [2, 2] and owned(scene, QUEUE) == {"w-0": 7})
    assert [slot_of(member.instance_id or "") for member in members(scene, GROUP)] == ["w-0"]
    assert len(members(scene, forwarder_group(NS))) == 2, "every worker has a forwarder"


def test_stale_group_costs_others_one_retry(scene: Scene) -> None:
    """One of two memberships in a flush is refused: the other queue's work leaves with the next flush, at once."""
    scene.define("plain", lambda ctx, payload: payload)
    worker = start(scene, "w-0")
    spy = Spy(worker)
    scene.until(lambda: fair(scene, 1))
    before = len(spy.calls)
    scene.broker.faults.fail_next("send_offsets", StaleMembership("planned"), process=worker.name)
    began = scene.runtime.clock.monotonic()
    scene.enqueue("plain", scene.id_for(0))
    append_other(scene, "r-0")
    ends: dict[str, float] = {}

    def over() -> bool:
        for job_id in (scene.id_for(0), "r-0"):
            if scene.state_of(job_id) is State.SUCCEEDED:
                ends.setdefault(job_id, scene.runtime.clock.monotonic() - began)
        return len(ends) == 2

    scene.until(over)
    first, second = sorted(ends.values())
    assert first < 0.5, "one retry"
    assert second >= STALE_WAIT, "a group that says nothing is tried again after a while"
    names = spy.names()[before:]
    assert names.count("abort") == 1
    assert names[names.index("abort") :].count("init") >= 1, "a new epoch after the abort"


def test_one_flush_commits_the_offsets_of_both_groups(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    worker = start(scene, "w-0")
    spy = Spy(worker)
    scene.until(lambda: fair(scene, 1))
    scene.enqueue("plain", scene.id_for(0))
    append_other(scene, "r-0")
    scene.until(lambda: len(scene.ends()) == 2)
    sent = [call for call in spy.calls if call.name == "send_offsets"]
    topics_of = [{commit.partition.topic for commit in call.offsets} for call in sent]
    assert all(len({name.removesuffix(".due") for name in found}) == 1 for found in topics_of), "a group's own only"
    lanes = {name.removesuffix(".due") for found in topics_of for name in found}
    assert lanes == {topics.jobs_topic(NS, QUEUE), topics.jobs_topic(NS, OTHER)}
    assert spy.names().count("commit") < len(sent), "two groups, one transaction"


def family_of_both(scene: Scene) -> Callable[[], None]:
    """A job of three steps and two children in each queue, whose flushes hold both groups; all must be there once."""
    ran: Counter[str] = Counter()
    child = scene.define("child", lambda ctx, payload: None)

    def step(name: str) -> None:
        ran[name] += 1
        scene.runtime.pass_time(0.2)

    def parent(ctx: Any, payload: Any) -> None:
        for row in range(3):
            ctx.step(f"s{row}", step, f"{ctx.id}/s{row}")
            ctx.spawn(child, {"row": row})

    scene.define("parent", parent)
    scene.enqueue("parent", scene.id_for(0))
    append_other(scene, "r-0", "parent")

    def verify() -> None:
        scene.until(lambda: len(scene.ends()) == 8 and all(scene.ends().values()))
        assert set(ran.values()) == {1}
        assert len(ran) == 6
        assert all(states == [State.SUCCEEDED] for states in scene.ends().values())
        scene.until(lambda: not any(scene.lag().values()))

    return verify


@pytest.mark.parametrize("frame", list(Frame))
def test_late_frame_of_two_groups_does_no_harm(scene: Scene, frame: Frame) -> None:
    """It is released once both groups are in the next transaction, and meets a newer producer epoch."""
    worker = start(scene, "w-0")
    scene.until(lambda: fair(scene, 1))
    held = scene.broker.faults.hold_next(f"{NS}.worker.w-0", frame)
    if frame is Frame.ABORT:
        scene.broker.faults.fail_next("send_offsets", AbortRequired("planned"), process=worker.name)
    accepted: list[bool] = []
    groups: set[str] = set()

    def before(call: Call) -> None:
        if call.name == "begin":
            groups.clear()
        if call.name == "send_offsets":
            groups.update(commit.partition.topic.removesuffix(".due") for commit in call.offsets)
        if call.name == "commit" and len(groups) == 2 and held.caught and not accepted:
            accepted.append(held.release())

    Spy(worker, before)
    worker.worker.flushing.flusher._drop_producer()
    verify = family_of_both(scene)
    verify()
    assert accepted == [False]


@pytest.mark.parametrize("call", ["append", "wait_acks", "send_offsets", "commit"])
def test_every_abort_of_two_groups_is_followed_by_a_new_producer_epoch(scene: Scene, call: str) -> None:
    worker = start(scene, "w-0")
    spy = Spy(worker)
    scene.until(lambda: fair(scene, 1))
    scene.broker.faults.fail_next(call, AbortRequired("planned"), process=worker.name)
    verify = family_of_both(scene)
    verify()
    names = [made for made in spy.calls if made.name in ("abort", "begin", "init")]
    aborts = [place for place, made in enumerate(names) if made.name == "abort"]
    assert aborts
    for place in aborts:
        assert names[place + 1].name == "init"
        assert names[place + 1].producer > names[place].producer


@pytest.mark.parametrize("how", ["stop", "kill", "freeze"])
def test_two_queues_change_hands_and_redo_nothing_that_was_saved(scene: Scene, how: str) -> None:
    """Revoke, crash and zombie, with both groups in the last flush."""
    first = start(scene, "w-0")
    scene.until(lambda: fair(scene, 1))
    verify = family_of_both(scene)
    scene.runtime.pass_time(0.3)
    getattr(first, how)()
    start(scene, "w-1")
    if how == "freeze":
        scene.runtime.pass_time(4.0)
        first.thaw()
    if how == "stop":
        verify()
        return
    scene.until(lambda: len(scene.ends()) == 8 and all(scene.ends().values()))
    assert all(states == [State.SUCCEEDED] for states in scene.ends().values())
    scene.until(lambda: not any(scene.lag().values()))


def test_offsets_of_the_group_that_all_shared_are_taken_over_once(scene: Scene) -> None:
    runs: list[str] = []
    scene.define("plain", lambda ctx, payload: runs.append(ctx.id))
    for place in range(6):
        append_other(scene, f"r-{place}")
    lane = TopicPartition(topics.jobs_topic(NS, OTHER), 0)
    scene.broker.admin().commit(former_group(NS), [OffsetCommit(lane, 4)])
    worker = start(scene, "w-0", OTHER)
    scene.until(lambda: len(scene.ends()) == 2)
    assert sorted(runs) == ["r-4", "r-5"]
    own = scene.broker.admin().committed(queue_group(NS, OTHER), [lane])
    assert own[lane].offset is not None
    worker.stop()
    scene.until(lambda: worker.over)
    # From now on its own group counts, whatever the old one says.
    scene.broker.admin().commit(former_group(NS), [OffsetCommit(lane, 0)])
    start(scene, "w-0", OTHER)
    append_other(scene, "r-6")
    scene.until(lambda: len(scene.ends()) == 3)
    assert sorted(runs) == ["r-4", "r-5", "r-6"]


def test_while_workers_of_the_old_group_are_there_nothing_is_taken_over(scene: Scene) -> None:
    lane = TopicPartition(topics.jobs_topic(NS, OTHER), 0)
    scene.broker.admin().commit(former_group(NS), [OffsetCommit(lane, 0)])
    old = scene.broker.group_consumer(former_group(NS), instance_id="w-9")

    class Deaf:
        def on_assigned(self, *told: object) -> None: ...
        def on_revoked(self, *told: object) -> None: ...
        def on_lost(self, *told: object) -> None: ...

    old.subscribe([lane.topic], Deaf())
    eventually(lambda: members(scene, former_group(NS)), step=lambda: old.poll(0.0))
    worker = start(scene, "w-0", OTHER)
    scene.until(lambda: bool(worker.engine and worker.worker.state.numbers))
    for _ in range(20):
        old.poll(0.0)
        scene.runtime.pass_time(0.1)
    phases = {number.phase for number in worker.worker.state.numbers.values() if number.partition == 0}
    assert phases == {PartitionPhase.RESTORING}
    old.unsubscribe()
    old.poll(0.0)
    old.close()
    scene.until(lambda: owned(scene, OTHER) == {"w-0": 4})


def test_a_slot_that_lives_on_with_another_queue_is_not_shot(scene: Scene) -> None:
    """It served both queues, and serves one now: the other queue's offsets still name it."""
    both = start(scene, "w-0")
    scene.until(lambda: fair(scene, 1))
    both.kill()
    alive = start(scene, "w-0", QUEUE)
    other = start(scene, "w-1", OTHER)
    scene.until(lambda: owned(scene, QUEUE) == {"w-0": 7} and owned(scene, OTHER) == {"w-1": 4})
    assert other.worker.background.restorer.shots == []
    assert not alive.over
    alive.kill()
    shooting = DeadSlots(
        other.process, other.worker.config, queue_group(NS, OTHER), other.worker.config.transactional_id
    )
    scene.until(lambda: len(members(scene, forwarder_group(NS))) == 1)
    actor = scene.runtime.start("shooting", lambda: shooting.shoot({"w-0", "w-1"}))
    scene.until(lambda: actor.join(0.0))
    assert shooting.shots == [f"{NS}.worker.w-0"]


@pytest.mark.parametrize("bound", [{"inflight_max_records": 60}, {"inflight_max_bytes": 60_000}], ids=str)
@pytest.mark.parametrize("waits", [False, True], ids=["it comes", "it waits already"])
def test_one_queue_never_starves_another(scene: Scene, bound: dict[str, Any], waits: bool) -> None:
    """A slow queue's backlog is larger than all that may be in flight; quick jobs of the other start at once."""
    ends: dict[str, float] = {}

    def quick(ctx: Any, payload: Any) -> None:
        ends[ctx.id] = scene.runtime.clock.monotonic()

    scene.define("slow", lambda ctx, payload: scene.runtime.wait_for(lambda: False, 300.0))
    scene.define("quick", quick)
    if waits:
        slow_jobs(scene)
    worker = scene.start("w-0", queues=both_queues(), **bound)
    scene.until(lambda: fair(scene, 1))
    if not waits:
        slow_jobs(scene)
    slow = worker.worker.state.loads[QUEUE]
    scene.until(lambda: slow.held_back)
    began = scene.runtime.clock.monotonic()
    for place in range(3):
        append_other(scene, f"r-{place}", "quick", number=place)
    scene.until(lambda: len(ends) == 3, 20.0)
    assert max(ends.values()) - began < 0.5
    if "inflight_max_records" in bound:
        assert slow.records == 30, "its share"


def slow_jobs(scene: Scene) -> None:
    for place in range(200):
        scene.enqueue("slow", f"slow-{place}", "x" * 1000)


def test_a_slow_kind_of_a_queue_that_has_its_share_is_no_standstill(scene: Scene) -> None:
    """The other kind's slots are free all the time, and quick jobs lie behind what is read; nothing is held."""
    ends: list[str] = []

    def slow(ctx: Any, payload: Any) -> None:
        scene.runtime.wait_for(lambda: False, 100.0)
        ends.append(ctx.id)

    scene.define("slow", slow)
    scene.define("quick", lambda ctx, payload: ends.append(ctx.id)).executor = "process"
    worker = scene.start("w-0", queues=both_queues(), inflight_max_records=40, watchdog=20.0)
    scene.until(lambda: fair(scene, 1))
    scene.enqueue("quick", "quick-0")
    scene.until(lambda: ends == ["quick-0"])
    for place in range(60):
        scene.enqueue("slow", f"slow-{place}")
    load = worker.worker.state.loads[QUEUE]
    scene.until(lambda: load.held_back)
    scene.enqueue("quick", "quick-1")
    scene.runtime.pass_time(90.0)
    assert ends == ["quick-0"]
    assert worker.worker.state.counters.events["held"] == 0
    assert scene.alerts() == []


def test_kinds_of_one_queue_share_what_it_may_have_in_flight() -> None:
    """A queue is one line: within that bound no kind of job waits for the slots of another, beyond it a quick one waits
    until enough of those before it have ended. Who must not wait at all has a queue of its own
    (`test_one_queue_never_starves_another`).
    """
    scene = Scene(partitions=1, concurrency=4)
    ends: list[str] = []

    def slow(ctx: Any, payload: Any) -> None:
        scene.runtime.wait_for(lambda: False, 10.0)
        ends.append(ctx.id)

    scene.define("slow", slow).executor = "process"
    scene.define("quick", lambda ctx, payload: ends.append(ctx.id))
    scene.start("w-0", inflight_max_records=60, fetch_records=20)
    scene.until(scene.active)
    for place in range(50):
        scene.enqueue("slow", f"slow-{place}")
    scene.enqueue("quick", "within")
    for place in range(50, 70):
        scene.enqueue("slow", f"slow-{place}")
    scene.enqueue("quick", "beyond")
    scene.until(lambda: "within" in ends, 1.0)
    scene.runtime.pass_time(5.0)
    assert ends == ["within"]
    scene.until(lambda: "beyond" in ends, 60.0)
    assert len(ends) - 2 <= 20, "it begins when there is room, not when its turn among all would be"
    scene.close()


def test_a_queue_that_was_held_back_is_read_on(scene: Scene) -> None:
    runs: list[str] = []

    def short(ctx: Any, payload: Any) -> None:
        scene.runtime.wait_for(lambda: False, 0.5)
        runs.append(ctx.id)

    scene.define("short", short)
    worker = scene.start("w-0", queues=both_queues(), inflight_max_records=20)
    scene.until(lambda: fair(scene, 1))
    ids = [f"short-{place}" for place in range(90)]
    for job_id in ids:
        scene.enqueue("short", job_id)
    load = worker.worker.state.loads[QUEUE]
    scene.until(lambda: load.held_back)
    scene.order("pause", f"queue:{QUEUE}")
    scene.until(lambda: bool(worker.worker.state.gate.resting))
    scene.runtime.pass_time(3.0)
    paused = len(runs)
    scene.runtime.pass_time(3.0)
    assert len(runs) == paused < 90, "what is free again is not read while the queue is paused"
    scene.order("resume", f"queue:{QUEUE}")
    scene.until(lambda: len(runs) == 90)
    assert sorted(runs) == sorted(ids)
    scene.until(lambda: not load.records and not load.size)
    assert not load.held_back


def test_the_order_of_members_differs_from_queue_to_queue() -> None:
    slots = [f"host-{place}" for place in range(4)]
    firsts = {min(slots, key=lambda slot: instance_name(queue_group("shop", f"q{n}"), slot)) for n in range(40)}
    assert firsts == set(slots), "remainders of many queues spread"
    assert {slot_of(instance_name("g", slot)) for slot in (*slots, "pod.with.dots")} == {*slots, "pod.with.dots"}
    assert slot_of("kafka-ui") == "kafka-ui"


def test_each_queue_has_a_group_of_its_own_name() -> None:
    made = config("w-0")
    assert made.group("bulk") == f"{NS}.jobs.bulk"
    assert made.group("forwarders") != made.forwarders, "no queue's name meets another group's"
    assert former_group(NS) not in {made.group("workers"), made.forwarders}
