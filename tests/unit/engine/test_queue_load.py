"""A queue is held back when it has its share, and read again only when half of that is free."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from processor.engine.hold_back import HoldBack
from processor.engine.queue_load import QueueLoad


class Numbers:
    """As much of an engine and of its ownership as holding back touches."""

    def __init__(self, *queues: str, records: int = 100, size: int = 1000) -> None:
        self.loads = {name: QueueLoad(records, size) for name in queues}
        self.numbers = [SimpleNamespace(queue=SimpleNamespace(name=name), at=at) for name in queues for at in (0, 1)]
        self.acts: list[tuple[str, str, int]] = []
        self.hold_back = HoldBack(cast("Any", self), cast("Any", self))

    def active(self) -> list[Any]:
        return list(self.numbers)

    def rest(self, number: Any) -> None:
        self.acts.append(("rest", number.queue.name, number.at))

    def go_on(self, number: Any) -> None:
        self.acts.append(("go on", number.queue.name, number.at))

    def turn(self) -> list[tuple[str, str, int]]:
        self.acts.clear()
        self.hold_back.turn()
        return list(self.acts)


@pytest.mark.parametrize(("records", "size"), [(100, 0), (0, 1000), (250, 5)])
def test_a_full_queue_rests_alone_on_all_its_numbers(records: int, size: int) -> None:
    worker = Numbers("slow", "quick")
    worker.loads["slow"].records, worker.loads["slow"].size = records, size
    assert worker.turn() == [("rest", "slow", 0), ("rest", "slow", 1)]
    assert worker.turn() == [], "once"


@pytest.mark.parametrize(("records", "size", "low"), [(51, 0, False), (50, 501, False), (50, 500, True), (0, 0, True)])
def test_it_goes_on_when_half_is_free_of_both(records: int, size: int, low: bool) -> None:
    worker = Numbers("slow", "quick")
    load = worker.loads["slow"]
    load.records = 100
    worker.turn()
    load.records, load.size = records, size
    assert worker.turn() == ([("go on", "slow", 0), ("go on", "slow", 1)] if low else [])


def test_a_worker_of_one_queue_needs_no_shares() -> None:
    worker = Numbers("only")
    worker.loads["only"].records = 10**6
    assert worker.turn() == []


def test_half_of_a_share_is_for_jobs_that_wait_for_their_keys() -> None:
    load = QueueLoad(100, 1000)
    assert load.budget.share() == 50 // 8
    load.budget.take(500)
    assert load.budget.share() == 0
