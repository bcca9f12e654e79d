"""Faults of the memory broker. The late frames do what was measured on Kafka 4.4 with librdkafka 2.16, no less."""

from __future__ import annotations

import threading

import pytest

from processor.broker.base import Batch, Committed, OffsetCommit, OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import AdvancingWait, Frame, MemoryBroker, MemoryLimits, ProcessKilled
from processor.broker.memory.producer import MemoryTransactionalProducer
from processor.clock import ManualClock
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerUnavailable,
    ProducerFatal,
    RecordRefused,
    RetriableBrokerError,
)

P0 = TopicPartition("lane", 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    made = MemoryBroker(clock, AdvancingWait(clock), limits=MemoryLimits(delivery_seconds=5, buffered_records=3))
    made.admin().create_topics([TopicSpec(name=name, partitions=1) for name in ("lane", "retry", "checkpoint")])
    return made


@pytest.fixture
def producer(broker: MemoryBroker) -> MemoryTransactionalProducer:
    return started(broker)


def started(broker: MemoryBroker) -> MemoryTransactionalProducer:
    made = broker.transactional_producer("x")
    made.init(0)
    return made


def write(producer: MemoryTransactionalProducer, topic: str, value: bytes) -> None:
    producer.append([OutRecord(topic, b"k", value)])


def send(broker: MemoryBroker, producer: MemoryTransactionalProducer, offset: int) -> None:
    producer.send_offsets([OffsetCommit(P0, offset)], "g", broker.group_consumer("g").membership(), 1)


def offset(broker: MemoryBroker) -> int | None:
    return broker.admin().committed("g", [P0], timeout=1)[P0].offset


def visible(broker: MemoryBroker, topic: str) -> list[bytes | None]:
    return [record.value() for record in broker.records(topic)]


def test_a_late_commit_frame_shows_the_next_transaction_half_written(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    frame = broker.faults.hold_next("x", Frame.COMMIT)
    producer.begin()
    write(producer, "lane", b"1")
    before = producer.disturbed
    producer.commit(1)
    assert (before, producer.disturbed) == (False, True)
    producer.begin()
    write(producer, "lane", b"2a")
    assert frame.release()
    assert visible(broker, "lane") == [b"1", b"2a"]
    write(producer, "lane", b"2b")
    with pytest.raises(ProducerFatal):
        producer.abort(1)
    assert visible(broker, "lane") == [b"1", b"2a"]


def test_a_late_abort_frame_loses_a_copy_whose_tombstone_and_offset_commit(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    frame = broker.faults.hold_next("x", Frame.ABORT)
    producer.begin()
    write(producer, "checkpoint", b"1")
    send(broker, producer, 1)
    producer.abort(1)
    producer.begin()
    write(producer, "retry", b"copy")
    assert frame.release()
    write(producer, "checkpoint", b"tombstone")
    send(broker, producer, 2)
    producer.commit(1)
    assert (visible(broker, "retry"), visible(broker, "checkpoint")) == ([], [b"tombstone"])
    assert offset(broker) == 2


def test_a_late_offset_frame_moves_an_offset_back(broker: MemoryBroker, producer: MemoryTransactionalProducer) -> None:
    frame = broker.faults.hold_next("x", Frame.OFFSETS)
    producer.begin()
    send(broker, producer, 100)
    producer.commit(1)
    assert offset(broker) == 100
    producer.begin()
    send(broker, producer, 150)
    assert frame.release()
    producer.commit(1)
    assert offset(broker) == 100


@pytest.mark.parametrize("kind", list(Frame))
def test_late_frames_of_an_older_epoch_do_nothing(
    broker: MemoryBroker, producer: MemoryTransactionalProducer, kind: Frame
) -> None:
    frame = broker.faults.hold_next("x", kind)
    producer.begin()
    send(broker, producer, 1)
    if kind is Frame.ABORT:
        producer.abort(1)
    else:
        producer.commit(1)
    again = started(broker)
    again.begin()
    write(again, "lane", b"a")
    send(broker, again, 2)
    assert not frame.release()
    write(again, "lane", b"b")
    again.commit(1)
    assert visible(broker, "lane") == [b"a", b"b"]
    assert offset(broker) == 2


@pytest.mark.parametrize("kind", [Frame.COMMIT, Frame.OFFSETS])
def test_late_frames_between_two_transactions_do_nothing(
    broker: MemoryBroker, producer: MemoryTransactionalProducer, kind: Frame
) -> None:
    frame = broker.faults.hold_next("x", kind)
    producer.begin()
    send(broker, producer, 1)
    producer.commit(1)
    frame.release()
    producer.begin()
    send(broker, producer, 2)
    producer.commit(1)
    assert offset(broker) == 2


def test_a_frame_is_released_once_and_only_when_caught(broker: MemoryBroker) -> None:
    frame = broker.faults.hold_next("x", Frame.COMMIT)
    assert not frame.caught
    with pytest.raises(ValueError, match="no held frame"):
        frame.release()


def test_held_markers_keep_an_answered_commit_invisible(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    markers = broker.faults.hold_markers("x")
    producer.begin()
    write(producer, "lane", b"1")
    send(broker, producer, 1)
    producer.commit(1)
    assert visible(broker, "lane") == []
    with pytest.raises(RetriableBrokerError):
        offset(broker)
    producer.begin()
    write(producer, "lane", b"2")
    with pytest.raises(RetriableBrokerError):
        producer.commit(1)
    markers.release()
    producer.commit(1)
    assert visible(broker, "lane") == [b"1", b"2"]
    assert offset(broker) == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_that_failed_in_passing_is_called_again(
    broker: MemoryBroker, producer: MemoryTransactionalProducer, after: bool
) -> None:
    broker.faults.fail_next("commit", RetriableBrokerError("timed out"), after=after)
    producer.begin()
    write(producer, "lane", b"1")
    with pytest.raises(RetriableBrokerError):
        producer.commit(1)
    assert visible(broker, "lane") == ([b"1"] if after else [])
    with pytest.raises(ProducerFatal):
        producer.abort(1)
    producer.commit(1)
    assert visible(broker, "lane") == [b"1"]


def test_a_planned_abort_required_dooms_the_transaction(
    broker: MemoryBroker, producer: MemoryTransactionalProducer
) -> None:
    broker.faults.fail_next("send_offsets", AbortRequired("planned"), transactional_id="x")
    producer.begin()
    with pytest.raises(AbortRequired):
        send(broker, producer, 1)
    with pytest.raises(AbortRequired):
        producer.commit(1)
    producer.abort(1)


def test_planned_errors_hit_only_their_process(broker: MemoryBroker) -> None:
    broker.faults.fail_next("fetch", BrokerUnavailable("planned"), process="b", times=2)
    assert broker.reader().fetch(1, 0) == Batch((), (), ())
    other = broker.process("b").reader()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            other.fetch(1, 0)
    other.fetch(1, 0)


def test_an_outage_loses_nothing(broker: MemoryBroker, producer: MemoryTransactionalProducer) -> None:
    producer.begin()
    write(producer, "lane", b"1")
    broker.faults.outage(True)
    write(producer, "lane", b"2")
    for call in (producer.wait_acks, producer.commit):
        with pytest.raises(RetriableBrokerError):
            call(1)
    with pytest.raises(BrokerUnavailable):
        broker.admin().cluster()
    assert broker.reader().fetch(1, 1) == Batch((), (), ())
    assert producer.disturbed
    broker.faults.outage(False)
    producer.commit(1)
    assert visible(broker, "lane") == [b"1", b"2"]
    assert producer.disturbed
    producer.begin()
    assert not producer.disturbed


def test_a_plain_producer_holds_records_through_an_outage_but_not_for_ever(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    reports: list[BrokerError | None] = []
    plain = broker.producer()
    broker.faults.outage(True)
    plain.append(OutRecord("lane", b"k", b"lost"), reports.append)
    clock.advance(3)
    plain.append(OutRecord("lane", b"k", b"kept"), reports.append)
    assert plain.flush(2.5) == 1
    broker.faults.outage(False)
    assert plain.flush(1) == 0
    assert [type(report) for report in reports] == [BrokerUnavailable, type(None)]
    assert visible(broker, "lane") == [b"kept"]


def test_a_full_buffer_makes_append_wait(broker: MemoryBroker, clock: ManualClock) -> None:
    plain = broker.producer()
    broker.faults.outage(True)
    before = clock.monotonic()
    for number in range(4):
        plain.append(OutRecord("lane", b"k", b"%d" % number))
    assert clock.monotonic() - before == pytest.approx(5, abs=0.1)


def test_refused_topics_take_no_records(broker: MemoryBroker, producer: MemoryTransactionalProducer) -> None:
    broker.faults.refuse("lane")
    producer.begin()
    producer.append([OutRecord("lane", b"k", b"v")], watch=True)
    assert isinstance(producer.wait_acks(1).failures[0].error, RecordRefused)
    producer.abort(1)
    broker.faults.refuse("lane", False)
    producer.begin()
    write(producer, "lane", b"v")
    producer.commit(1)


@pytest.mark.parametrize(("buffered", "left"), [(False, [b"1"]), (True, [])])
def test_a_kill_loses_what_was_only_buffered(broker: MemoryBroker, buffered: bool, left: list[bytes]) -> None:
    broker.faults.buffer_appends(buffered)
    process = broker.process("a")
    plain = process.producer()
    plain.append(OutRecord("lane", b"k", b"1"))
    process.kill()
    with pytest.raises(ProcessKilled):
        plain.flush(0)
    assert visible(broker, "lane") == left


def test_a_kill_reaches_a_call_that_waits() -> None:
    broker = MemoryBroker()
    broker.admin().create_topics([TopicSpec(name="lane", partitions=1)])
    process = broker.process("a")
    reader = process.reader()
    reader.assign({P0: 0})
    reader.fetch(1, 0)
    ended: list[BaseException] = []

    def fetch() -> None:
        try:
            reader.fetch(1, 60)
        except ProcessKilled as error:
            ended.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    process.kill()
    thread.join(10)
    assert len(ended) == 1


def test_a_waiting_fetch_wakes_when_something_is_written() -> None:
    broker = MemoryBroker()
    broker.admin().create_topics([TopicSpec(name="lane", partitions=1)])
    reader = broker.reader()
    reader.assign({P0: 0})
    reader.fetch(1, 0)
    got: list[Batch] = []
    thread = threading.Thread(target=lambda: got.append(reader.fetch(1, 60)))
    thread.start()
    broker.producer().append(OutRecord("lane", b"k", b"v"))
    thread.join(10)
    assert [record.value() for record in got[0].records] == [b"v"]


def test_a_frozen_process_waits_in_its_calls_until_it_is_thawed() -> None:
    broker = MemoryBroker()
    process = broker.process("a")
    process.freeze()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(process.admin().cluster().brokers))
    thread.start()
    assert got == []
    process.thaw()
    thread.join(10)
    assert got == [1]


def test_committed_offsets_can_be_forgotten(broker: MemoryBroker, producer: MemoryTransactionalProducer) -> None:
    producer.begin()
    send(broker, producer, 3)
    producer.commit(1)
    broker.faults.forget_offsets("g")
    assert broker.admin().committed("g", [P0]) == {P0: Committed(None, "")}
