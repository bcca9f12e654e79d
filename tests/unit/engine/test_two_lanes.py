"""One id in two lanes of a queue: a job sent again elsewhere is one job still, and keeps what it has saved."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from processor.job import Job, Lane
from processor.policies import Backoff, Retry
from processor.states import State
from tests.unit.engine.scene import QUEUE, Scene, lane_record

STEPS = ["s0", "s1", "s2"]


class Twice:
    """A job of three quick steps and a long one, whose record lies in two lanes."""

    def __init__(self) -> None:
        self.scene = Scene(seed=1, partitions=1, settings={"promote_after": 1e6})
        self.ran: Counter[str] = Counter()
        self.scene.define("steps", self.handler)
        self.worker = self.scene.start("w-0")
        self.scene.until(self.scene.active)

    def handler(self, ctx: Any, payload: Any) -> None:
        for name in STEPS:
            ctx.step(name, self.step, name)
        self.scene.runtime.pass_time(3.0)

    def step(self, name: str) -> None:
        self.ran[name] += 1
        self.scene.runtime.pass_time(0.1)

    def saved(self) -> bool:
        """Whether all quick steps are in the log."""
        view = self.scene.live()[0].view("job-1")
        return view is not None and set(view.steps) == set(STEPS)

    def crash(self) -> None:
        self.worker.kill()
        self.worker = self.scene.start("w-0")
        self.scene.until(self.scene.active)


@pytest.mark.parametrize("derived", [True, False], ids=["repeat", "plain"])
@pytest.mark.parametrize("first", [Lane.NORMAL, Lane.DUE])
def test_one_id_in_two_lanes_buries_no_live_progress(first: Lane, derived: bool) -> None:
    """After each crash either of its records may be read first; the other completes as a copy."""
    twice = Twice()
    scene = twice.scene
    job: Job = scene.enqueue("steps", "job-1", lane=first, derived=derived)
    scene.until(twice.saved)
    second = Lane.DUE if first is Lane.NORMAL else Lane.NORMAL
    scene.append(lane_record(job, lane=second, derived=True))
    for _ in range(3):
        twice.crash()
        scene.runtime.pass_time(1.0)
        assert twice.saved()
    scene.settle()
    assert twice.ran == dict.fromkeys(STEPS, 1)
    assert list(scene.ends().values()) == [[State.SUCCEEDED]]
    assert not any(len(table) for table in scene.live().values())
    scene.close()


@pytest.mark.parametrize("room", [10_000, 0], ids=["whole", "spilled"])
def test_a_later_life_keeps_its_place_among_the_jobs_of_its_key(room: int) -> None:
    """In the order of their enqueue: what was sent before it goes before it, what was sent after it after it."""
    scene = Scene(seed=1, partitions=1)
    order: list[str] = []

    def handler(ctx: Any, payload: Any) -> None:
        order.append(f"{ctx.id}.{ctx._port.job.life}")
        scene.runtime.pass_time(0.5)

    scene.define("h", handler)
    worker = scene.start("w-0")
    scene.until(scene.active)
    worker.worker.state.loads[QUEUE].budget._max_records = room
    scene.enqueue("h", "a", key="k")
    scene.until(lambda: bool(order))
    scene.enqueue("h", "b", key="k")
    scene.enqueue("h", "a", key="k", life=2, derived=True)
    scene.enqueue("h", "c", key="k")
    scene.enqueue("h", "a", key="k", life=3, derived=True)
    scene.enqueue("h", "a", key="k", life=2, derived=True)
    scene.enqueue("h", "d", key="k")
    scene.settle()
    # The third life takes the second one's place while that is in memory, else each has its own.
    assert order == (["a.1", "b.1", "a.3", "c.1", "d.1"] if room else ["a.1", "b.1", "a.2", "c.1", "a.3", "d.1"])
    assert not any(number.order.held_keys for number in worker.worker.state.numbers.values())
    scene.close()


@pytest.mark.parametrize("seed", range(6))
def test_later_lives_of_retried_jobs_leave_no_key_behind(seed: int) -> None:
    scene = Scene(seed=seed, partitions=1)
    ran: list[str] = []

    def handler(ctx: Any, payload: Any) -> None:
        ran.append(f"{ctx.id}.{ctx._port.job.life}")
        scene.runtime.pass_time(0.2)
        if ctx.attempt == 1 and ctx._port.job.life == 1:
            raise ConnectionError("not yet")

    scene.define("h", handler, retry=Retry(3, Backoff("1s")))
    worker = scene.start("w-0")
    scene.enqueue("h", "a", key="k")
    scene.until(lambda: bool(ran))
    for place in range(3):
        scene.enqueue("h", f"b-{place}", key="k")
        scene.enqueue("h", "a", key="k", life=2 + place, derived=True)
    scene.settle()
    assert "a.4" in ran
    assert {f"b-{place}.1" for place in range(3)} <= set(ran)
    assert not any(number.order.held_keys for number in worker.worker.state.numbers.values())
    scene.close()
