"""How many jobs of a queue run at a time, and that all of them are looked after."""

from __future__ import annotations

from typing import Any

from tests.unit.engine.scene import Scene


def test_jobs_that_come_one_by_one_run_within_the_queues_concurrency(scene: Scene) -> None:
    # Each comes when nothing waits for a slot: all must still share the slots of the one pool.
    scene.concurrency = 2
    running, most = 0, 0

    def work(ctx: Any, payload: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        scene.runtime.pass_time(0.8)
        running -= 1

    scene.define("work", work)
    worker = scene.start("w-0")
    scene.until(scene.active)
    for n in range(8):
        scene.enqueue("work", f"job-{n}")
        scene.runtime.pass_time(0.1)
    dispatch = worker.worker.dispatch
    assert len(dispatch.ready_queues) == 1
    scene.settle()
    assert most == 2
    assert dispatch.outstanding == 0


def test_every_long_job_is_promoted_though_others_come_after_it(scene: Scene) -> None:
    scene.concurrency = 8
    scene.define("work", lambda ctx, payload: scene.runtime.pass_time(3.0))
    scene.start("w-0", promote_after=1.0)
    scene.until(scene.active)
    ids = [f"job-{n}" for n in range(6)]
    for job_id in ids:
        scene.enqueue("work", job_id)
        scene.runtime.pass_time(0.2)
    scene.until(lambda: {job_id for table in scene.live().values() for job_id in table.ids()} >= set(ids), 2.9)
    scene.settle()


def test_slots_that_a_newly_defined_type_needs_are_reason_to_read_on(scene: Scene) -> None:
    """What is known of the kinds of executors does not outlive the types that it was found in."""
    scene.concurrency = 2
    ends: list[str] = []
    scene.define("slow", lambda ctx, payload: scene.runtime.wait_for(lambda: False, 100.0))
    worker = scene.start("w-0")
    scene.until(scene.active)
    dispatch, state = worker.worker.dispatch, worker.worker.state
    for n in range(100):
        scene.enqueue("slow", f"slow-{n}")
        scene.until(lambda: dispatch.outstanding > 0)
    scene.until(lambda: not dispatch.lacks())
    assert state.inflight_records < 100
    scene.define("quick", lambda ctx, payload: ends.append(ctx.id)).executor = "process"
    scene.enqueue("quick", "quick-1")
    scene.until(lambda: ends == ["quick-1"], 2.0)
