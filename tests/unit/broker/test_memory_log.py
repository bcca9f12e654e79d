"""Partitions of the memory broker: visibility, offsets with gaps, ends, deletion, compaction."""

from __future__ import annotations

import pytest

from processor.broker.base import Batch, End, Isolation, OutRecord, Reader, TopicPartition, TopicSpec
from processor.broker.memory import MemoryBroker
from processor.broker.memory.producer import MemoryTransactionalProducer
from processor.clock import ManualClock
from processor.errors import BrokerError, OffsetOutOfRange, RecordRefused

P0 = TopicPartition("t", 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    made = MemoryBroker(clock)
    made.admin().create_topics([TopicSpec(name="t", partitions=1)])
    return made


def started(broker: MemoryBroker, name: str = "x") -> MemoryTransactionalProducer:
    producer = broker.transactional_producer(name)
    producer.init(0)
    return producer


def put(broker: MemoryBroker, *values: bytes, key: bytes | None = None) -> None:
    producer = broker.producer()
    for value in values:
        producer.append(OutRecord("t", key, value))
    assert producer.flush(0) == 0


def reading(broker: MemoryBroker, start: int = 0, isolation: Isolation = Isolation.COMMITTED) -> Reader:
    reader = broker.reader(isolation=isolation)
    reader.assign({P0: start})
    return reader


def values(batch: Batch) -> list[bytes | None]:
    return [record.value() for record in batch.records]


def test_records_are_read_as_they_were_written(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.producer().append(OutRecord("t", b"k", b"v", [("a", b"1")]))
    record = reading(broker).fetch(10, 0).records[0]
    assert (record.topic(), record.partition(), record.offset()) == ("t", 0, 0)
    assert (record.key(), record.value(), record.headers()) == (b"k", b"v", [("a", b"1")])
    assert record.timestamp() == (1, clock.now_ms())


def test_log_append_time_marks_the_timestamp_as_the_brokers(broker: MemoryBroker) -> None:
    broker.admin().set_topic_config("t", {"message.timestamp.type": "LogAppendTime"})
    put(broker, b"v")
    assert broker.records("t")[0].timestamp()[0] == 2


def test_an_open_transaction_hides_what_lies_behind_it(broker: MemoryBroker) -> None:
    producer = started(broker)
    producer.begin()
    producer.append([OutRecord("t", None, b"open")])
    put(broker, b"behind")
    reader = reading(broker)
    assert reader.fetch(10, 0) == Batch([], [End(P0, 0)], [])
    assert values(reading(broker, isolation=Isolation.UNCOMMITTED).fetch(10, 0)) == [b"open", b"behind"]
    assert broker.admin().end_offsets([P0]) == {P0: 2}
    assert broker.admin().end_offsets([P0], Isolation.COMMITTED) == {P0: 0}
    producer.commit(0)
    batch = reader.fetch(10, 0)
    assert values(batch) == [b"open", b"behind"]
    assert batch.ends == [End(P0, 3)]


def test_aborted_records_stay_but_are_seen_only_uncommitted(broker: MemoryBroker) -> None:
    producer = started(broker)
    producer.begin()
    producer.append([OutRecord("t", None, b"gone")])
    producer.abort(0)
    put(broker, b"stays")
    assert values(reading(broker).fetch(10, 0)) == [b"stays"]
    assert values(reading(broker, isolation=Isolation.UNCOMMITTED).fetch(10, 0)) == [b"gone", b"stays"]


def test_a_marker_takes_one_offset_per_partition_and_transaction(broker: MemoryBroker) -> None:
    producer = started(broker)
    for _ in range(2):
        producer.begin()
        producer.append([OutRecord("t", None, b"a"), OutRecord("t", None, b"b")])
        producer.commit(0)
    assert [record.offset() for record in broker.records("t")] == [0, 1, 3, 4]
    assert broker.admin().end_offsets([P0]) == {P0: 6}


def test_end_is_said_once_and_again_after_something_new(broker: MemoryBroker) -> None:
    reader = reading(broker)
    assert reader.fetch(10, 0).ends == [End(P0, 0)]
    assert reader.fetch(10, 0) == Batch((), (), ())
    put(broker, b"a")
    batch = reader.fetch(10, 0)
    assert (values(batch), batch.ends) == ([b"a"], [End(P0, 1)])
    assert reader.fetch(10, 0) == Batch((), (), ())


def test_position_grows_past_markers_and_aborted_records(broker: MemoryBroker) -> None:
    producer = started(broker)
    producer.begin()
    producer.append([OutRecord("t", None, b"gone")])
    producer.abort(0)
    reader = reading(broker)
    assert reader.position(P0) == 0
    assert reader.fetch(10, 0).ends == [End(P0, 2)]
    assert reader.position(P0) == 2


def test_limit_bounds_a_fetch_and_an_end_never_overtakes_a_record(broker: MemoryBroker) -> None:
    put(broker, b"a", b"b", b"c")
    reader = reading(broker)
    first = reader.fetch(2, 0)
    assert (values(first), first.ends, reader.position(P0)) == ([b"a", b"b"], [], 2)
    second = reader.fetch(1, 0)
    assert (values(second), second.ends) == ([b"c"], [])
    assert reader.fetch(1, 0).ends == [End(P0, 3)]


def test_a_deep_partition_starves_no_other(broker: MemoryBroker) -> None:
    broker.admin().add_partitions("t", 2)
    producer = broker.producer()
    for number in range(10):
        producer.append(OutRecord("t", None, b"%d" % number, None, 0))
    producer.append(OutRecord("t", None, b"other", None, 1))
    reader = broker.reader()
    reader.assign({P0: 0, TopicPartition("t", 1): 0})
    assert b"other" in values(reader.fetch(3, 0)) + values(reader.fetch(3, 0))


def test_paused_partitions_deliver_nothing(broker: MemoryBroker) -> None:
    put(broker, b"a")
    reader = reading(broker)
    reader.pause([P0])
    assert reader.fetch(10, 0) == Batch((), (), ())
    reader.resume([P0])
    assert values(reader.fetch(10, 0)) == [b"a"]


def test_partitions_are_assigned_once_and_dropped_once(broker: MemoryBroker) -> None:
    reader = reading(broker)
    with pytest.raises(BrokerError):
        reader.assign({P0: 0})
    reader.unassign([P0])
    with pytest.raises(BrokerError):
        reader.unassign([P0])


@pytest.mark.parametrize("start", [0, 9])
def test_an_offset_outside_the_log_is_a_fault_of_its_partition(broker: MemoryBroker, start: int) -> None:
    put(broker, b"a", b"b", b"c")
    broker.admin().delete_records({P0: 2})
    assert broker.admin().begin_offsets([P0]) == {P0: 2}
    reader = reading(broker, start)
    (fault,) = reader.fetch(10, 0).faults
    assert fault.partition == P0
    assert isinstance(fault.error, OffsetOutOfRange)
    assert reader.fetch(10, 0) == Batch((), (), ())


def test_records_cannot_be_deleted_past_the_end_nor_from_a_compacted_topic(broker: MemoryBroker) -> None:
    admin = broker.admin()
    with pytest.raises(OffsetOutOfRange):
        admin.delete_records({P0: 1})
    admin.set_topic_config("t", {"cleanup.policy": "compact"})
    with pytest.raises(BrokerError, match="POLICY_VIOLATION"):
        admin.delete_records({P0: 0})


def test_compaction_keeps_the_last_committed_record_of_each_key(broker: MemoryBroker) -> None:
    put(broker, b"1", b"2", key=b"a")
    put(broker, b"1", key=b"b")
    producer = started(broker)
    producer.begin()
    producer.append([OutRecord("t", b"b", b"aborted")])
    producer.abort(0)
    broker.compact("t")
    assert [(r.offset(), r.key(), r.value()) for r in broker.records("t")] == [(1, b"a", b"2"), (2, b"b", b"1")]
    assert len(broker.records("t", Isolation.UNCOMMITTED)) == 2
    assert broker.admin().end_offsets([P0]) == {P0: 5}
    assert broker.admin().begin_offsets([P0]) == {P0: 0}
    assert reading(broker).fetch(10, 0).ends == [End(P0, 5)]


def test_compaction_stops_at_the_last_stable_offset(broker: MemoryBroker) -> None:
    put(broker, b"1", key=b"a")
    producer = started(broker)
    producer.begin()
    producer.append([OutRecord("t", b"a", b"2")])
    broker.compact("t")
    assert [r.value() for r in broker.records("t", Isolation.UNCOMMITTED)] == [b"1", b"2"]
    producer.commit(0)
    broker.compact("t")
    assert [r.value() for r in broker.records("t")] == [b"2"]


def test_tombstones_survive_until_they_are_dropped_on_purpose(broker: MemoryBroker) -> None:
    put(broker, b"1", key=b"a")
    broker.producer().append(OutRecord("t", b"a", None))
    broker.compact("t")
    assert [r.value() for r in broker.records("t")] == [None]
    broker.compact("t", drop_tombstones=True)
    assert broker.records("t") == []


def test_retention_drops_what_is_old(broker: MemoryBroker, clock: ManualClock) -> None:
    broker.admin().set_topic_config("t", {"retention.ms": "60000"})
    put(broker, b"old")
    clock.advance(50)
    put(broker, b"young")
    clock.advance(20)
    broker.expire("t")
    assert [r.value() for r in broker.records("t")] == [b"young"]
    assert broker.admin().begin_offsets([P0]) == {P0: 1}


def test_retention_leaves_a_compacted_topic_alone(broker: MemoryBroker, clock: ManualClock) -> None:
    put(broker, b"old", key=b"a")
    broker.admin().set_topic_config("t", {"cleanup.policy": "compact", "retention.ms": "1"})
    clock.advance(50)
    broker.expire("t")
    assert len(broker.records("t")) == 1


@pytest.mark.parametrize(
    "record",
    [
        OutRecord("missing", b"k", b"v"),
        OutRecord("t", b"k", bytes(1_048_576)),
        OutRecord("t", b"k", b"v", None, 5),
    ],
)
def test_a_plain_producer_reports_what_can_never_be_written(broker: MemoryBroker, record: OutRecord) -> None:
    reports: list[BrokerError | None] = []
    producer = broker.producer()
    producer.append(record, reports.append)
    producer.append(OutRecord("t", b"k", b"fine"), reports.append)
    assert producer.flush(0) == 0
    assert isinstance(reports[0], RecordRefused)
    assert reports[1:] == [None]
    assert "missing" not in broker.admin().topics()


def test_a_compacted_topic_refuses_records_without_a_key(broker: MemoryBroker) -> None:
    broker.admin().set_topic_config("t", {"cleanup.policy": "compact"})
    reports: list[BrokerError | None] = []
    producer = broker.producer()
    producer.append(OutRecord("t", None, b"v"), reports.append)
    producer.poll(0)
    assert isinstance(reports[0], RecordRefused)


def test_topics_are_described_as_they_were_made(broker: MemoryBroker) -> None:
    admin = broker.admin()
    admin.create_topics([TopicSpec(name="t", partitions=9), TopicSpec(name="u", partitions=3, config={"x": "y"})])
    assert admin.topics(["t", "absent"])["t"].partitions == 1
    assert set(admin.topics()) == {"t", "u"}
    assert admin.topics(["u"], configs=True)["u"].config == {"x": "y"}
    assert admin.topics(["u"])["u"].config == {}
    with pytest.raises(BrokerError):
        admin.add_partitions("u", 3)
    with pytest.raises(BrokerError):
        admin.end_offsets([TopicPartition("u", 7)])
