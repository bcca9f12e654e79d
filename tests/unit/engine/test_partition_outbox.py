"""The outbox of one number: what it counts, what a failed flush puts back, what can be taken back."""

from __future__ import annotations

from processor.broker.base import OutRecord
from processor.clock import ManualClock
from processor.core.live import step_key
from processor.core.write_set import SavedOut, WriteSet
from processor.engine.partition_outbox import OutboxLoad, PartitionOutbox
from processor.wire.records import CheckpointRecord


def record(name: str, size: int = 10) -> OutRecord:
    return OutRecord("topic", name.encode(), b"x" * size)


def saved(job_id: str, size: int = 10) -> SavedOut:
    what = CheckpointRecord(job_id, 1, 0, 1, 1, 0, "lane", 0, 0)
    return SavedOut(OutRecord("checkpoints", job_id.encode(), b"x" * size), what)


def outbox() -> PartitionOutbox[str, str]:
    return PartitionOutbox(OutboxLoad(ManualClock()))


def load(box: PartitionOutbox[str, str]) -> tuple[int, int, int, int]:
    counts = box.load
    return counts.records, counts.size, counts.flushed_records, counts.flushed_size


def test_it_counts_records_and_bytes_of_whatever_is_put_in() -> None:
    box = outbox()
    box.create(record("a"), record("b", 5))
    box.save(saved("j", 7))
    box.announce(record("s", 1))
    assert load(box)[:2] == (4, 23)
    box.add(WriteSet([record("c")], [saved("k")], [record("t")], [b"k"]), [record("child")])
    assert load(box)[:2] == (8, 63) == box.held()
    box.announce(OutRecord("topic", b"tombstone", None))
    assert box.held() == (9, 63)


def test_what_is_in_a_flush_counts_until_it_is_committed() -> None:
    box = outbox()
    box.create(record("a"))
    box.freeze()
    box.load.freeze([])
    assert load(box) == (0, 0, 1, 10)
    box.announce(record("b", 3))
    assert load(box) == (1, 3, 1, 10)
    box.load.committed()
    assert load(box) == (1, 3, 0, 0)


def test_a_failed_flush_counts_again_with_its_bytes() -> None:
    box = outbox()
    box.create(record("a"))
    contents = box.freeze()
    box.load.freeze([])
    assert box.load.oldest_at is None
    box.put_back(contents)
    box.load.put_back()
    assert load(box) == (1, 10, 0, 0) == (*box.held(), 0, 0)
    assert box.load.oldest_at is not None


def test_an_outbox_that_cannot_be_flushed_now_goes_on_counting() -> None:
    ours, theirs = outbox(), outbox()
    theirs.load = ours.load
    ours.create(record("a"))
    theirs.create(record("b", 4))
    ours.freeze()
    ours.load.freeze([theirs.held()])
    assert load(ours) == (1, 4, 1, 10)
    assert ours.load.oldest_at is not None


def test_a_failed_flush_goes_to_the_front_in_its_order() -> None:
    box = outbox()
    for name in ("a", "b"):
        box.create(record(name))
        box.announce(record(f"{name} ends"))
        box.save(saved(name))
        box.syncs.append(name)
        box.ending[name] = name
    contents = box.freeze()
    assert not box
    assert box.ending == {}
    box.create(record("c"))
    box.announce(record("c ends"))
    box.save(saved("c"))
    box.syncs.append("c")
    box.ending["b"] = "b again"
    box.put_back(contents)
    assert [r.key for r in box.creates] == [b"a", b"b", b"c"]
    assert [r.key for r in box.announces] == [b"a ends", b"b ends", b"c ends"]
    assert [s.record.id for s in box.saves] == ["a", "b", "c"]
    assert box.syncs == ["a", "b", "c"]
    assert box.ending == {"a": "a", "b": "b again"}  # what is known since is newer


def test_a_roll_back_takes_what_came_since_and_counts_it_no_more() -> None:
    box = outbox()
    box.create(record("a"))
    mark = box.mark()
    box.add(WriteSet([record("b")], [saved("j")], [record("s")]))
    box.roll_back(mark)
    assert [r.key for r in box.creates] == [b"a"]
    assert (box.saves, box.announces) == ([], [])
    assert load(box)[:2] == (1, 10)


def test_nothing_of_a_job_that_was_given_up_is_saved() -> None:
    box = outbox()
    for job_id in ("gone", "stays", "gone"):
        box.save(saved(job_id))
    box.drop_saves("gone")
    assert [s.record.id for s in box.saves] == ["stays"]
    assert load(box)[:2] == (1, 10)


def test_a_key_that_is_written_anew_is_not_buried() -> None:
    box = outbox()
    box.bury([b"j", b"k"])
    box.later.append(b"l")
    box.save(saved("j"))
    box.keep_from_burial({b"l"})
    contents = box.freeze()
    assert contents.burials == [b"k"]
    assert contents.later == []


def test_steps_are_buried_once_however_often_the_flush_fails() -> None:
    box = outbox()
    box.step_burials.append(("j", "load"))
    box.bury([b"k"])
    first = box.freeze()
    assert first.burials == [b"k", step_key("j", "load")]
    box.put_back(first)
    assert box.freeze().burials == first.burials


def test_a_wish_for_a_flush_needs_no_record() -> None:
    clock = ManualClock()
    counts = OutboxLoad(clock)
    counts.request_flush()
    since = counts.oldest_at
    assert (since, counts.urgent) == (clock.monotonic(), False)
    clock.advance(1)
    counts.request_flush(urgent=True)
    counts.request_flush()
    assert (counts.oldest_at, counts.urgent) == (since, True)
    counts.freeze([])
    assert (counts.oldest_at, counts.urgent) == (None, False)
