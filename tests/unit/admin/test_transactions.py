"""An operator's transactions: parts, pace, patience, and who holds the id."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.admin.transactions import CALL, PATIENCE, Order, TransactionWriter, parts
from processor.broker.base import OutRecord, TopicSpec
from processor.broker.memory import AdvancingWait, MemoryBroker
from processor.clock import ManualClock
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ProducerFenced,
    RetriableBrokerError,
)


class Sized(NamedTuple):
    name: int
    size: int


ROWS = st.lists(st.integers(0, 50), max_size=40)


@given(ROWS, st.integers(1, 8), st.integers(1, 60))
def test_parts_are_all_rows_in_order_within_both_bounds(sizes: list[int], count: int, size: int) -> None:
    rows = [Sized(place, each) for place, each in enumerate(sizes)]
    made = list(parts(rows, count, size))
    assert [row for part in made for row in part] == rows
    for part in made:
        assert 1 <= len(part) <= count
        assert len(part) == 1 or sum(row.size for row in part) <= size
    for part, following in pairwise(made):
        assert len(part) == count or sum(row.size for row in part) + following[0].size > size, "no part ends early"


@pytest.mark.parametrize(
    ("rate", "most", "batch"),
    [(None, 500, 500), (10.0, 500, 10), (10.9, 500, 10), (0.2, 500, 1), (1000.0, 500, 500)],
)
def test_no_transaction_holds_more_than_a_seconds_worth(rate: float | None, most: int, batch: int) -> None:
    assert Order(by="ada", rate=rate).batch(most) == batch


@pytest.mark.parametrize(
    ("rate", "ran", "done", "pauses"),
    [
        (None, 0.0, 10**6, []),
        (10.0, 0.0, 10, [1.0]),
        (10.0, 0.4, 10, [0.6]),
        (10.0, 1.0, 10, []),
        (10.0, 60.0, 10, []),  # a broker that was slow is not made up for by a burst's wait
        (0.5, 0.0, 1, [2.0]),
    ],
)
def test_a_rate_is_kept_over_the_whole_run(rate: float | None, ran: float, done: int, pauses: list[float]) -> None:
    clock, paused = ManualClock(), list[float]()
    clock.advance(ran)
    Order(by="ada", rate=rate, clock=clock, pause=paused.append).pace(0.0, done)
    assert paused == pytest.approx(pauses)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    made = MemoryBroker(clock, AdvancingWait(clock))
    made.admin().create_topics([TopicSpec(name="shop.due", partitions=1), TopicSpec(name="shop.audit", partitions=1)])
    return made


def writer(broker: MemoryBroker, clock: ManualClock) -> TransactionWriter:
    made = TransactionWriter(broker, "shop.redrive", clock)
    made.rebuild()
    assert made.ready
    return made


JOB, NOTE = OutRecord("shop.due", b"k", b"job"), OutRecord("shop.audit", b"k", b"note")


def written(broker: MemoryBroker) -> list[bytes | None]:
    return [record.value() for topic in ("shop.due", "shop.audit") for record in broker.records(topic)]


def test_a_batch_is_there_whole(broker: MemoryBroker, clock: ManualClock) -> None:
    made = writer(broker, clock)
    assert made.write([JOB, JOB], [NOTE]) == ()
    assert made.write([JOB], []) == ()
    assert written(broker) == [b"job", b"job", b"job", b"note"]


def test_a_refused_record_is_named_and_nothing_of_its_batch_is_there(broker: MemoryBroker, clock: ManualClock) -> None:
    made = writer(broker, clock)
    large = JOB._replace(value=b"x" * 3_000_000)
    (failure,) = made.write([JOB, large], [NOTE])
    assert failure.record == large
    assert not made.ready, "only a new producer is safe after an abort"
    made.rebuild()
    assert made.write([JOB], [NOTE]) == ()
    assert written(broker) == [b"job", b"note"]


@pytest.mark.parametrize("operation", ["wait_acks", "commit"])
@pytest.mark.parametrize("after", [False, True])
def test_a_slow_broker_is_asked_again_and_not_sent_to_twice(
    broker: MemoryBroker, clock: ManualClock, operation: str, after: bool
) -> None:
    made = writer(broker, clock)
    for error in (RetriableBrokerError("slow"), BrokerUnavailable("away")):
        broker.faults.fail_next(operation, error, after=after)
    assert made.write([JOB], [NOTE]) == ()
    assert written(broker) == [b"job", b"note"]


def test_a_broker_that_does_not_answer_is_given_up_with_what_may_be_done(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    made = writer(broker, clock)
    broker.faults.outage(True)
    with pytest.raises(BrokerUnavailable, match=r"has not taken the batch within 60 s") as caught:
        made.write([JOB], [NOTE])
    assert caught.value.hint == "run it again: what is done is not done twice"
    assert PATIENCE <= clock.monotonic() < PATIENCE + 2 * CALL


@pytest.mark.parametrize("error", [AbortRequired("abort"), ProducerFenced("gone")])
def test_what_no_repetition_helps_against_is_told_at_once(
    broker: MemoryBroker, clock: ManualClock, error: BrokerError
) -> None:
    made = writer(broker, clock)
    broker.faults.fail_next("commit", error)
    with pytest.raises(type(error)):
        made.write([JOB], [NOTE])
    made.abort()
    made.rebuild()
    assert written(broker) == []


def test_the_last_who_began_holds_the_id(broker: MemoryBroker, clock: ManualClock) -> None:
    first = writer(broker, clock)
    second = writer(broker, clock)
    with pytest.raises(ProducerFenced):
        first.write([JOB], [NOTE])
    assert second.write([JOB], [NOTE]) == ()
    assert written(broker) == [b"job", b"note"]


@pytest.mark.parametrize("error", [BrokerRefused("no"), ProducerFenced("gone")])
def test_who_is_refused_does_not_try_again(broker: MemoryBroker, clock: ManualClock, error: BrokerError) -> None:
    broker.faults.fail_next("init", error)
    made = TransactionWriter(broker, "shop.redrive", clock)
    with pytest.raises(type(error)):
        made.rebuild()
    assert not made.ready
    assert clock.monotonic() == 0
    made.abort()  # there is nothing to give up
    made.abandon()


def test_a_broker_that_comes_back_in_time_gets_a_new_producer(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.faults.fail_next("init", BrokerUnavailable("away"), times=3)
    assert writer(broker, clock).write([JOB], [NOTE]) == ()


def test_a_broker_that_stays_away_is_given_up(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.faults.outage(True)
    with pytest.raises(BrokerError):
        TransactionWriter(broker, "shop.redrive", clock).rebuild()
    assert PATIENCE <= clock.monotonic() < PATIENCE + 2 * CALL
