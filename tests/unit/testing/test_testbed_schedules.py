"""Schedules on the Testbed: the clock starts jobs, once per instant, whoever dies; overlaps; what operators do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from processor.admin.orders import Operator
from processor.admin.reading import partitions_of, read_to_end
from processor.admin.schedules import (
    add_schedule,
    apply_schedules,
    backfill,
    pause_schedule,
    plan_backfill,
    remove_schedule,
    resume_schedule,
    schedule_named,
    schedules_now,
    trigger,
)
from processor.app import App
from processor.broker.base import OutRecord
from processor.broker.memory.faults import Frame, HeldFrame
from processor.context import AsyncContext, Context
from processor.errors import AbortRequired, DefinitionError, OrderRefused, ProducerFatal, RetriableBrokerError
from processor.job_ids import made_at, scheduled_id
from processor.states import State
from processor.testing import Testbed
from processor.testing.fleet import BedProcess
from processor.wire.codec import decode_alert, decode_job, encode
from processor.wire.groups import scheduler_group, slot_of

START = 1_767_225_600_000
"""When the clock of a Testbed begins: 2026-01-01 00:00 UTC."""


def app_with(name: str, **timing: Any) -> App:
    """An app with a job type whose runs take `name` seconds of virtual time, and one schedule for it."""
    app = App("shop")
    app.queue("default", partitions=1)

    @app.job("nap", payload=float)
    async def nap(ctx: AsyncContext, seconds: float) -> float:
        await ctx.step("sleep", asyncio.sleep, seconds, 1)
        return seconds

    app.schedule("tick", nap, payload=float(name), **timing)
    return app


def started(bed: Testbed) -> list[int]:
    """The instants of the jobs that have a status, in seconds after the start."""
    return sorted({((made_at(status.id) or 0) - START) // 1000 for status in bed.statuses})


def operator(bed: Testbed) -> Operator:
    return Operator(by="ada@desk", reason="test", clock=bed.runtime.clock)


def test_the_clock_starts_a_job_at_each_instant() -> None:
    app = app_with("0.1", every="10s")
    with Testbed(app) as bed:
        bed.advance("65s")
        assert started(bed) == [10, 20, 30, 40, 50, 60]
        assert {status.state for status in bed.statuses} <= {State.RUNNING, State.SUCCEEDED}
        fired = schedule_named(bed.broker, "shop", "tick").fired
        assert fired is not None
        assert (fired.instant, fired.fired, fired.skipped) == (START + 60_000, 6, 0)
        assert fired.job_id == scheduled_id("tick", START + 60_000)
        assert bed.status(fired.job_id).state is State.SUCCEEDED
        ran = [status for status in bed.statuses if status.id == fired.job_id]
        assert ran[0].at - START - 60_000 < 500, "it was late"


@pytest.mark.parametrize("seed", range(6))
def test_each_instant_is_fired_once_whoever_dies(seed: int) -> None:
    app = app_with("0.05", every="1s", overlap="queue")
    with Testbed(app, workers=3, seed=seed) as bed:
        bed.advance("4s")
        for _ in range(3):
            # With the leader's process or another one, in whatever it is doing.
            bed.advance(bed.runtime.random.uniform(0.5, 2.5))
            bed.crash_worker()
        bed.advance("20s")
        bed.drain()
        found = started(bed)
        assert found == list(range(found[0], found[-1] + 1))
        assert found[-1] >= 20
        ends = [status.id for status in bed.statuses if status.state is State.SUCCEEDED]
        assert len(set(ends)) == len(found)


def test_a_stopped_leader_hands_over() -> None:
    app = app_with("0.05", every="1s", overlap="queue")
    with Testbed(app, workers=2) as bed:
        bed.advance("5s")
        bed.stop_worker()
        bed.advance("5s")
        bed.drain()
        found = started(bed)
        assert found == list(range(found[0], found[-1] + 1))
        assert found[-1] >= 9


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [("skip", [10, 40, 70]), ("queue", [10, 20, 30, 40, 50, 60, 70]), ("replace", [10, 20, 30, 40, 50, 60, 70])],
)
def test_runs_that_take_longer_than_the_interval(overlap: str, expected: list[int]) -> None:
    app = app_with("25", every="10s", overlap=overlap)
    with Testbed(app) as bed:
        bed.advance("74s")
        fired = schedule_named(bed.broker, "shop", "tick").fired
        assert fired is not None
        assert (fired.fired, fired.skipped) == (len(expected), 7 - len(expected))
        pause_schedule(bed.broker, "shop", "tick", operator(bed))
        bed.drain()
        assert started(bed) == expected
        states = [bed.status(scheduled_id("tick", START + at * 1000)).state for at in expected]
        if overlap == "replace":
            assert states == [State.CANCELLED] * 6 + [State.SUCCEEDED]
        else:
            assert set(states) == {State.SUCCEEDED}


def test_skip_knows_of_a_run_that_goes_on_after_its_leader_died() -> None:
    app = app_with("25", every="10s")
    with Testbed(app, workers=2) as bed:
        bed.advance("12s")
        bed.crash_worker()
        bed.crash_worker()
        bed.advance("20s")
        assert started(bed) == [10]
        bed.advance("20s")
        assert len(started(bed)) == 2


def test_runs_that_queue_up_run_one_at_a_time() -> None:
    app = app_with("25", every="10s", overlap="queue")
    with Testbed(app) as bed:
        bed.advance("45s")
        running = {status.id for status in bed.statuses if status.state is State.RUNNING}
        done = {status.id for status in bed.statuses if status.state is State.SUCCEEDED}
        assert len(running | done) == 2, "10 has ended, 20 runs, 30 and 40 wait"


def test_a_paused_schedule_fires_nothing_and_goes_on_with_the_next_instant() -> None:
    app = app_with("0.1", every="10s")
    with Testbed(app) as bed:
        bed.advance("12s")
        pause_schedule(bed.broker, "shop", "tick", operator(bed))
        with pytest.raises(OrderRefused, match="paused already"):
            pause_schedule(bed.broker, "shop", "tick", operator(bed))
        bed.advance("90s")
        bed.crash_worker()
        bed.advance("3s")
        assert schedule_named(bed.broker, "shop", "tick").plan.paused, "a worker that starts resumed it"
        resume_schedule(bed.broker, "shop", "tick", operator(bed))
        with pytest.raises(OrderRefused, match="not paused"):
            resume_schedule(bed.broker, "shop", "tick", operator(bed))
        bed.advance("10s")
        assert started(bed) == [10, 110]


def test_a_trigger_starts_a_job_beside_the_instants() -> None:
    app = app_with("0.1", cron="0 2 * * *")
    with Testbed(app) as bed:
        bed.advance("1s")
        job_id = trigger(bed.broker, "shop", "tick", operator(bed))
        bed.drain()
        assert bed.status(job_id).state is State.SUCCEEDED
        assert schedule_named(bed.broker, "shop", "tick").fired is None
        with pytest.raises(OrderRefused, match="there is no schedule 'tock'"):
            trigger(bed.broker, "shop", "tock", operator(bed))


def test_a_backfill_runs_the_instants_of_the_past_once() -> None:
    app = app_with("0.1", every="10s")
    with Testbed(app) as bed:
        bed.advance("32s")
        with pytest.raises(OrderRefused, match="is not over"):
            plan_backfill(bed.broker, "shop", "tick", START, START + 60_000)
        plan = plan_backfill(bed.broker, "shop", "tick", START - 50_000, START + 40_000)
        assert [(each.instant - START) // 1000 for each in plan] == [-50, -40, -30, -20, -10, 0, 10, 20, 30]
        assert [each.state for each in plan] == [None] * 6 + [State.SUCCEEDED] * 3
        for _ in range(2):
            backfill(bed.broker, "shop", "tick", [each for each in plan if each.state is None], operator(bed))
            bed.drain()
        assert started(bed)[:9] == [-50, -40, -30, -20, -10, 0, 10, 20, 30]
        ends = [status.id for status in bed.statuses if status.state is State.SUCCEEDED]
        assert len(ends) == len(set(ends)) == 9
        again = plan_backfill(bed.broker, "shop", "tick", START - 50_000, START + 40_000)
        assert {each.state for each in again} == {State.SUCCEEDED}


def test_a_removed_schedule_is_forgotten_whole() -> None:
    app = app_with("0.1", every="10s")
    with Testbed(app) as bed:
        bed.advance("12s")
        assert remove_schedule(bed.broker, "shop", "tick", app.schedules["tick"], operator(bed)) is None
        bed.advance("30s")
        assert started(bed) == [10]
        table = schedules_now(bed.broker, "shop")
        assert (table.standings, table.orphans()) == ({}, [])


def test_the_command_line_wins_over_code_until_it_is_removed() -> None:
    app = app_with("0.1", every="10s")
    with Testbed(app) as bed:
        bed.advance("1s")
        who, declared = operator(bed), app.schedules["tick"]
        by_hand = schedule_named(bed.broker, "shop", "tick").plan._replace(every=5_000, source="cli")
        add_schedule(bed.broker, "shop", by_hand, who)
        (applied,) = apply_schedules(bed.broker, "shop", [declared], who)
        assert applied.what == "overridden"
        bed.advance("11s")
        assert started(bed) == [5, 10]
        left = remove_schedule(bed.broker, "shop", "tick", declared, who)
        assert left is not None
        assert (left.source, left.every) == ("code", 10_000)
        bed.advance("10s")
        assert started(bed) == [5, 10, 20]


def test_a_changed_declaration_takes_effect_and_an_equal_one_changes_nothing() -> None:
    app, other = app_with("0.1", every="10s"), app_with("0.1", every="20s")
    with Testbed(app) as bed:
        bed.advance("1s")
        who = operator(bed)
        assert [row.what for row in apply_schedules(bed.broker, "shop", app.schedules.values(), who)] == ["as declared"]
        assert [row.what for row in apply_schedules(bed.broker, "shop", other.schedules.values(), who)] == ["changed"]
        assert schedule_named(bed.broker, "shop", "tick").plan.every == 20_000


def test_a_schedule_whose_queue_is_gone_holds_up_no_other() -> None:
    app = app_with("0.1", every="10s")
    with Testbed(app) as bed:
        bed.advance("1s")
        plan = schedule_named(bed.broker, "shop", "tick").plan
        producer = bed.broker.producer()
        for broken in (plan._replace(name="gone", queue="gone"), plan._replace(name="odd", cron="* *", every=0)):
            producer.append(OutRecord("shop.schedules", broken.name.encode(), encode(broken)))
        producer.append(OutRecord("shop.schedules", b"noise", b"noise"))
        producer.flush(1)
        bed.advance("32s")
        assert started(bed) == [10, 20, 30]


def make(app: App, name: str = "s", **timing: Any) -> None:
    @app.job(f"job.{name}")
    def handler(ctx: Context) -> None: ...

    app.schedule(name, handler, **timing)


@pytest.mark.parametrize(
    ("timing", "said"),
    [
        ({}, "cron= or every="),
        ({"every": "0.5s"}, "shorter than a second"),
        ({"every": "often"}, "no length of time"),
        ({"cron": "0 25 * * *"}, "Bad hour"),
        ({"cron": "0 2 * * *", "tz": "Berlin"}, "time zone"),
        ({"every": "1m", "overlap": "allow"}, "unknown"),
        ({"every": "1m", "jitter": "2m"}, "jitter"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_where_it_stands(timing: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        make(App("shop"), **timing)
    assert said in f"{refused.value} {refused.value.hint}"


def test_declarations_that_do_not_fit_are_refused() -> None:
    app = App("shop")
    make(app, "one", every="1m")
    with pytest.raises(DefinitionError, match="declared twice"):
        app.schedule("one", app.job_types["job.one"], every="1m")
    not_a_type: Callable[[], None] = lambda: None  # noqa: E731
    with pytest.raises(DefinitionError, match="is no job type"):
        app.schedule("two", not_a_type, every="1m")  # type: ignore[call-overload]  # what mypy refuses, too
    app.queue("wide", lanes=("normal", "high"))

    @app.job("wide", queue="wide")
    def wide(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="high or low lane"):
        app.schedule("three", wide, every="1m", overlap="queue")
    app.schedule("three", wide, every="1m")


# --- faults -----------------------------------------------------------------------------------------------------------


def leader(bed: Testbed) -> BedProcess:
    """The process that fires now."""
    members = bed.broker.admin().members(scheduler_group("shop"))
    slot = next(slot_of(member.instance_id or "") for member in members if member.partitions)
    return next(process for process in bed._running().alive() if process.slot == slot)


def check_once(bed: Testbed) -> None:
    """From the first instant to the last each has started one job, which ran to its end once."""
    bed.drain()
    found = started(bed)
    assert found == list(range(found[0], found[-1] + 1))
    ends = [status for status in bed.statuses if status.state is State.SUCCEEDED]
    assert len({status.id for status in ends}) == len(found)
    lane = read_to_end(bed.broker, partitions_of(bed.broker, ["shop.jobs.default"]))
    assert {decode_job(record.value() or b"").id for record in lane} == {status.id for status in ends}
    table = schedules_now(bed.broker, "shop")
    fired = table.standings["tick"].fired
    assert fired is not None
    assert fired.fired == len(found)


@pytest.mark.parametrize("seed", range(8))
def test_a_frozen_leader_that_wakes_up_fires_nothing(seed: int) -> None:
    app = app_with("0.02", every="1s", overlap="queue")
    with Testbed(app, workers=2, seed=seed) as bed:
        bed.advance(3.0 + bed.runtime.random.random())
        frozen = leader(bed)
        frozen.broker.freeze()
        bed.runtime.freeze(frozen.name)
        bed.advance("30s")
        assert started(bed)[-1] >= 30, "nobody took over"
        frozen.broker.thaw()
        bed.runtime.thaw(frozen.name)
        bed.advance("10s")
        check_once(bed)


class Trouble:
    """Draws what goes wrong next: for whoever leads, and in its producer."""

    def __init__(self, bed: Testbed, seed: int) -> None:
        self.bed = bed
        self.random = random.Random(seed)
        self.held: list[HeldFrame] = []
        self.frozen: BedProcess | None = None

    def happen(self) -> None:
        """One of them."""
        self.random.choice(
            [
                *[self._hold_frame] * 3,
                *[self._release_frame] * 3,
                *[self._fail_call] * 4,
                self._crash,
                self._freeze_or_thaw,
            ]
        )()

    def end(self) -> None:
        """Whatever is on its way arrives, whoever is frozen wakes up."""
        if self.frozen is not None:
            self._freeze_or_thaw()
        while any(held.caught for held in self.held):
            self._release_frame()

    def _slot(self) -> str:
        return self.random.choice(self.bed._running().alive()).slot

    def _hold_frame(self) -> None:
        frame = self.random.choice(list(Frame))
        self.held.append(self.bed.broker.faults.hold_next(f"shop.scheduler.{self._slot()}", frame))

    def _release_frame(self) -> None:
        caught = [held for held in self.held if held.caught]
        if caught:
            held = self.random.choice(caught)
            self.held.remove(held)
            held.release()

    def _fail_call(self) -> None:
        operation = self.random.choice(["begin", "append", "wait_acks", "send_offsets", "commit"])
        error = self.random.choice([RetriableBrokerError, AbortRequired, ProducerFatal])
        self.bed.broker.faults.fail_next(
            operation,
            error("planned"),
            transactional_id=f"shop.scheduler.{self._slot()}",
            after=self.random.random() < 0.5,
            times=self.random.choice((1, 1, 3)),
        )

    def _crash(self) -> None:
        alive = [process.name for process in self.bed._running().alive() if process is not self.frozen]
        self.bed.crash_worker(self.random.choice(alive))

    def _freeze_or_thaw(self) -> None:
        if self.frozen is None:
            self.frozen = self.random.choice(self.bed._running().alive())
            self.frozen.broker.freeze()
            self.bed.runtime.freeze(self.frozen.name)
        else:
            self.frozen.broker.thaw()
            self.bed.runtime.thaw(self.frozen.name)
            self.frozen = None


@pytest.mark.parametrize("seed", range(16))
def test_whatever_goes_wrong_each_instant_starts_one_job(seed: int) -> None:
    app = app_with("0.02", every="1s", overlap="queue", catch_up="all")
    with Testbed(app, workers=2, seed=seed) as bed:
        trouble = Trouble(bed, seed)
        bed.advance("3s")
        for _ in range(12):
            trouble.happen()
            bed.advance(trouble.random.uniform(0.2, 2.5))
        trouble.end()
        bed.advance("60s")
        check_once(bed)


def test_a_deploy_that_changes_the_payload_loses_no_instant() -> None:
    app, other = app_with("0.1", cron="0 * * * *"), app_with("0.2", cron="0 * * * *")
    with Testbed(app) as bed:
        bed.advance("1s")
        who = operator(bed)
        before = schedule_named(bed.broker, "shop", "tick").plan
        bed.advance("5s")
        apply_schedules(bed.broker, "shop", other.schedules.values(), who)
        after = schedule_named(bed.broker, "shop", "tick").plan
        assert (after.since, after.payload) == (before.since, b"0.2")
        third = app_with("0.2", cron="5 * * * *")
        apply_schedules(bed.broker, "shop", third.schedules.values(), who)
        assert schedule_named(bed.broker, "shop", "tick").plan.since == who.clock.now_ms()


def test_instants_at_which_no_worker_ran_are_made_up_for_with_an_alert() -> None:
    app = app_with("0.1", every="30s")
    with Testbed(app) as bed:
        bed.advance("31s")
        bed.stop_worker()
        bed.advance("210s")
        bed.add_worker()
        bed.advance("5s")
        # 180 is over a minute late; 210 is on time and stands for what was missed; it still runs when 240 is fired.
        assert started(bed) == [30, 210]
        (alert,) = [
            decode_alert(record.value() or b"")
            for record in read_to_end(bed.broker, partitions_of(bed.broker, ["shop.alerts"]))
        ]
        assert (alert.kind, alert.subject) == ("schedule_missed", "schedule:tick")
        assert "from 2026-01-01T00:01:00+00:00 to " in alert.text


def test_what_nobody_thought_of_in_one_schedule_holds_up_no_other() -> None:
    app = app_with("0.1", every="10s")
    with Testbed(app) as bed:
        bed.advance("1s")
        plan = schedule_named(bed.broker, "shop", "tick").plan
        producer = bed.broker.producer()
        # A moment that no calendar has.
        odd = plan._replace(name="a", every=0, cron="* * * * *", since=2**60)
        producer.append(OutRecord("shop.schedules", b"a", encode(odd)))
        producer.flush(1)
        bed.advance("32s")
        assert started(bed) == [10, 20, 30]
