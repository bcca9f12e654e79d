"""Frames that arrive late (librdkafka issue #5423): always noticed, and harmless after a rebuild."""

from __future__ import annotations

import pytest

from processor.broker.base import Isolation, OutRecord, TopicPartition, TransactionalProducer
from tests.contract.harness import Late, LateFrame, OtherProcess
from tests.contract.scene import PATIENCE_S, Scene
from tests.waiting import eventually


def append(writer: TransactionalProducer, where: TopicPartition, value: bytes) -> None:
    writer.append([OutRecord(where.topic, b"k", value, None, where.partition)])
    writer.wait_acks(PATIENCE_S)


def disturbed(writer: TransactionalProducer) -> bool:
    """Asked through a call: mypy takes a property that was asked before for unchanged."""
    return writer.disturbed


def hold(scene: Scene, process: OtherProcess, frame: LateFrame) -> Late:
    return process.hold(f"{scene.name}-w", frame)


@pytest.mark.parametrize("frame", [LateFrame.COMMIT, LateFrame.ABORT])
def test_a_late_end_of_a_transaction_is_noticed_and_does_no_harm_after_a_rebuild(
    scene: Scene, frame: LateFrame
) -> None:
    where = TopicPartition(scene.topic(), 0)
    process = scene.harness.process("p")
    writer = scene.writer("w", process.broker)
    writer.begin()
    append(writer, where, b"one")
    assert disturbed(writer) is False
    late = hold(scene, process, frame)
    (scene.commit if frame is LateFrame.COMMIT else scene.abort)(writer)
    assert late.caught
    assert writer.disturbed
    writer.close()
    rebuilt = scene.writer("w", process.broker)
    assert not rebuilt.disturbed
    rebuilt.begin()
    append(rebuilt, where, b"two")
    late.release()
    first = [b"one"] if frame is LateFrame.COMMIT else []
    assert scene.read(where) == first
    append(rebuilt, where, b"three")
    scene.commit(rebuilt)
    scene.becomes_visible(where, *first, b"two", b"three")


def test_without_a_rebuild_a_late_commit_shows_the_open_transaction(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    process = scene.harness.process("p")
    writer = scene.writer("w", process.broker)
    writer.begin()
    append(writer, where, b"one")
    late = hold(scene, process, LateFrame.COMMIT)
    scene.commit(writer)
    assert writer.disturbed
    writer.begin()
    append(writer, where, b"still open")
    late.release()
    scene.becomes_visible(where, b"one", b"still open")


def test_without_a_rebuild_a_late_abort_takes_records_out_of_the_open_transaction(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    process = scene.harness.process("p")
    writer = scene.writer("w", process.broker)
    writer.begin()
    append(writer, where, b"one")
    late = hold(scene, process, LateFrame.ABORT)
    scene.abort(writer)
    assert writer.disturbed
    writer.begin()
    append(writer, where, b"lost")
    late.release()
    eventually(lambda: scene.admin.end_offsets([where], Isolation.COMMITTED) == scene.admin.end_offsets([where]))
    assert scene.read(where) == []


def test_a_late_offset_is_noticed_and_does_no_harm_after_a_rebuild(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    process = scene.harness.process("p")
    member = scene.member([where.topic])
    scene.serve([member], lambda: member.owned)
    writer = scene.writer("w", process.broker)
    writer.begin()
    late = hold(scene, process, LateFrame.OFFSETS)
    scene.offset(writer, where, 100, member.membership)
    scene.commit(writer)
    assert late.caught
    assert writer.disturbed
    assert scene.committed(where).offset == 100
    writer.close()
    rebuilt = scene.writer("w", process.broker)
    rebuilt.begin()
    scene.offset(rebuilt, where, 150, member.membership)
    late.release()
    scene.commit(rebuilt)
    assert scene.committed(where).offset == 150


def test_without_a_rebuild_a_late_offset_moves_the_offset_back(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    process = scene.harness.process("p")
    member = scene.member([where.topic])
    scene.serve([member], lambda: member.owned)
    writer = scene.writer("w", process.broker)
    writer.begin()
    late = hold(scene, process, LateFrame.OFFSETS)
    scene.offset(writer, where, 100, member.membership)
    scene.commit(writer)
    assert writer.disturbed
    writer.begin()
    scene.offset(writer, where, 150, member.membership)
    late.release()
    scene.commit(writer)
    assert scene.committed(where).offset == 100


def test_every_disturbance_is_noticed_also_when_it_repeats(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    process = scene.harness.process("p")
    writer = scene.writer("w", process.broker)
    for number in range(3):
        writer.begin()
        append(writer, where, b"%d" % number)
        late = hold(scene, process, LateFrame.COMMIT)
        scene.commit(writer)
        assert late.caught
        assert disturbed(writer) is True
        writer.begin()
        assert disturbed(writer) is False
        scene.abort(writer)
    scene.becomes_visible(where, b"0", b"1", b"2")


def test_an_undisturbed_producer_is_never_called_disturbed(scene: Scene) -> None:
    where = TopicPartition(scene.topic(), 0)
    writer = scene.writer("w")
    for number in range(20):
        writer.begin()
        append(writer, where, b"%d" % number)
        scene.commit(writer)
        assert not writer.disturbed
