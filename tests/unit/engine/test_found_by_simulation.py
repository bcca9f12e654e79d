"""Faults of the engine that the simulation has found, each as small as it could be made."""

from __future__ import annotations

from processor.errors import RetriableBrokerError
from processor.states import State
from tests.unit.engine.scene import Scene


def test_fetch_that_fails_for_a_moment_does_not_end_the_worker(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0")
    scene.until(scene.active)
    scene.broker.faults.fail_next("fetch", RetriableBrokerError("planned"), process=worker.name, times=3)
    scene.enqueue("plain", "job-1")
    scene.settle()
    assert scene.state_of("job-1") is State.SUCCEEDED
    assert not scene.runtime.failures


def test_stopping_worker_takes_up_no_number_that_it_is_given_meanwhile(scene: Scene) -> None:
    scene.define("slow", lambda ctx, payload: ctx.step("wait", scene.runtime.pass_time, 1.5))
    staying, leaving = scene.start("w-0"), scene.start("w-1")
    scene.until(scene.active)
    owned = {number.partition for number in leaving.worker.state.active()}
    scene.enqueue("slow", scene.id_for(owned.pop()))
    scene.runtime.pass_time(0.5)
    leaving.stop(leave=False)
    staying.stop()
    scene.until(lambda: leaving.over)
    assert not scene.runtime.failures
    scene.start("w-0")
    scene.settle()
