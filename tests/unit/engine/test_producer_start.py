"""A worker that takes over from a killed one does not wait for librdkafka's own pause between two tries."""

from __future__ import annotations

from processor.errors import RetriableBrokerError
from tests.unit.engine.scene import Scene


def test_a_fresh_producer_tries_when_the_first_is_told_to_wait(scene: Scene) -> None:
    scene.define("plain", lambda _ctx, payload: payload)
    scene.broker.faults.fail_next("init", RetriableBrokerError("concurrent transactions"), times=2)
    started = scene.start("w-0")
    scene.enqueue("plain", "job-1")
    scene.settle()
    assert started.worker.flushing.prepared


def test_patience_grows_when_the_cluster_is_slow(scene: Scene) -> None:
    scene.define("plain", lambda _ctx, payload: payload)
    scene.broker.faults.fail_next("init", RetriableBrokerError("still loading"), times=12)
    scene.start("w-0")
    scene.enqueue("plain", "job-1")
    scene.settle()
