"""What is old and complete leaves the lanes, and nothing else does; a number that stands still is held."""

from __future__ import annotations

from typing import Any

from processor.broker.base import TopicPartition
from processor.engine.queue_partition import PartitionPhase
from processor.engine.watchdog import Sight, Standstill
from processor.job import Lane
from processor.wire.topics import jobs_topic
from tests.unit.engine.scene import NS, QUEUE, Scene


def lane(number: int) -> TopicPartition:
    return TopicPartition(jobs_topic(NS, QUEUE, Lane.NORMAL), number)


def begin(scene: Scene, number: int) -> int:
    return scene.broker.admin().begin_offsets([lane(number)])[lane(number)]


def do_nothing(_ctx: Any, payload: Any) -> Any:
    return payload


def test_finished_records_older_than_the_replay_time_are_deleted(scene: Scene) -> None:
    scene.define("plain", do_nothing)
    scene.start("w-0", replay_time=60.0, tend_every=10.0)
    ids = [scene.id_for(0, f"old{i}") for i in range(5)]
    for job_id in ids:
        scene.enqueue("plain", job_id)
    scene.settle()
    assert begin(scene, 0) == 0
    scene.until(lambda: begin(scene, 0) == len(ids), 120.0)


def test_unfinished_job_is_never_deleted_by_retention(scene: Scene) -> None:
    """Its record is the low watermark, however old it is."""
    waiting = scene.runtime.signal()

    def hang(_ctx: Any, _payload: Any) -> None:
        waiting.wait(None)

    scene.define("hang", hang)
    scene.define("plain", do_nothing)
    scene.start("w-0", replay_time=30.0, tend_every=5.0, promote_after=10_000.0)
    scene.enqueue("plain", scene.id_for(0, "first"))
    scene.enqueue("hang", scene.id_for(0, "hangs"))
    scene.enqueue("plain", scene.id_for(0, "last"))
    scene.until(lambda: begin(scene, 0) == 1, 120.0)
    now = scene.runtime.clock.monotonic()
    scene.until(lambda: scene.runtime.clock.monotonic() > now + 120.0, 200.0)
    assert begin(scene, 0) == 1
    waiting.set()


def test_a_restarted_owner_learns_the_age_of_what_is_there(scene: Scene) -> None:
    """Samples live in memory; a fleet that restarts more often than the replay time deletes all the same."""
    scene.define("plain", do_nothing)
    first = scene.start("w-0", tend_every=1e9)
    for index in range(8):
        scene.enqueue("plain", scene.id_for(0, f"old{index}"))
    scene.settle()
    now = scene.runtime.clock.monotonic()
    scene.until(lambda: scene.runtime.clock.monotonic() > now + 100.0, 200.0)
    first.kill()
    scene.start("w-1", replay_time=60.0, tend_every=5.0)
    scene.until(lambda: begin(scene, 0) >= 4, 30.0)


def test_a_number_that_stands_still_is_held_and_the_others_go_on(scene: Scene) -> None:
    scene.define("plain", do_nothing)
    started = scene.start("w-0", watchdog=8.0)
    scene.until(lambda: started.engine is not None and started.worker.ready)
    scene.enqueue("plain", scene.id_for(0, "warm"))
    scene.settle()
    started.worker.fetching.readers[Lane.NORMAL].pause([lane(1)])
    scene.enqueue("plain", scene.id_for(1, "stuck"))
    phase = started.worker.state.numbers
    scene.until(lambda: phase[QUEUE, 1].phase is PartitionPhase.HELD, 60.0)
    scene.enqueue("plain", moving := scene.id_for(0, "moving"))
    scene.until(lambda: scene.state_of(moving) == "succeeded", 10.0)
    assert phase[QUEUE, 0].phase is PartitionPhase.ACTIVE


def test_an_idle_number_is_no_standstill(scene: Scene) -> None:
    scene.define("plain", do_nothing)
    started = scene.start("w-0", watchdog=4.0)
    scene.until(lambda: started.engine is not None and started.worker.ready)
    scene.enqueue("plain", "job-1")
    scene.settle()
    now = scene.runtime.clock.monotonic()
    scene.until(lambda: scene.runtime.clock.monotonic() > now + 30.0, 60.0)
    assert all(number.phase is PartitionPhase.ACTIVE for number in started.worker.state.numbers.values())


def test_a_standstill_ends_with_any_movement_and_with_any_excuse() -> None:
    still, stuck = Standstill(), Sight(1, ((5, 5),), True)
    assert [still.seconds(stuck, 0.0), still.seconds(stuck, 10.0)] == [0.0, 10.0]
    assert still.seconds(Sight(1, ((6, 5),), True), 20.0) == 0.0
    assert still.seconds(Sight(1, ((6, 5),), True), 30.0) == 10.0
    assert still.seconds(Sight(1, ((6, 5),), False), 40.0) == 0.0
    assert still.seconds(Sight(1, ((6, 5),), True), 50.0) == 0.0
    assert still.seconds(Sight(2, ((6, 5),), True), 60.0) == 0.0
