"""Topics read from outside, while others write to them and delete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from processor.admin.reading import partitions_of, read_to_end, tail
from processor.broker.base import Isolation, OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import AdvancingWait, MemoryBroker
from processor.clock import ManualClock
from processor.errors import BrokerUnavailable, RetriableBrokerError, TopicMissing

TOPIC = "shop.dlq"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


@pytest.fixture
def broker() -> MemoryBroker:
    clock = ManualClock()
    made = MemoryBroker(clock, AdvancingWait(clock))
    made.admin().create_topics([TopicSpec(name=TOPIC, partitions=2)])
    return made


def write(broker: MemoryBroker, partition: int, *values: str) -> None:
    producer = broker.producer()
    for value in values:
        producer.append(OutRecord(TOPIC, b"k", value.encode(), None, partition))
    assert producer.flush(5) == 0
    producer.close()


class Meanwhile:
    """A broker where something happens right after somebody asked where a topic ends."""

    def __init__(self, broker: MemoryBroker, happens: Callable[[], None]) -> None:
        self._broker = broker
        self.happens: Callable[[], None] | None = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def admin(self) -> Any:
        admin, outer = self._broker.admin(), self

        class Admin:
            def __getattr__(self, name: str) -> Any:
                return getattr(admin, name)

            def end_offsets(
                self, partitions: Iterable[TopicPartition], isolation: Isolation = Isolation.UNCOMMITTED
            ) -> dict[TopicPartition, int]:
                found = admin.end_offsets(partitions, isolation)
                happens, outer.happens = outer.happens, None
                if happens is not None:
                    happens()
                return found

        return Admin()


def values(records: Iterable[Any]) -> list[str]:
    return [record.value().decode() for record in records]


def test_what_is_written_while_a_tail_begins_is_shown_once(broker: MemoryBroker) -> None:
    write(broker, 0, "old")
    broken_in = Meanwhile(broker, lambda: write(broker, 0, "meanwhile"))
    records = tail(broken_in, [TOPIC], count=5, follow=True)
    assert values([next(records), next(records)]) == ["old", "meanwhile"]
    write(broker, 0, "new")
    assert values([next(records)]) == ["new"]
    records.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_tail_without_follow_ends_where_it_began(broker: MemoryBroker) -> None:
    write(broker, 0, "old")
    broken_in = Meanwhile(broker, lambda: write(broker, 0, "meanwhile"))
    assert values(tail(broken_in, [TOPIC], from_start=True)) == ["old"]


@pytest.mark.parametrize(("before", "left"), [(3, ["3", "4"]), (5, [])])
def test_records_deleted_under_a_reader_are_passed_over(broker: MemoryBroker, before: int, left: list[str]) -> None:
    """Queues delete what is done at any time; a list of jobs must not fail of it."""
    write(broker, 0, *"01234")
    write(broker, 1, "other")
    deleting = Meanwhile(broker, lambda: broker.admin().delete_records({P0: before}))
    assert sorted(values(read_to_end(deleting, [P0, P1]))) == sorted([*left, "other"])


def test_a_tail_goes_on_when_what_it_was_about_to_show_is_deleted(broker: MemoryBroker) -> None:
    write(broker, 0, "0")
    records = tail(broker, [TOPIC], count=1, follow=True)
    assert values([next(records)]) == ["0"]
    write(broker, 0, "1", "2", "3")
    broker.admin().delete_records({P0: 3})
    assert values([next(records)]) == ["3"]
    records.close()  # type: ignore[attr-defined]  # it is a generator


@pytest.mark.parametrize(
    ("starts", "stops", "expected"),
    [
        (None, None, ["a0", "a1", "a2", "b0"]),
        ({P0: 1}, None, ["a1", "a2", "b0"]),
        ({P0: 3, P1: 1}, None, []),
        ({P0: 99, P1: 99}, None, []),
        (None, {P0: 2}, ["a0", "a1", "b0"]),
        (None, {P0: 0, P1: 99}, ["b0"]),
        ({P0: 1}, {P0: 1, P1: 0}, []),
        ({P0: 2}, {P0: 1}, ["b0"]),
    ],
)
def test_a_stretch_is_what_lies_between(
    broker: MemoryBroker,
    starts: dict[TopicPartition, int] | None,
    stops: dict[TopicPartition, int] | None,
    expected: list[str],
) -> None:
    write(broker, 0, "a0", "a1", "a2")
    write(broker, 1, "b0")
    assert sorted(values(read_to_end(broker, [P0, P1], starts, stops))) == expected


def test_a_stretch_begins_where_the_log_does(broker: MemoryBroker) -> None:
    write(broker, 0, "a0", "a1", "a2")
    broker.admin().delete_records({P0: 2})
    assert values(read_to_end(broker, [P0], {P0: 1})) == ["a2"]


def test_an_open_transaction_and_what_is_behind_it_are_left_out(broker: MemoryBroker) -> None:
    write(broker, 0, "before")
    producer = broker.transactional_producer("t")
    producer.init(5)
    producer.begin()
    producer.append([OutRecord(TOPIC, b"k", b"open", None, 0)])
    write(broker, 0, "behind")
    assert values(read_to_end(broker, [P0])) == ["before"]
    producer.commit(5)
    assert values(read_to_end(broker, [P0])) == ["before", "open", "behind"]


def test_aborted_records_and_markers_hold_nobody_up(broker: MemoryBroker) -> None:
    producer = broker.transactional_producer("t")
    producer.init(5)
    producer.begin()
    producer.append([OutRecord(TOPIC, b"k", b"aborted", None, 0)])
    producer.abort(5)
    assert values(read_to_end(broker, [P0])) == []


def test_a_cluster_that_falls_silent_is_given_up(broker: MemoryBroker) -> None:
    write(broker, 0, "a")
    records = read_to_end(Meanwhile(broker, lambda: broker.faults.outage(True)), [P0, P1])
    with pytest.raises((BrokerUnavailable, RetriableBrokerError)):
        list(records)


def test_missing_topics_are_all_named(broker: MemoryBroker) -> None:
    with pytest.raises(TopicMissing, match=r"^shop\.a, shop\.b: no such topic") as caught:
        partitions_of(broker, ["shop.a", TOPIC, "shop.b"])
    assert caught.value.hint == "create it: processor topics apply"
    assert partitions_of(broker, [TOPIC]) == [P0, P1]
    assert partitions_of(broker, []) == []
