"""Appending and reading outside of transactions."""

from __future__ import annotations

import random
import threading
import time

import pytest

from processor.broker.base import Isolation, OutRecord, TopicPartition
from processor.errors import BrokerError, OffsetOutOfRange, RecordRefused
from tests.contract.harness import FILLER
from tests.contract.scene import PATIENCE_S, Scene
from tests.waiting import eventually

# The vectors of Kafka's own UtilsTest.testMurmur2 (Java, signed 32 bit).
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def test_a_record_comes_back_as_it_was_appended(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    before = time.time_ns() // 1_000_000
    scene.append(OutRecord(where.topic, b"key", b"value", [("a", b"1"), ("b", b"")], 0))
    reading = scene.reading(where)
    eventually(lambda: reading.records, step=reading.step)
    (record,) = reading.records
    assert (record.topic(), record.partition(), record.offset()) == (where.topic, 0, 0)
    assert (record.key(), record.value(), record.headers()) == (b"key", b"value", [("a", b"1"), ("b", b"")])
    kind, at = record.timestamp()
    assert kind == 1
    assert before - 60_000 < at < before + 60_000


def test_keys_tombstones_and_headers_may_be_missing(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    scene.append(OutRecord(where.topic, None, None))
    reading = scene.reading(where)
    eventually(lambda: reading.records, step=reading.step)
    assert reading.records[0].key() is None
    assert reading.records[0].value() is None
    assert not reading.records[0].headers()


def test_the_broker_sets_the_time_where_the_topic_says_so(scene: Scene) -> None:
    where = TopicPartition(scene.topic(message_timestamp_type="LogAppendTime"), 0)
    scene.fill(where, b"x")
    reading = scene.reading(where)
    eventually(lambda: reading.records, step=reading.step)
    assert reading.records[0].timestamp()[0] == 2


def test_a_key_goes_to_the_partition_that_java_gives_it(scene: Scene) -> None:
    topic = scene.topic(partitions=7)
    scene.append(*(OutRecord(topic, key, b"v") for key in MURMUR2))
    reading = scene.reading(*(TopicPartition(topic, number) for number in range(7)))
    eventually(lambda: len(reading.records) == len(MURMUR2), step=reading.step)
    found = {record.key(): record.partition() for record in reading.records}
    assert found == {key: (digest & 0x7FFFFFFF) % 7 for key, digest in MURMUR2.items()}


def test_transactions_use_the_same_partitioner(scene: Scene) -> None:
    topic = scene.topic(partitions=7)
    writer = scene.writer("w")
    writer.begin()
    writer.append([OutRecord(topic, key, b"v") for key in MURMUR2], watch=True)
    acks = writer.wait_acks(PATIENCE_S)
    scene.commit(writer)
    assert set(acks.offsets) == {TopicPartition(topic, (digest & 0x7FFFFFFF) % 7) for digest in MURMUR2.values()}


def test_an_explicit_partition_wins_over_the_key(scene: Scene) -> None:
    topic = scene.topic(partitions=3)
    for number in range(3):
        scene.append(OutRecord(topic, b"same", b"%d" % number, None, number))
        assert scene.read(TopicPartition(topic, number)) == [b"%d" % number]


def test_delivery_is_told_once_the_record_is_acknowledged(scene: Scene) -> None:
    topic = scene.topic()
    producer = scene.broker.producer()
    told: list[BrokerError | None] = []
    producer.append(OutRecord(topic, b"k", b"v"), told.append)
    eventually(lambda: told, step=lambda: producer.poll(0.05))
    assert told == [None]
    producer.close()


def test_a_record_that_can_never_be_written_is_told_as_refused(scene: Scene) -> None:
    topic = scene.topic()
    producer = scene.broker.producer()
    told: dict[str, BrokerError | None] = {}
    # Random: what counts is the size after compression.
    large = random.Random(7).randbytes(2_000_000)
    producer.append(OutRecord(topic, b"k", large), lambda error: told.update(large=error))
    producer.append(OutRecord(f"{scene.name}.nowhere", b"k", b"v"), lambda error: told.update(unknown=error))
    eventually(lambda: len(told) == 2, PATIENCE_S, step=lambda: producer.poll(0.05))
    assert isinstance(told["large"], RecordRefused)
    assert isinstance(told["unknown"], RecordRefused)
    producer.append(OutRecord(topic, b"k", b"v"), lambda error: told.update(good=error))
    eventually(lambda: "good" in told, step=lambda: producer.poll(0.05))
    assert told["good"] is None
    producer.close()


def test_a_producer_serves_many_threads(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    producer = scene.broker.producer()

    def append() -> None:
        for number in range(50):
            producer.append(OutRecord(where.topic, None, b"%d" % number, None, 0))

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert producer.flush(PATIENCE_S) == 0
    producer.close()
    assert scene.admin.end_offsets([where]) == {where: 200}


def test_fetch_gives_up_to_its_limit_in_order(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    scene.fill(where, *(b"%d" % number for number in range(30)))
    reading = scene.reading(where)
    while len(reading.records) < 30:
        before = len(reading.records)
        reading.step(5.0, limit=7)
        assert 0 < len(reading.records) - before <= 7
    assert [record.offset() for record in reading.records] == list(range(30))


def test_fetch_returns_with_the_first_record(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    reading = scene.reading(where)
    eventually(lambda: reading.end(where) == 0, step=reading.step)
    timer = threading.Timer(0.1, scene.fill, [where, b"x"])
    timer.start()
    started = time.monotonic()
    batch = reading.reader.fetch(500, 30.0)
    assert time.monotonic() - started < 15
    assert [record.value() for record in batch.records] == [b"x"]
    timer.join()


def test_fetch_of_nothing_is_empty_after_its_timeout(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    reading = scene.reading(where)
    eventually(lambda: reading.end(where) == 0, step=reading.step)
    for timeout in (0.0, 0.2):
        started = time.monotonic()
        batch = reading.reader.fetch(10, timeout)
        assert (batch.records, batch.ends, batch.faults) == ((), (), ())
        assert time.monotonic() - started >= timeout * 0.9


def test_an_end_is_told_once_for_each_end_reached(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    reading = scene.reading(where)
    eventually(lambda: reading.end(where) == 0, step=reading.step)
    scene.fill(where, b"a", b"b")
    eventually(lambda: reading.end(where) == 2, step=reading.step)
    assert reading.values() == [b"a", b"b"]
    for _ in range(3):
        reading.step(0.05)
    assert [end.offset for end in reading.ends if end.offset == 2] == [2]


def test_the_position_is_the_start_before_the_first_fetch(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    scene.fill(where, b"a", b"b", b"c")
    reading = scene.reading(where, start=2)
    assert reading.reader.position(where) == 2
    eventually(lambda: reading.end(where) == 3, step=reading.step)
    assert reading.values() == [b"c"]
    assert reading.reader.position(where) == 3


def test_partitions_are_added_and_dropped_while_others_go_on(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    scene.fill(first, b"a1", b"a2")
    scene.fill(second, b"b1", b"b2")
    reading = scene.reading(first)
    eventually(lambda: reading.end(first) == 2, step=reading.step)
    reading.reader.assign({second: 1})
    eventually(lambda: reading.end(second) == 2, step=reading.step)
    assert reading.values() == [b"a1", b"a2", b"b2"]
    reading.reader.unassign([first])
    scene.fill(first, b"a3")
    scene.fill(second, b"b3")
    eventually(lambda: reading.end(second) == 3, step=reading.step)
    assert reading.values() == [b"a1", b"a2", b"b2", b"b3"]
    with pytest.raises(BrokerError):
        reading.reader.position(first)


def test_prefetched_records_of_a_dropped_partition_are_not_delivered(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    scene.fill(where, *(b"%d" % number for number in range(100)))
    reading = scene.reading(where)
    eventually(lambda: reading.records, step=lambda: reading.step(limit=1))
    reading.reader.unassign([where])
    assert reading.reader.fetch(500, 0.3).records == ()
    reading.reader.assign({where: 50})
    reading.records.clear()
    eventually(lambda: len(reading.records) == 50, step=reading.step)
    assert reading.records[0].offset() == 50


def test_a_paused_partition_delivers_nothing_and_goes_on_where_it_was(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    held, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    scene.fill(held, b"1", b"2", b"3")
    reading = scene.reading(held, other)
    eventually(lambda: reading.records, step=lambda: reading.step(limit=1))
    reading.reader.pause([held])
    before = len(reading.records)
    scene.fill(other, b"x")
    eventually(lambda: b"x" in reading.values(), step=reading.step)
    assert len(reading.records) == before + 1
    reading.reader.resume([held])
    eventually(lambda: len(reading.records) == 4, step=reading.step)
    assert [value for value in reading.values() if value != b"x"] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("start", [0, 99])
def test_an_offset_out_of_range_is_a_fault_of_that_partition_only(scene: Scene, start: int) -> None:
    topic = scene.topic(partitions=2)
    bad, good = TopicPartition(topic, 0), TopicPartition(topic, 1)
    scene.fill(bad, b"1", b"2", b"3")
    scene.fill(good, b"x")
    scene.admin.delete_records({bad: 2})
    reading = scene.reading(good)
    reading.reader.assign({bad: start})
    eventually(lambda: reading.faults and reading.records, PATIENCE_S, step=reading.step)
    assert {fault.partition for fault in reading.faults} == {bad}
    assert isinstance(reading.faults[0].error, OffsetOutOfRange)
    assert reading.values() == [b"x"]
    reading.reader.unassign([bad])
    reading.reader.assign({bad: 2})
    eventually(lambda: b"3" in reading.values(), step=reading.step)


def test_compaction_keeps_the_last_record_of_each_key_and_leaves_gaps(scene: Scene) -> None:
    topic = scene.topic(
        cleanup_policy="compact",
        segment_ms="100",
        max_compaction_lag_ms="100",
        min_cleanable_dirty_ratio="0.01",
        delete_retention_ms="600000",
    )
    where = TopicPartition(topic, 0)
    keys = (b"a", b"b", b"a", b"c", b"b", b"a")
    scene.append(*(OutRecord(topic, key, b"%d" % at) for at, key in enumerate(keys)))
    scene.append(OutRecord(topic, b"c", None))
    scene.harness.compact(topic)
    end = scene.admin.end_offsets([where], Isolation.COMMITTED)[where]
    assert end >= 7
    reading = scene.reading(where)
    eventually(lambda: reading.end(where) == end, step=reading.step)
    kept = [(record.offset(), record.key(), record.value()) for record in reading.records if record.key() != FILLER]
    assert kept == [(4, b"b", b"4"), (5, b"a", b"5"), (6, b"c", None)]
    again = scene.reading(where, start=1)
    eventually(lambda: again.records, step=again.step)
    assert again.records[0].offset() == 4


def test_a_bulk_producer_tells_only_what_failed(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    producer = scene.broker.bulk_producer()
    for number in range(3000):
        producer.append(OutRecord(where.topic, b"k", b"%d" % number, [("name", b"n%d" % number)]))
    assert producer.flush(PATIENCE_S) == (0, [])
    producer.append(OutRecord(where.topic, b"k", b"last", [("name", b"fine")]))
    producer.append(OutRecord("no-such-topic-anywhere", b"k", b"lost", [("name", b"lost")]))
    left, refused = producer.flush(PATIENCE_S)
    assert left == 0
    assert [(record.key, record.value) for record, _ in refused] == [(b"k", b"lost")]
    assert isinstance(refused[0][1], RecordRefused)
    assert producer.flush(PATIENCE_S) == (0, [])
    producer.close()
    reading = scene.reading(where)
    eventually(lambda: len(reading.records) >= 3001, PATIENCE_S, step=reading.step)
    assert [record.value() for record in reading.records] == [*(b"%d" % n for n in range(3000)), b"last"]
