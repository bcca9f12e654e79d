"""Seeded chaos over the whole engine on the memory log, judged by the guarantees.

Several workers run jobs of every kind while processes are killed, frozen and thawed as zombies, join and leave, while
frames arrive late, calls fail and all brokers go away for a while. Then everything heals, and what is left must be
done: nothing lost, nothing twice, no lag, no live checkpoint.

A failure prints its seed; `PROCESSOR_SIM_SEEDS=7,8` runs these, `PROCESSOR_SIM_SEEDS=0-999` a range.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from processor.broker.base import OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import Frame, HeldFrame
from processor.engine.config import QueueConfig
from processor.errors import AbortRequired, MemberFenced, ProducerFatal, RetriableBrokerError
from processor.job import Job, Lane
from processor.policies import Backoff, Retry
from processor.states import TERMINAL, State
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.groups import queue_group
from processor.wire.headers import routing_headers
from tests.guarantees import LifeOf
from tests.unit.engine.history import ANOTHER_QUEUE, History
from tests.unit.engine.scene import NS, QUEUE, Scene, Simulated, lane_record

QUICK = range(60)
RETRY = Retry(3, Backoff("1s", "2s"))
ACTIONS = 30
OTHER = "r"


def seeds() -> list[int]:
    """The quick set, or what the environment asks for: `0-999` or `7,8`."""
    asked = os.environ.get("PROCESSOR_SIM_SEEDS")
    if not asked:
        return list(QUICK)
    first, dash, last = asked.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in asked.split(",")]


def add_queue(scene: Scene) -> None:
    """The topics of a second queue, like those of the first."""
    names = [topics.jobs_topic(NS, OTHER, lane) for lane in (Lane.NORMAL, Lane.DUE)]
    names += [topics.checkpoints_topic(NS, OTHER), topics.dedupe_topic(NS, OTHER)]
    scene.broker.admin().create_topics([TopicSpec(name=name, partitions=3) for name in names])


class Handlers:
    """One handler for each kind of job; every effect is told to the history."""

    def __init__(self, scene: Scene, history: History) -> None:
        self.history = history
        self.runtime = scene.runtime
        self.child = scene.define("child", self.watched(self.leaf))
        self.expected_children: dict[str, str] = {}
        """Child id -> parent id, as told by parents that returned."""
        for name in ("plain", "steps", "rows", "once", "parent", "failing", "slow"):
            scene.define(name, self.watched(getattr(self, name)))
        scene.define("elsewhere", self.elsewhere)
        self.retried = {"flaky": RETRY, "poison": RETRY}
        """Types that are tried again, with their policy."""
        for name, retry in self.retried.items():
            scene.define(name, self.watched(getattr(self, name)), retry=retry)

    def watched(self, handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Tell the history when it begins and how it ends."""

        def run(ctx: Any, payload: Any) -> Any:
            self.history.started(ctx)
            try:
                result = handler(ctx, payload)
            except Exception:
                policy = self.retried.get(ctx._port.job.type)
                if policy is not None and ctx.attempt < policy.times:
                    self.history.stopped(ctx)
                else:
                    self.history.returned(ctx)
                raise
            except BaseException:
                self.history.stopped(ctx)
                raise
            self.history.returned(ctx)
            return result

        return run

    def work(self, ctx: Any, step: str, seconds: float, *, once: bool = False) -> int:
        self.history.effect(ctx, step, once=once)
        self.runtime.pass_time(seconds)
        return len(step)

    def elsewhere(self, ctx: Any, payload: Any) -> None:
        """Of the second queue."""
        for place in range(3):
            ctx.step(f"s{place}", self.runtime.pass_time, 0.1)

    def leaf(self, ctx: Any, payload: Any) -> Any:
        return payload

    def plain(self, ctx: Any, payload: Any) -> Any:
        self.runtime.pass_time(0.002)
        return payload

    def steps(self, ctx: Any, payload: Any) -> int:
        return sum(ctx.step(f"s{i}", lambda i=i: self.work(ctx, f"s{i}", 0.05)) for i in range(4))

    def rows(self, ctx: Any, payload: Any) -> int:
        good = 0
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, 25), every="100ms"):
            name = f"rows[{row}]/pay"
            if row % 5 == 0:
                good += ctx.step("pay", lambda name=name: self.work(ctx, name, 0.02))
            self.runtime.pass_time(0.01)
        return good

    def once(self, ctx: Any, payload: Any) -> int:
        first: int = ctx.step("before", lambda: self.work(ctx, "before", 0.01))
        return first + int(ctx.once("charge", lambda: self.work(ctx, "charge", 0.03, once=True)))

    def parent(self, ctx: Any, payload: Any) -> list[str]:
        children = []
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, 5), every="50ms"):
            child = ctx.spawn(self.child, {"row": row, "key": payload})
            children.append(child)
            self.history.spawned(ctx, f"rows[{row}]/told", (child,))
            ctx.step("told", lambda row=row: self.work(ctx, f"rows[{row}]/told", 0.02))
        last = ctx.spawn(self.child, {"row": 0, "key": None})
        self.expected_children.update(dict.fromkeys([*children, last], ctx.id))
        return [*children, last]

    def failing(self, ctx: Any, payload: Any) -> None:
        ctx.step("s0", lambda: self.work(ctx, "s0", 0.02))
        raise ValueError("this one always fails")

    def flaky(self, ctx: Any, payload: Any) -> int:
        """Fails twice: after a step, and in the middle of its rows."""
        total = int(ctx.step("s0", lambda: self.work(ctx, "s0", 0.02)))
        if ctx.attempt == 1:
            raise ConnectionError("not yet")
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, 13), every="100ms"):
            if ctx.attempt == 2 and row == 7:
                raise ConnectionError("still not")
            name = f"rows[{row}]/pay"
            total += ctx.step("pay", lambda name=name: self.work(ctx, name, 0.02))
        return total

    def poison(self, ctx: Any, payload: Any) -> None:
        ctx.step("s0", lambda: self.work(ctx, "s0", 0.02))
        raise ValueError("this one always fails, and is tried again")

    def slow(self, ctx: Any, payload: Any) -> int:
        return sum(ctx.step(f"s{i}", lambda i=i: self.work(ctx, f"s{i}", 0.3)) for i in range(8))


class Chaos:
    """Draws what happens next."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed * 7919 + 1)
        settings: dict[str, Any] = {"inflight_max_records": 24} if seed % 2 else {}
        self.others: list[str] = []
        """Jobs of a second queue: with some seeds each flush may hold two groups, and either may be stale."""
        if seed % 4 >= 2:
            names = (QUEUE, OTHER)
            settings["queues"] = tuple(QueueConfig(name=name, partitions=3, concurrency=4) for name in names)
        self.two_queues = "queues" in settings
        self.scene = Scene(seed=seed, settings=settings)
        if self.two_queues:
            add_queue(self.scene)
        self.history = History(self.scene)
        self.handlers = Handlers(self.scene, self.history)
        self.held: list[HeldFrame] = []
        self.slots = 0
        self.jobs = 0
        self.repeatable: list[OutRecord] = []
        self.actions: list[Callable[[], None]] = [
            *[self.enqueue] * 5,
            *[self.kill] * 2,
            self.freeze,
            self.thaw,
            self.join,
            self.leave,
            self.restart,
            *[self.hold_frame] * 2,
            *[self.release_frame] * 2,
            *[self.fail_calls] * 2,
            self.outage,
            self.compact,
            self.repeat,
        ]

    def run(self) -> None:
        """Chaos, healing, verdict."""
        for _ in range(2):
            self.join()
        self.enqueue()
        for _ in range(ACTIONS):
            self.random.choice(self.actions)()
            self.scene.runtime.pass_time(self.random.choice((0.0, 0.02, 0.1, 0.5, 1.5)))
            self.history.read()
        self.heal()
        self.drain()
        self.judge()

    # --- what can happen ------------------------------------------------------------------------------------------

    def enqueue(self) -> None:
        kinds = ["plain", "plain", "steps", "rows", "once", "parent", "failing", "slow", "unknown", "garbage"]
        kinds += ["flaky", "flaky", "poison"]
        for _ in range(self.random.randrange(1, 9)):
            kind = self.random.choice(kinds)
            self.jobs += 1
            job_id = f"{kind}-{self.jobs}"
            keyed = kind not in ("once", "unknown", "garbage") and self.random.random() < 0.5
            key = f"key-{self.random.randrange(3)}" if keyed else None
            lane = Lane.NORMAL if key or self.random.random() < 0.8 else Lane.DUE
            if kind == "garbage":
                self.scene.append(self._garbage(job_id))
            else:
                named = self.random.random() < 0.4
                job = self.scene.enqueue(kind, job_id, key, key=key, lane=lane, derived=named)
                if named:
                    self.repeatable.append(lane_record(job, lane=lane, derived=True))

        if self.two_queues:
            for _ in range(self.random.randrange(1, 4)):
                self.enqueue_other()

    def enqueue_other(self) -> None:
        """A job of three steps in the second queue."""
        job_id = f"{ANOTHER_QUEUE.decode()}{len(self.others)}"
        self.others.append(job_id)
        job = Job(job_id, "elsewhere", 1, OTHER, b"null", self.scene.runtime.clock.now_ms())
        lane = topics.jobs_topic(NS, OTHER, self.random.choice((Lane.NORMAL, Lane.DUE)))
        self.scene.append(OutRecord(lane, job_id.encode(), encode(job), routing_headers(job)))

    def repeat(self) -> None:
        """A client that was not sure sends some jobs once more, under their ids."""
        for record in self.random.sample(self.repeatable, min(3, len(self.repeatable))):
            self.scene.append(record)

    @staticmethod
    def _garbage(job_id: str) -> OutRecord:
        return OutRecord(topics.jobs_topic(NS, QUEUE), job_id.encode(), b"no job at all")

    def _one(self, *, frozen: bool = False) -> Simulated | None:
        able = [w for w in self.scene.running if w.frozen is frozen]
        return self.random.choice(able) if able else None

    def kill(self) -> None:
        victim = self._one(frozen=self.random.random() < 0.2)
        if victim is None:
            return
        self.history.crashed(victim)
        victim.kill()
        if self.random.random() < 0.7:
            self.scene.start(victim.slot)

    def freeze(self) -> None:
        victim = self._one()
        if victim is not None:
            self.history.crashed(victim)
            victim.freeze()
            if self.random.random() < 0.3:
                self.scene.start(victim.slot)  # its supervisor took it for dead

    def thaw(self) -> None:
        sleeper = self._one(frozen=True)
        if sleeper is not None:
            sleeper.thaw()

    def join(self) -> None:
        if len(self.scene.running) < 4:
            self.scene.start(f"w-{self.slots}")
            self.slots += 1

    def leave(self) -> None:
        worker = self._one()
        if worker is not None:
            worker.stop()

    def restart(self) -> None:
        worker = self._one()
        if worker is not None:
            worker.stop(leave=False)
            self.scene.runtime.pass_time(0.5)
            self.scene.start(worker.slot)

    def hold_frame(self) -> None:
        worker = self._one()
        if worker is not None:
            frame = self.random.choice(list(Frame))
            role = self.random.choice(("worker", "worker", "forwarder"))
            self.held.append(self.scene.broker.faults.hold_next(f"{NS}.{role}.{worker.slot}", frame))

    def release_frame(self) -> None:
        caught = [held for held in self.held if held.caught]
        if caught:
            held = self.random.choice(caught)
            self.held.remove(held)
            held.release()

    def fail_calls(self) -> None:
        operation = self.random.choice(
            ("init", "begin", "append", "wait_acks", "send_offsets", "commit", "abort", "fetch", "poll", "committed")
        )
        error: Any = RetriableBrokerError
        if operation in ("append", "wait_acks", "send_offsets", "commit"):
            error = self.random.choice((RetriableBrokerError, AbortRequired, ProducerFatal))
        worker = self._one()
        if worker is not None:
            self.scene.broker.faults.fail_next(
                operation,
                error("planned"),
                process=worker.name,
                after=self.random.random() < 0.5,
                times=self.random.randrange(1, 3),
            )

    def outage(self) -> None:
        self.scene.broker.faults.outage(True)
        self.scene.runtime.pass_time(self.random.choice((0.1, 1.0, 5.0)))
        self.scene.broker.faults.outage(False)

    def compact(self) -> None:
        self.history.read()
        self.scene.broker.compact(topics.checkpoints_topic(NS, QUEUE), drop_tombstones=self.random.random() < 0.3)

    # --- the end --------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults, no sleepers, and somebody there to work."""
        self.scene.broker._cluster.plan.errors.clear()
        self.scene.broker._cluster.plan.frames.clear()
        for sleeper in [worker for worker in self.scene.running if worker.frozen]:
            sleeper.thaw()
        for held in self.held:
            if held.caught:
                held.release()
        while len(self.scene.running) < 2:
            self.join()
        self.scene.runtime.pass_time(5.0)
        # A static member that was replaced between giving a number up and joining again leaves it without an owner
        # until the next rebalance (measured on Kafka): here it is.
        self.scene.start("w-last")
        self.scene.runtime.pass_time(2.0)

    def drain(self) -> None:
        """Until everything has ended; what is in doubt waits for a person and stays live."""
        self.scene.until(self._is_done, 90.0)

    def _is_done(self) -> bool:
        self.history.read()
        doubtful = {life.id for life in self.history.in_doubt}
        left = set(self.history.open) - self.history.in_doubt
        live = {job_id for table in self.scene.live().values() for job_id in table.ids()}
        lags = (*self.scene.lag().values(), *self.scene.waiting().values(), *self._lag_of_other())
        return not left and not any(lags) and live <= doubtful

    def _lag_of_other(self) -> list[int]:
        if not self.two_queues:
            return []
        lanes = [
            TopicPartition(topics.jobs_topic(NS, OTHER, lane), number)
            for lane in (Lane.NORMAL, Lane.DUE)
            for number in range(3)
        ]
        admin = self.scene.broker.admin()
        ends, committed = admin.end_offsets(lanes), admin.committed(queue_group(NS, OTHER), lanes, stable=False)
        return [ends[lane] - (committed[lane].offset or 0) for lane in lanes]

    def judge(self) -> None:
        """The guarantees, and what they do not see."""
        violations = self.history.verdict()
        assert not violations, violations
        deaths = [(name, error) for name, error in self.scene.runtime.failures if not isinstance(error, MemberFenced)]
        assert not deaths, deaths
        for (job_id, life), states in self.scene.ends().items():
            assert job_id not in self.others or states == [State.SUCCEEDED], (job_id, states)
            assert len(states) == 1 or LifeOf(job_id, life) in self.history.in_doubt, (job_id, states)
        self._judge_children()
        assert {job_id for job_id, _ in self.scene.ends()} >= set(self.others)
        for simulated in self.scene.running:
            for number in simulated.worker.state.numbers.values():
                assert not number.jobs.attempts, number
                assert not number.order.held_keys, number
            assert simulated.worker.state.inflight_records == 0
            assert simulated.worker.state.inflight_bytes == 0
            for load in simulated.worker.state.loads.values():
                assert load.budget.records == load.budget.bytes == 0

    def _judge_children(self) -> None:
        ended = self.history.ended
        states = {status.id: status.state for status in self.scene.statuses() if status.state in TERMINAL}
        for child, parent in self.handlers.expected_children.items():
            if states.get(parent) is State.SUCCEEDED:
                assert LifeOf(child) in ended, f"child {child} of {parent} has not run"


@pytest.mark.parametrize("seed", seeds())
def test_guarantees_hold_under_chaos(seed: int) -> None:
    chaos = Chaos(seed)
    try:
        chaos.run()
    except BaseException as error:
        error.add_note(f"PROCESSOR_SIM_SEEDS={seed}")
        raise
    finally:
        chaos.scene.close()


def test_a_seed_gives_the_same_run_every_time() -> None:
    def trace(seed: int) -> tuple[list[object], int]:
        chaos = Chaos(seed)
        try:
            chaos.run()
        finally:
            chaos.scene.close()
        return chaos.history.trace, chaos.scene.runtime.steps

    assert trace(3) == trace(3)
    assert trace(3) != trace(4)
