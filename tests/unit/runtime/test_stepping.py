"""The stepping runtime: one actor at a time, the same run for a seed, processes that die and sleep as a whole."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.runtime import Inbox
from processor.runtime.stepping import ActorKilled, Deadlock, SteppingRuntime

ROOT = Path(__file__).parents[3]


@pytest.fixture
def runtime() -> Iterator[SteppingRuntime]:
    made = SteppingRuntime(seed=1)
    yield made
    made.close()


def chatter(seed: int) -> list[str]:
    """Some actors that post to each other; who ran when."""
    runtime = SteppingRuntime(seed=seed)
    runtime.trace = []
    inboxes: list[Inbox[int]] = [Inbox(runtime) for _ in range(4)]

    def live(me: int) -> None:
        for turn in range(20):
            inboxes[runtime.random.randrange(4)].post(turn)
            inboxes[me].wait(0.01)
            inboxes[me].take()

    for me in range(4):
        runtime.start(f"actor-{me}", lambda me=me: live(me))  # type: ignore[misc]  # the default binds the loop's value
    runtime.pass_time(60.0)
    runtime.close()
    return runtime.trace


def test_a_seed_gives_the_same_trace() -> None:
    assert chatter(3) == chatter(3)
    assert chatter(3) != chatter(4)


def test_trace_does_not_depend_on_the_hashes_of_strings() -> None:
    code = (
        "from tests.unit.engine.test_simulation import Chaos; c = Chaos(11); c.scene.runtime.trace = []; c.run();"
        "import hashlib; print(hashlib.sha256(repr((c.scene.runtime.trace, c.history.trace)).encode()).hexdigest());"
        "c.scene.close()"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_time_moves_only_when_everybody_waits(runtime: SteppingRuntime) -> None:
    seen: list[float] = []

    def sleeper() -> None:
        for _ in range(3):
            runtime.pass_time(10.0)
            seen.append(runtime.clock.monotonic())

    runtime.start("sleeper", sleeper)
    assert runtime.wait_for(lambda: len(seen) == 3, math.inf)
    assert seen == [10.0, 20.0, 30.0]
    assert not runtime.wait_for(lambda: False, 5.0)
    assert runtime.clock.monotonic() == pytest.approx(35.0, abs=0.001)


def test_killed_group_runs_nothing_any_more(runtime: SteppingRuntime) -> None:
    ran: list[str] = []

    def parent(name: str) -> None:
        runtime.start(f"{name}-child", lambda: live(f"{name}-child"))
        live(name)

    def live(name: str) -> None:
        while True:
            runtime.pass_time(1.0)
            ran.append(name)

    for name in ("doomed", "other"):
        with runtime.group(name):
            runtime.start(name, lambda name=name: parent(name))  # type: ignore[misc]  # as above
    runtime.pass_time(3.5)
    runtime.kill("doomed")
    assert set(ran) == {"doomed", "doomed-child", "other", "other-child"}
    ran.clear()
    runtime.pass_time(3.0)
    assert set(ran) == {"other", "other-child"}
    assert not runtime.failures


def test_actor_that_kills_its_own_group_ends_there(runtime: SteppingRuntime) -> None:
    after: list[str] = []

    def live() -> None:
        try:
            runtime.kill("doomed")
        except ActorKilled:
            after.append("told")
            raise
        after.append("went on")

    with runtime.group("doomed"):
        actor = runtime.start("doomed", live)
    assert actor.join(1.0)
    assert after == ["told"]


def test_frozen_group_goes_on_where_it_was(runtime: SteppingRuntime) -> None:
    ticks: list[float] = []

    def live() -> None:
        while True:
            runtime.pass_time(1.0)
            ticks.append(runtime.clock.monotonic())

    with runtime.group("sleepy"):
        runtime.start("sleepy", live)
    runtime.pass_time(2.5)
    runtime.freeze("sleepy")
    runtime.pass_time(10.0)
    assert len(ticks) == 2
    runtime.thaw("sleepy")
    runtime.pass_time(1.5)
    assert len(ticks) == 4


def test_deadlock_and_errors_are_told_to_the_main_actor(runtime: SteppingRuntime) -> None:
    def stuck() -> None:
        runtime.signal().wait(None)

    runtime.start("stuck", stuck)

    def broken() -> None:
        raise ValueError("boom")

    runtime.start("broken", broken)
    with pytest.raises(Deadlock, match="main, stuck"):
        runtime.wait_for(lambda: False, None)
    assert [(name, str(error)) for name, error in runtime.failures] == [("broken", "boom")]


def test_thousands_of_steps_in_a_second(runtime: SteppingRuntime) -> None:
    def live() -> None:
        while True:
            runtime.pass_time(0.001)

    for i in range(8):
        runtime.start(f"actor-{i}", live)
    began, before = time.process_time(), runtime.steps
    runtime.pass_time(1.0)
    assert (runtime.steps - before) / (time.process_time() - began) > 3_000
