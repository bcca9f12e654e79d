"""What a transaction shows, hides and refuses."""

from __future__ import annotations

import pytest

from processor.broker.base import Isolation, OffsetCommit, OutRecord, TopicPartition
from processor.errors import AbortRequired, BrokerError, ProducerFatal, ProducerFenced, RecordRefused
from tests.contract.harness import HASTY_S
from tests.contract.scene import PATIENCE_S, Scene
from tests.waiting import eventually


def records(where: TopicPartition, *values: bytes) -> list[OutRecord]:
    return [OutRecord(where.topic, b"key", value, None, where.partition) for value in values]


def test_committed_records_are_visible_and_open_ones_are_not(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    writer = scene.writer("w")
    writer.begin()
    writer.append(records(where, b"1", b"2"))
    writer.wait_acks(PATIENCE_S)
    assert scene.read(where) == []
    assert scene.read(where, Isolation.UNCOMMITTED) == [b"1", b"2"]
    scene.commit(writer)
    scene.becomes_visible(where, b"1", b"2")
    assert not writer.disturbed


def test_an_open_transaction_hides_later_records_of_its_partition_only(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    slow, quick = scene.writer("slow"), scene.writer("quick")
    slow.begin()
    slow.append(records(first, b"slow"))
    slow.wait_acks(PATIENCE_S)
    quick.begin()
    quick.append(records(first, b"quick") + records(second, b"elsewhere"))
    scene.commit(quick)
    scene.fill(first, b"plain")
    scene.becomes_visible(second, b"elsewhere")
    assert scene.read(first) == []
    ends = scene.admin.end_offsets([first], Isolation.COMMITTED)
    assert ends == {first: 0}
    # slow, quick, quick's marker, plain
    assert scene.admin.end_offsets([first]) == {first: 4}
    scene.commit(slow)
    scene.becomes_visible(first, b"slow", b"quick", b"plain")


def test_an_end_lies_at_the_last_stable_offset_and_moves_past_markers(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    writer = scene.writer("w")
    reading = scene.reading(where)
    scene.fill(where, b"0")
    writer.begin()
    writer.append(records(where, b"1"))
    writer.wait_acks(PATIENCE_S)
    eventually(lambda: reading.end(where) == 1, step=reading.step)
    scene.commit(writer)
    eventually(lambda: reading.end(where) == 3, step=reading.step)
    assert reading.values() == [b"0", b"1"]
    assert reading.reader.position(where) == 3 == scene.admin.end_offsets([where])[where]


def test_an_abort_hides_its_records_for_good_and_positions_pass_them(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    writer = scene.writer("w")
    reading = scene.reading(where)
    writer.begin()
    writer.append(records(where, b"1", b"2"))
    writer.wait_acks(PATIENCE_S)
    scene.abort(writer)
    eventually(lambda: reading.end(where) == 3, step=reading.step)
    assert reading.values() == []
    assert reading.reader.position(where) == 3
    assert scene.read(where, Isolation.UNCOMMITTED) == [b"1", b"2"]
    scene.fill(where, b"after")
    scene.becomes_visible(where, b"after")


def test_an_aborted_transaction_is_followed_by_another(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    writer = scene.writer("w")
    writer.begin()
    writer.append(records(where, b"1"))
    scene.abort(writer)
    writer.begin()
    writer.append(records(where, b"2"))
    scene.commit(writer)
    scene.becomes_visible(where, b"2")


def test_an_empty_transaction_does_nothing(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    writer = scene.writer("w")
    for end in (scene.commit, scene.abort):
        writer.begin()
        end(writer)
    assert scene.admin.end_offsets([where]) == {where: 0}


def test_acks_tell_the_highest_offset_of_each_watched_partition(scene: Scene) -> None:
    topic = scene.topic(partitions=3)
    where = [TopicPartition(topic, number) for number in range(3)]
    writer = scene.writer("w")
    writer.begin()
    writer.append(records(where[0], b"1", b"2", b"3") + records(where[1], b"1"), watch=True)
    writer.append(records(where[2], b"1"))
    acks = writer.wait_acks(PATIENCE_S)
    assert acks.offsets == {where[0]: 2, where[1]: 0}
    assert acks.failures == ()
    writer.append(records(where[0], b"4"), watch=True)
    assert writer.wait_acks(PATIENCE_S).offsets == {where[0]: 3, where[1]: 0}
    scene.commit(writer)
    writer.begin()
    assert writer.wait_acks(PATIENCE_S).offsets == {}
    scene.abort(writer)


@pytest.mark.parametrize("bad", ["large", "unknown"])
def test_a_refused_record_is_named_and_dooms_its_transaction(scene: Scene, bad: str) -> None:
    where = TopicPartition(scene.topic(), 0)
    nowhere = TopicPartition(f"{scene.name}.nowhere", 0)
    (culprit,) = records(where, b"x" * 2_000_000) if bad == "large" else records(nowhere, b"v")
    writer = scene.writer("w")
    writer.begin()
    writer.append([*records(where, b"good"), culprit], watch=True)
    failures = writer.wait_acks(PATIENCE_S).failures
    assert [failure.record for failure in failures] == [culprit]
    assert isinstance(failures[0].error, RecordRefused)
    with pytest.raises(AbortRequired):
        writer.commit(PATIENCE_S)
    scene.abort(writer)
    again = scene.writer("w")
    again.begin()
    again.append(records(where, b"good"))
    scene.commit(again)
    scene.becomes_visible(where, b"good")


@pytest.mark.parametrize("bad", ["large", "unknown"])
def test_an_unwatched_refused_record_dooms_its_transaction_too(scene: Scene, bad: str) -> None:
    where = TopicPartition(scene.topic(), 0)
    nowhere = TopicPartition(f"{scene.name}.nowhere", 0)
    culprit = records(where, b"x" * 2_000_000) if bad == "large" else records(nowhere, b"v")
    writer = scene.writer("w")
    writer.begin()
    writer.append(culprit)
    assert writer.wait_acks(PATIENCE_S).failures == ()

    def go_on() -> None:
        writer.append(records(where, b"good"))
        writer.wait_acks(PATIENCE_S)
        writer.commit(PATIENCE_S)

    with pytest.raises(AbortRequired):
        go_on()
    scene.abort(writer)
    assert scene.read(where) == []


def test_a_successor_fences_its_predecessor_and_ends_its_transaction(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    old = scene.writer("same")
    old.begin()
    old.append(records(where, b"old"))
    old.wait_acks(PATIENCE_S)
    new = scene.writer("same")
    with pytest.raises(ProducerFenced):
        old.commit(PATIENCE_S)
    new.begin()
    new.append(records(where, b"new"))
    scene.commit(new)
    scene.becomes_visible(where, b"new")


def test_a_fenced_predecessor_cannot_append(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    old = scene.writer("same")
    scene.writer("same")
    old.begin()

    def use() -> None:
        old.append(records(where, b"old"))
        old.wait_acks(PATIENCE_S)
        old.commit(PATIENCE_S)

    with pytest.raises(ProducerFatal):
        use()
    assert scene.admin.end_offsets([where]) == {where: 0}


def test_a_dead_producers_transaction_holds_the_end_until_its_id_is_initialised(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    dead = scene.harness.process("dead")
    old = scene.writer("same", dead.broker)
    old.begin()
    old.append(records(where, b"orphan"))
    old.wait_acks(PATIENCE_S)
    dead.kill()
    scene.fill(where, b"plain")
    assert scene.read(where) == []
    scene.writer("same")
    scene.becomes_visible(where, b"plain")


def test_closing_a_producer_does_not_end_its_transaction(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    writer = scene.broker.transactional_producer(f"{scene.name}-w")
    writer.init(PATIENCE_S)
    writer.begin()
    writer.append(records(where, b"open"))
    writer.wait_acks(PATIENCE_S)
    writer.close()
    scene.fill(where, b"plain")
    assert scene.read(where) == []
    scene.writer("w")
    scene.becomes_visible(where, b"plain")


def test_a_transaction_that_stays_open_too_long_is_aborted_and_its_producer_fenced(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    writer = scene.writer("w", scene.harness.hasty)
    writer.begin()
    writer.append(records(where, b"slow"))
    writer.wait_acks(PATIENCE_S)
    scene.fill(where, b"plain")

    def stable_end() -> int:
        return scene.admin.end_offsets([where], Isolation.COMMITTED)[where]

    eventually(lambda: stable_end() == 3, PATIENCE_S + HASTY_S)
    with pytest.raises(ProducerFenced):
        writer.commit(PATIENCE_S)
    assert scene.read(where) == [b"plain"]


def test_offsets_become_committed_with_the_transaction(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    member = scene.member([where.topic])
    scene.serve([member], lambda: member.owned)
    writer = scene.writer("w")
    assert scene.committed(where) == (None, "")
    writer.begin()
    writer.send_offsets([OffsetCommit(where, 5, 'window: é{"a":1}')], scene.group, member.membership, PATIENCE_S)
    scene.commit(writer)
    assert scene.committed(where) == (5, 'window: é{"a":1}')
    writer.begin()
    scene.offset(writer, where, 3, member.membership)
    scene.commit(writer)
    assert scene.committed(where) == (3, "")
    writer.begin()
    scene.offset(writer, where, 9, member.membership)
    scene.abort(writer)
    assert scene.committed(where) == (3, "")


def test_metadata_holds_4095_bytes_and_not_one_more(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    member = scene.member([where.topic])
    scene.serve([member], lambda: member.owned)
    writer = scene.writer("w")
    writer.begin()
    writer.send_offsets([OffsetCommit(where, 1, "é" + "z" * 4093)], scene.group, member.membership, PATIENCE_S)
    scene.commit(writer)
    assert scene.committed(where).metadata == "é" + "z" * 4093
    writer.begin()
    with pytest.raises(AbortRequired):
        writer.send_offsets([OffsetCommit(where, 2, "z" * 4096)], scene.group, member.membership, PATIENCE_S)
    scene.abort(writer)
    assert scene.committed(where).offset == 1


def test_the_last_offset_sent_in_a_transaction_counts(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    member = scene.member([where.topic])
    scene.serve([member], lambda: member.owned)
    writer = scene.writer("w")
    writer.begin()
    scene.offset(writer, where, 7, member.membership)
    scene.offset(writer, where, 4, member.membership)
    scene.commit(writer)
    assert scene.committed(where).offset == 4


def test_a_pending_offset_is_unknown_to_a_stable_read_and_old_to_an_unstable_one(scene: Scene) -> None:
    topic = scene.topic(partitions=2)
    where, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    member = scene.member([topic])
    scene.serve([member], lambda: len(member.owned) == 2)
    writer = scene.writer("w")
    scene.send(writer, where, 1, member.membership)
    scene.send(writer, other, 1, member.membership)
    assert scene.committed(where).offset == 1
    writer.begin()
    scene.offset(writer, where, 2, member.membership)
    with pytest.raises(BrokerError):
        scene.admin.committed(scene.group, [where], stable=True, timeout=0.5)
    assert scene.committed(where, stable=False).offset == 1
    assert scene.committed(other).offset == 1
    scene.commit(writer)
    assert scene.committed(where).offset == 2
