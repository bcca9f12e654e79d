"""A job that ends its process: found among its neighbours, tried alone, and given up; the neighbours finish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from processor.job import Lane
from processor.states import State
from tests.unit.engine.scene import ProcessDied, Scene, Simulated


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=9, partitions=1)
    yield scene
    scene.close()


class Supervised:
    """One slot whose process is started again whenever it has died."""

    def __init__(self, scene: Scene, **settings: Any) -> None:
        self.scene = scene
        self.settings = settings
        self.worker: Simulated = scene.start("w-0", **settings)
        self.starts = 1

    def die(self, ctx: Any) -> None:
        """What a handler does that takes its process along: the child process if it is alone in one."""
        if self.scene.runtime.current_group != self.worker.name:
            return
        if ctx.id in self.scene.quarantined:
            raise ProcessDied
        self.worker.kill()

    def until(self, condition: Any, seconds: float = 60.0) -> None:
        def look() -> bool:
            if self.worker.over:
                self.worker = self.scene.start("w-0", **self.settings)
                self.starts += 1
            return bool(condition())

        self.scene.until(look, seconds)


def neighbours(scene: Scene, count: int = 6) -> list[str]:
    ids = [f"plain-{index}" for index in range(count)]

    def plain(ctx: Any, payload: Any) -> Any:
        scene.runtime.pass_time(0.3)
        return payload

    scene.define("plain", plain)
    return ids


@pytest.mark.parametrize("after", [0.0, 0.05, 1.5], ids=["at once", "soon", "once promoted"])
@pytest.mark.parametrize("lane", [Lane.NORMAL, Lane.DUE])
def test_three_deaths_without_progress_are_a_crash_loop(scene: Scene, after: float, lane: Lane) -> None:
    """At most four: the first death of a job that dies before anything of it is in the log goes unseen."""
    ids = neighbours(scene)
    process: list[Supervised] = []
    deaths: list[float] = []

    def poison(ctx: Any, payload: Any) -> None:
        scene.runtime.pass_time(after)
        deaths.append(scene.runtime.clock.monotonic())
        process[0].die(ctx)

    scene.define("poison", poison)
    process.append(Supervised(scene))
    scene.until(scene.active)
    scene.enqueue("poison", "poison-1", lane=lane)
    for job_id in ids:
        scene.enqueue("plain", job_id)
    process[0].until(lambda: scene.state_of("poison-1") is State.DEAD)
    process[0].until(lambda: all(scene.state_of(job_id) is State.SUCCEEDED for job_id in ids))
    process[0].until(scene.is_settled)
    (letter,) = scene.dead_letters()
    assert letter.reason == "crash_loop"
    assert 3 <= len(deaths) <= 4
    assert scene.quarantined.count("poison-1") == 1, "the last one took nobody along"
    assert [alert.kind for alert in scene.alerts()] == ["crash_loop"]
    assert all(len(states) == 1 for states in scene.ends().values())


def test_progress_starts_the_count_anew(scene: Scene) -> None:
    """A job that dies often, but further on each time, is no crash loop."""
    process: list[Supervised] = []
    reached: list[int] = []

    def fragile(ctx: Any, payload: Any) -> str:
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, 31), every="50ms"):
            scene.runtime.pass_time(0.1)
            reached.append(row)
            if row % 5 == 0 and reached.count(row) == 1:
                process[0].die(ctx)
        return "done"

    scene.define("fragile", fragile)
    process.append(Supervised(scene))
    scene.enqueue("fragile", "job-1")
    process[0].until(lambda: scene.state_of("job-1") is State.SUCCEEDED, 120.0)
    assert process[0].starts == 7
    assert scene.quarantined == []
    assert scene.dead_letters() == []


def test_innocent_neighbours_never_reach_three(scene: Scene) -> None:
    """Killed from outside again and again: whoever was there runs alone for a while, and finishes."""
    ids = neighbours(scene, 8)
    process = Supervised(scene)
    scene.until(scene.active)
    for job_id in ids:
        scene.enqueue("plain", job_id)
    for _ in range(4):
        process.until(scene.active)
        scene.runtime.pass_time(0.15)
        process.worker.kill()
    process.until(lambda: all(scene.state_of(job_id) is State.SUCCEEDED for job_id in ids))
    assert scene.dead_letters() == []


def test_who_waits_for_its_turn_alone_is_not_blamed_for_deaths_meanwhile(scene: Scene) -> None:
    """Eight were there at every death and are to run alone, one after the other; the process dies after each."""
    scene.concurrency = 8
    ids = neighbours(scene, 8)
    process = Supervised(scene)
    scene.until(scene.active)
    for job_id in ids:
        scene.enqueue("plain", job_id)
    while len(set(scene.quarantined)) < 8:
        process.until(scene.active)
        scene.runtime.pass_time(0.15)
        process.worker.kill()
    assert process.starts <= 4
    scene.concurrency = 1
    for _ in range(8):
        process.until(scene.active)
        before = len(scene.ends())
        process.until(lambda before=before: len(scene.ends()) > before or len(scene.ends()) == 8)
        process.worker.kill()
    process.until(lambda: all(scene.state_of(job_id) is State.SUCCEEDED for job_id in ids))
    assert scene.dead_letters() == []


def test_broker_outage_is_not_a_death_of_a_job(scene: Scene) -> None:
    """The number is lost and comes back to the same process: nobody died."""

    def slow(ctx: Any, payload: Any) -> str:
        scene.runtime.pass_time(0.6)
        return "done"

    scene.define("slow", slow)
    worker = scene.start("w-0")
    scene.until(scene.active)
    for _ in range(4):
        scene.enqueue("slow", f"job-{_}")
        scene.runtime.pass_time(0.2)
        scene.broker.faults.outage(True)
        scene.runtime.pass_time(5.0)
        scene.broker.faults.outage(False)
        scene.until(scene.active)
    scene.settle()
    assert scene.quarantined == []
    assert all(not lane.deaths for number in worker.worker.state.active() for lane in number.lanes.values())
    assert all(states == [State.SUCCEEDED] for states in scene.ends().values())


def test_job_that_takes_its_worker_along_even_alone_is_given_up(scene: Scene) -> None:
    """No child process can hold it (or there are none): eight deaths, and it is not started again."""
    ids = neighbours(scene)
    process: list[Supervised] = []
    deaths: list[str] = []

    def poison(ctx: Any, payload: Any) -> None:
        scene.runtime.pass_time(0.3)
        deaths.append(ctx.id)
        process[0].worker.kill()

    scene.define("poison", poison)
    process.append(Supervised(scene, quarantine=False))
    scene.enqueue("poison", "poison-1")
    for job_id in ids:
        scene.enqueue("plain", job_id)
    process[0].until(lambda: scene.state_of("poison-1") is State.DEAD, 120.0)
    process[0].until(scene.is_settled)
    assert scene.dead_letters()[0].reason == "crash_loop"
    assert len(deaths) <= 9
    assert all(scene.state_of(job_id) is State.SUCCEEDED for job_id in ids)


def test_one_poison_among_a_thousand_keeps_them_up_for_less_than_a_minute(scene: Scene) -> None:
    """All of them were read, few of them had begun when the process died: each finishes, none is given up. From its
    first death on those that were only read are no suspects: few run alone.
    """
    process: list[Supervised] = []

    def poison(ctx: Any, payload: Any) -> None:
        scene.runtime.pass_time(0.05)
        process[0].die(ctx)

    scene.define("plain", lambda ctx, payload: scene.runtime.pass_time(0.01))
    scene.define("poison", poison)
    process.append(Supervised(scene))
    scene.until(scene.active)
    scene.enqueue("poison", "poison-1")
    for index in range(999):
        scene.enqueue("plain", f"plain-{index}")
    process[0].until(lambda: scene.is_settled() and len(scene.ends()) == 1000, 60.0)
    assert [letter.id for letter in scene.dead_letters()] == ["poison-1"]
    assert sum(states == [State.SUCCEEDED] for states in scene.ends().values()) == 999
    assert "poison-1" in scene.quarantined
    assert len(set(scene.quarantined)) <= 2 * scene.concurrency + 16


def test_kinds_let_go_after_a_death_wait_for_their_own_slots_alone(scene: Scene) -> None:
    """Where a process has just died, jobs that hold all slots of their kind keep no other kind from starting."""
    ends: list[str] = []
    process: list[Supervised] = []

    def slow(ctx: Any, payload: Any) -> None:
        scene.runtime.pass_time(20.0)

    scene.define("slow", slow)
    scene.define("quick", lambda ctx, payload: ends.append(ctx.id)).executor = "process"
    process.append(Supervised(scene, promote_after=1e6))
    scene.until(scene.active)
    for index in range(60):
        scene.enqueue("slow", f"slow-{index}")
    scene.runtime.pass_time(1.0)
    process[0].worker.kill()
    process[0].until(scene.active)
    scene.enqueue("quick", "quick-1")
    scene.until(lambda: ends == ["quick-1"], 2.0)
    process[0].until(scene.is_settled, 600.0)
