"""Spilled records are read again by scans: those near each other together, and what is gone is found to be gone."""

from __future__ import annotations

from typing import Any, cast

from processor.broker.base import Batch, End, PartitionFault, Record, TopicPartition
from processor.core.ordering import Spilled
from processor.engine.refetch import NEAR, Refetch, Scan
from processor.errors import BrokerError
from processor.states import State
from tests.unit.engine.scene import QUEUE, Scene

LANE = TopicPartition("lane", 3)


class At:
    """A record, as far as a scan looks at it."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def topic(self) -> str:
        return LANE.topic

    def partition(self) -> int:
        return LANE.partition

    def offset(self) -> int:
        return self._offset


class OfNumber:
    partition = LANE.partition


def scan(*asks: list[int]) -> Scan:
    number = cast("Any", OfNumber())
    return Scan(
        [Refetch(number, 1, "k", [Spilled(LANE.topic, offset) for offset in offsets]) for offsets in asks],
        lambda partition, offset: offset == 7,
    )


def batch(*offsets: int, end: int | None = None) -> Batch:
    return Batch([cast("Record", At(offset)) for offset in offsets], [] if end is None else [End(LANE, end)], [])


def test_scan_begins_with_the_first_ask_and_takes_what_lies_near() -> None:
    far = 10 * NEAR
    made = scan([far, far + NEAR], [5, 7], [far - NEAR])
    assert made.wanted == {LANE: {far - NEAR, far, far + NEAR}}
    assert made.starts == {LANE: far - NEAR}
    assert scan([7]).wanted == {}, "it is there already"


def test_scan_is_done_when_all_is_found() -> None:
    made = scan([1, 4])
    assert made.take(batch(1, 2, 3)) == []
    assert made.take(batch(4, 5)) == [LANE]
    assert [(offset, record is not None) for (_, offset), record in made.found.items()] == [(1, True), (4, True)]
    assert made.take(batch(6)) == []


def test_what_a_scan_has_passed_is_gone() -> None:
    made = scan([1, 4, 6])
    assert made.take(batch(2, 4)) == []
    assert made.found[LANE, 1] is None
    assert made.take(batch(end=6)) == []
    assert made.take(batch(end=7)) == [LANE]
    assert made.found[LANE, 6] is None


def test_fault_of_a_partition_ends_its_scan() -> None:
    made = scan([1, 4])
    assert made.take(Batch([], [], [PartitionFault(LANE, BrokerError("out of range"))])) == [LANE]
    assert list(made.found.values()) == [None, None]


def many_of_one_key(scene: Scene, count: int) -> tuple[list[str], list[str]]:
    """Jobs of one key and others between them; the ids of the key, and a list that fills as they run."""
    ran: list[str] = []

    def keyed(ctx: Any, payload: str) -> None:
        ran.append(payload)
        scene.runtime.pass_time(0.01)

    scene.define("keyed", keyed)
    for index in range(count):
        scene.enqueue("keyed", f"hot-{index}", f"hot-{index}", key="hot")
        scene.enqueue("keyed", f"cold-{index}", f"cold-{index}", key=f"cold-{index % 7}")
    return [f"hot-{index}" for index in range(count)], ran


def test_spilled_jobs_run_in_their_order_and_are_read_again_together(scene: Scene) -> None:
    ids, ran = many_of_one_key(scene, 150)
    asked: list[int] = []
    simulated = scene.start("w-0", inflight_max_records=100)
    scene.until(lambda: simulated.engine is not None)
    refetcher = simulated.worker.background.refetcher
    passed_on = refetcher.ask

    def counted(ask: Refetch) -> None:
        asked.append(len(ask.places))
        passed_on(ask)

    refetcher.ask = counted  # type: ignore[method-assign]
    scene.settle()
    assert [name for name in ran if name.startswith("hot")] == ids
    assert sum(asked) > 100, "most of them were spilled"
    assert len(asked) < sum(asked) / 2
    assert simulated.worker.state.loads[QUEUE].budget.records == 0


def test_spilled_jobs_outlive_their_worker(scene: Scene) -> None:
    ids, ran = many_of_one_key(scene, 100)
    first = scene.start("w-0", inflight_max_records=60)
    scene.until(lambda: len(ran) > 50)
    first.kill()
    scene.start("w-0", inflight_max_records=60)
    scene.settle()
    hot = [name for name in ran if name.startswith("hot")]
    assert list(dict.fromkeys(hot)) == ids, "in order, some of them twice"


def test_number_is_held_if_a_spilled_record_is_no_longer_in_the_log(scene: Scene) -> None:
    ids, ran = many_of_one_key(scene, 100)
    simulated = scene.start("w-0", inflight_max_records=60)
    scene.until(lambda: len(ran) > 60)
    number = scene.number_of("hot")
    order = simulated.worker.state.numbers["q", number].order
    scene.until(lambda: order.spilled_count > 20)
    lane = scene.lane(partition=number)
    admin = scene.broker.admin()
    admin.delete_records({lane: admin.end_offsets([lane])[lane]})
    scene.until(lambda: simulated.worker.state.counters.events["held"] == 1)
    assert scene.state_of(ids[-1]) is not State.SUCCEEDED
