"""Transactions of the memory broker: epochs, fencing, pending offsets, timeouts, refused records."""

from __future__ import annotations

import pytest

from processor.broker.base import Committed, Isolation, OffsetCommit, OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import AdvancingWait, MemoryBroker
from processor.broker.memory.producer import MemoryTransactionalProducer
from processor.clock import ManualClock
from processor.errors import (
    AbortRequired,
    ProducerFatal,
    ProducerFenced,
    RecordRefused,
    RetriableBrokerError,
)

P0 = TopicPartition("t", 0)
RECORD = OutRecord("t", b"k", b"v")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    made = MemoryBroker(clock, AdvancingWait(clock))
    made.admin().create_topics([TopicSpec(name="t", partitions=1), TopicSpec(name="u", partitions=1)])
    return made


def started(broker: MemoryBroker, name: str = "x") -> MemoryTransactionalProducer:
    producer = broker.transactional_producer(name)
    producer.init(0)
    return producer


def send(broker: MemoryBroker, producer: MemoryTransactionalProducer, offset: int, metadata: str = "") -> None:
    outsider = broker.group_consumer("g").membership()
    producer.send_offsets([OffsetCommit(P0, offset, metadata)], "g", outsider, 1)


def committed(broker: MemoryBroker, *, stable: bool = True) -> Committed:
    return broker.admin().committed("g", [P0], stable=stable, timeout=1)[P0]


def test_a_successor_aborts_and_fences_its_predecessor(broker: MemoryBroker) -> None:
    old = started(broker)
    old.begin()
    old.append([RECORD])
    send(broker, old, 5)
    started(broker)
    assert broker.records("t") == []
    assert committed(broker) == Committed(None, "")
    with pytest.raises(ProducerFenced):
        old.commit(1)
    with pytest.raises(ProducerFenced):
        old.abort(1)


def test_a_fenced_producer_learns_it_from_its_next_request(broker: MemoryBroker) -> None:
    old = started(broker)
    started(broker)
    old.begin()
    old.append([RECORD])
    with pytest.raises(ProducerFenced):
        old.wait_acks(1)
    assert broker.records("t", Isolation.UNCOMMITTED) == []


def test_an_open_transaction_outlives_its_process_until_it_times_out(broker: MemoryBroker, clock: ManualClock) -> None:
    process = broker.process("a")
    producer = process.transactional_producer("x")
    producer.init(0)
    clock.advance(1)
    producer.begin()
    producer.append([RECORD])
    process.kill()
    clock.advance(30)
    assert broker.admin().end_offsets([P0], Isolation.COMMITTED) == {P0: 0}
    clock.advance(9)
    assert broker.admin().end_offsets([P0], Isolation.COMMITTED) == {P0: 2}
    assert broker.records("t") == []


def test_a_producer_whose_transaction_timed_out_is_fenced(broker: MemoryBroker, clock: ManualClock) -> None:
    producer = started(broker)
    producer.begin()
    producer.append([RECORD])
    clock.advance(40)
    with pytest.raises(ProducerFenced):
        producer.commit(1)


def test_pending_offsets_are_unknown_to_a_stable_read(broker: MemoryBroker) -> None:
    producer = started(broker)
    producer.begin()
    send(broker, producer, 5, "first")
    producer.commit(1)
    producer.begin()
    send(broker, producer, 6)
    with pytest.raises(RetriableBrokerError):
        committed(broker)
    assert committed(broker, stable=False) == Committed(5, "first")
    producer.abort(1)
    assert committed(broker) == Committed(5, "first")


def test_init_of_the_same_id_frees_pending_offsets(broker: MemoryBroker) -> None:
    producer = started(broker)
    producer.begin()
    send(broker, producer, 6)
    started(broker)
    assert committed(broker) == Committed(None, "")


@pytest.mark.parametrize(("length", "fits"), [(4095, True), (4096, False)])
def test_metadata_has_a_limit(broker: MemoryBroker, length: int, fits: bool) -> None:
    producer = started(broker)
    producer.begin()
    if fits:
        send(broker, producer, 1, "z" * length)
        producer.commit(1)
        assert committed(broker) == Committed(1, "z" * length)
    else:
        with pytest.raises(AbortRequired):
            send(broker, producer, 1, "z" * length)


@pytest.mark.parametrize("record", [OutRecord("missing", b"k", b"v"), OutRecord("t", b"k", bytes(1_048_576))])
def test_a_refused_record_is_named_and_dooms_its_transaction(broker: MemoryBroker, record: OutRecord) -> None:
    producer = started(broker)
    producer.begin()
    producer.append([record, RECORD], watch=True)
    (failure,) = producer.wait_acks(1).failures
    assert failure.record == record
    assert isinstance(failure.error, RecordRefused)
    with pytest.raises(AbortRequired):
        producer.commit(1)
    producer.abort(1)
    assert broker.records("t") == []
    producer.begin()
    producer.append([RECORD])
    producer.commit(1)
    assert len(broker.records("t")) == 1


def test_watched_records_report_the_highest_offset_of_their_partition(broker: MemoryBroker) -> None:
    producer = started(broker)
    producer.begin()
    producer.append([RECORD, RECORD], watch=True)
    producer.append([OutRecord("u", b"k", b"v")])
    assert producer.wait_acks(1).offsets == {P0: 1}


def test_an_empty_transaction_leaves_no_trace(broker: MemoryBroker) -> None:
    producer = started(broker)
    producer.begin()
    producer.commit(1)
    producer.begin()
    producer.abort(1)
    assert broker.admin().end_offsets([P0]) == {P0: 0}


def test_calls_out_of_order_are_refused(broker: MemoryBroker) -> None:
    producer = broker.transactional_producer("x")
    with pytest.raises(ProducerFatal):
        producer.begin()
    producer.init(0)
    with pytest.raises(ProducerFatal):
        producer.append([RECORD])
    with pytest.raises(ProducerFatal):
        producer.abort(1)


def test_a_later_write_wins_over_an_older_pending_one(broker: MemoryBroker) -> None:
    first, second = started(broker, "x"), started(broker, "y")
    first.begin()
    second.begin()
    send(broker, first, 5)
    send(broker, second, 6)
    second.commit(1)
    first.commit(1)
    assert committed(broker) == Committed(6, "")
