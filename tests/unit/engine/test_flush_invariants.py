"""The invariants of the design about flushes: what fences them, their order, and what late frames must not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from processor.broker.base import OutRecord, TopicPartition
from processor.broker.memory import Frame, HeldMarkers, MemoryLimits
from processor.core.checkpoint import NUMBER_KEY
from processor.core.live import LiveTable
from processor.core.offset_metadata import decode
from processor.engine.config import WorkerConfig
from processor.errors import AbortRequired, BrokerError, ProducerFatal
from processor.job import Lane
from processor.states import TERMINAL, State
from processor.wire import topics
from processor.wire.codec import decode_step
from tests.unit.engine.scene import BESIDE, NS, QUEUE, Scene, saved_record
from tests.unit.engine.spy import Call, Spy
from tests.unit.engine.test_invariants import define_steps, metadata, settled_once

pytestmark = pytest.mark.usefixtures("one_queue_and_two")
CHECKPOINTS = topics.checkpoints_topic(NS, QUEUE)
STATUS = topics.status_topic(NS)
IN_TRANSACTION = ["send_offsets", "commit"]
"""Calls before which a late frame arrives: the records are in the transaction by then, or the offsets too."""


@pytest.fixture
def patient() -> Iterator[Scene]:
    """One number, and transactions that may stay open for a minute."""
    scene = Scene(
        partitions=2,
        limits=MemoryLimits(session_seconds=3.0, transaction_seconds=60.0, transaction_scan_seconds=10.0),
    )
    yield scene
    scene.close()


def moved_number(scene: Scene, stalls_at: str) -> tuple[Spy, int]:
    """A flush of `w-0` hangs for long before such a call, as when a cluster fails over. Meanwhile one of its numbers
    moves to `w-1`, which runs the job there; only then the flush goes on.
    """
    worker = scene.start("w-0")
    scene.until(scene.active)
    stalled: list[Call] = []

    def before(call: Call) -> None:
        if call.name == stalls_at and not stalled:
            stalled.append(call)
            scene.runtime.pass_time(12.0)

    spy = Spy(worker, before)
    worker.worker.flushing.flusher._drop_producer()
    for number in range(scene.partitions):
        scene.enqueue("job", scene.id_for(number))
    scene.until(lambda: bool(stalled))
    successor = scene.start("w-1")
    scene.until(lambda: bool(successor.active()))
    moved = min(successor.active())
    scene.settle()
    scene.until(lambda: len(spy.calls) > 3)
    return spy, moved


def test_snapshot_windows_and_offsets_are_frozen_together(patient: Scene) -> None:
    """A flush that outlives its number is refused: it presents the membership of the time when it was frozen."""
    patient.define("job", lambda ctx, payload: payload)
    spy, moved = moved_number(patient, "append")
    patient.runtime.pass_time(15.0)
    names = spy.names()
    assert names[names.index("abort") - 1] == "send_offsets", "refused there"
    assert "commit" not in names[: names.index("abort")]
    assert metadata(patient, moved).slot == "w-1"
    assert all(states == [State.SUCCEEDED] for states in patient.ends().values())
    assert not [s for s in patient.statuses() if s.id == patient.id_for(moved) and s.worker == "w-0"]


def test_completions_during_a_flush_belong_to_the_next(scene: Scene) -> None:
    """The offsets of a flush were frozen with its records: an end that comes meanwhile is not in it."""
    first, second = [name for place in range(99) if scene.number_of(name := f"x{place}") == 0][:2]
    scene.define("quick", lambda ctx, payload: None)
    scene.define("slow", lambda ctx, payload: scene.runtime.pass_time(0.3))
    worker = scene.start("w-0")
    sent: list[int] = []
    stalled: list[str] = []

    def look(call: Call) -> None:
        number = worker.worker.state.numbers.get((QUEUE, 0))
        window = None if number is None else number.lanes[Lane.NORMAL].window
        if not stalled and window is not None and window.low == 1 and any(r.topic == STATUS for r in call.records):
            # The owner goes on while this flush hangs: the slow one ends.
            stalled.append(call.name)
            scene.runtime.wait_for(lambda: window.low == 2, 5.0)
            assert window.low == 2
        elif stalled and call.name == "send_offsets":
            sent.extend(commit.offset for commit in call.offsets if commit.partition == scene.lane())

    Spy(worker, look)
    scene.until(scene.active)
    scene.enqueue("quick", first)
    scene.enqueue("slow", second)
    scene.settle()
    assert stalled == ["append"]
    assert sent[:2] == [1, 2]


def test_slot_that_was_slow_to_hand_over_is_not_shot(patient: Scene) -> None:
    """Its metadata does not say released, and an open transaction is in the way; but it is a member of the group."""
    define_steps(patient, count=12, seconds=0.3)
    patient.kinds["job"] = patient.kinds["steps"]
    moved_number(patient, "send_offsets")
    first, second = (simulated.worker.background.restorer.shots for simulated in patient.workers)
    assert first == second == []


def test_flush_that_moves_no_offset_is_fenced_too(patient: Scene) -> None:
    """Only checkpoints in it, and still it is refused once the number has moved: the offsets are the fence."""
    ledger = define_steps(patient, count=12, seconds=0.3)
    patient.kinds["job"] = patient.kinds["steps"]
    spy, moved = moved_number(patient, "append")
    patient.runtime.pass_time(15.0)
    assert "abort" in spy.names()
    epochs = [
        record.epoch
        for log in patient.broker.records(CHECKPOINTS)
        if log.partition() == moved and (value := log.value()) is not None
        if (record := saved_record(log.key() or b"", value)) is not None
    ]
    assert epochs == sorted(epochs), "nothing of the old owner came after the claim of the new one"
    assert ledger


def test_every_flush_presents_an_offset_for_every_number_it_touches(scene: Scene) -> None:
    define_steps(scene, count=4)
    worker = scene.start("w-0")
    spy = Spy(worker)
    for number in range(3):
        scene.enqueue("steps", scene.id_for(number))
    scene.settle()
    touched: set[TopicPartition] = set()
    fenced: set[TopicPartition] = set()
    lanes = {topics.checkpoints_topic(NS, queue): topics.jobs_topic(NS, queue) for queue in (QUEUE, BESIDE)}
    for call in spy.calls:
        if call.name == "begin":
            touched, fenced = set(), set()
        for record in call.records:
            if record.topic in lanes:
                touched.add(TopicPartition(lanes[record.topic], record.partition or 0))
        fenced |= {commit.partition for commit in call.offsets}
        if call.name == "commit":
            assert touched <= fenced


def test_revoke_flush_commits_under_cooperative_sticky(scene: Scene) -> None:
    ledger = define_steps(scene)
    first = scene.start("w-0")
    scene.until(scene.active)
    for number in range(3):
        scene.enqueue("steps", scene.id_for(number))
    scene.runtime.pass_time(0.5)
    second = scene.start("w-1")
    scene.until(lambda: bool(second.active()))
    # A flush between the new generation and its callback is refused; a queue that saves all the time has such a one.
    assert first.worker.state.counters.events["flush.failed"] <= scene.beside
    moved = second.active()
    scene.settle()
    assert moved
    # Three jobs, five steps each: what ran before the hand-over came along with it.
    assert ledger == {f"s{i}": 3 for i in range(5)}


@pytest.mark.parametrize("call", ["init", "wait_acks", "send_offsets", "commit"])
def test_call_that_never_returns_is_left_behind(scene: Scene, call: str) -> None:
    """A new flusher takes over, and when the old call comes back after all, that changes nothing."""
    ledger = define_steps(scene)
    worker = scene.start("w-0")
    scene.until(scene.active)
    comes_back = scene.runtime.signal()
    stuck: list[Call] = []

    def before(made: Call) -> None:
        if made.name == call and not stuck:
            stuck.append(made)
            comes_back.wait(None)

    Spy(worker, before)
    first = worker.worker.flushing.flusher
    first._drop_producer()
    for number in range(3):
        scene.enqueue("steps", scene.id_for(number))
    scene.settle()
    assert stuck
    assert worker.worker.flushing.flusher is not first
    assert worker.worker.flushing.flusher.rebuilds["stuck"] == 1
    comes_back.set()
    scene.enqueue("steps", scene.id_for(0, "later"))
    scene.settle()
    assert ledger == {f"s{i}": 4 for i in range(5)}
    assert all(states == [State.SUCCEEDED] for states in scene.ends().values())


@pytest.mark.parametrize("call", ["append", "wait_acks", "send_offsets", "commit"])
@pytest.mark.parametrize("error", [AbortRequired, ProducerFatal])
def test_every_abort_is_followed_by_a_new_producer_epoch(scene: Scene, call: str, error: type[BrokerError]) -> None:
    ledger = define_steps(scene)
    worker = scene.start("w-0")
    spy = Spy(worker)
    scene.until(scene.active)
    scene.broker.faults.fail_next(call, error("planned"), process=worker.name)
    scene.enqueue("steps", "job-1")
    scene.settle()
    assert settled_once(ledger)
    assert spy.made == 2
    for earlier, later in pairwise(c for c in spy.calls if c.name in ("abort", "begin", "init")):
        if earlier.name == "abort":
            assert later.name == "init"
            assert later.producer > earlier.producer


def released_late(scene: Scene, frame: Frame, at: str) -> bool:
    """Hold a frame of the worker back and let it arrive in the middle of the next transaction, before such a call; was
    it accepted? At the commit the offsets are in the transaction, and with them its groups.
    """
    worker = scene.start("w-0")
    scene.until(scene.active)
    held = scene.broker.faults.hold_next(f"{NS}.worker.w-0", frame)
    if frame is Frame.ABORT:
        scene.broker.faults.fail_next("send_offsets", AbortRequired("planned"), process=worker.name)
    accepted: list[bool] = []
    later: list[Call] = []

    def before(call: Call) -> None:
        if call.name == "begin" and held.caught:
            later.append(call)
        if call.name == at and later and not accepted:
            accepted.append(held.release())

    Spy(worker, before)
    worker.worker.flushing.flusher._drop_producer()
    scene.enqueue("parent", "job-1")
    scene.settle()
    assert accepted
    return accepted[0]


def family(scene: Scene) -> Callable[[], None]:
    """A parent with two children and steps; afterwards everything must be there once."""
    child = scene.define("child", lambda ctx, payload: None)
    ran: list[str] = []

    def step(name: str) -> None:
        ran.append(name)
        scene.runtime.pass_time(0.2)

    def parent(ctx: object, payload: object) -> None:
        for i in range(3):
            ctx.step(f"s{i}", step, f"s{i}")  # type: ignore[attr-defined]  # a Context
            ctx.spawn(child, {"row": i})  # type: ignore[attr-defined]  # a Context

    scene.define("parent", parent)

    def verify() -> None:
        assert sorted(ran) == ["s0", "s1", "s2"]
        assert list(scene.ends().values()) == [[State.SUCCEEDED]] * 4
        assert not any(scene.lag().values())

    return verify


@pytest.mark.parametrize("at", IN_TRANSACTION)
def test_late_commit_frame_shows_nothing_harmful(scene: Scene, at: str) -> None:
    verify = family(scene)
    assert not released_late(scene, Frame.COMMIT, at), "it met a newer producer epoch"
    verify()


@pytest.mark.parametrize("at", IN_TRANSACTION)
def test_late_abort_frame_loses_no_copy(scene: Scene, at: str) -> None:
    verify = family(scene)
    assert not released_late(scene, Frame.ABORT, at), "it met a newer producer epoch"
    verify()


@pytest.mark.parametrize("at", IN_TRANSACTION)
def test_late_offset_frame_does_no_harm(scene: Scene, at: str) -> None:
    verify = family(scene)
    assert not released_late(scene, Frame.OFFSETS, at), "it met a newer producer epoch"
    verify()


def is_announcement(record: OutRecord) -> bool:
    return record.topic == STATUS or record.value is None


def test_no_tombstone_before_its_copies_are_acked(scene: Scene) -> None:
    family(scene)
    worker = scene.start("w-0")
    spy = Spy(worker)
    scene.enqueue("parent", "job-1")
    scene.enqueue("no such type", "job-2")
    scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED)
    created = acked = announced = 0
    for call in spy.calls:
        if call.name == "begin":
            created = acked = 0
        elif call.name == "wait_acks":
            acked = created
        for record in call.records:
            if is_announcement(record):
                announced += 1
                assert acked == created, "everything it speaks of is acknowledged"
            else:
                created += 1
    assert announced > 5
    scene.until(lambda: len(scene.dead_letters()) == 1)
    scene.settle()
    assert scene.state_of("job-2") is State.DEAD


def test_no_mark_before_the_end_that_it_stands_for_is_acked(scene: Scene) -> None:
    """Dedupe marks and the number's own mark: whoever sees one runs nothing, so the end must be there already."""
    family(scene)
    worker = scene.start("w-0")
    spy = Spy(worker)
    scene.enqueue("parent", "job-1", derived=True)
    scene.settle()
    sent = acked = marks = 0
    for call in spy.calls:
        if call.name == "begin":
            sent = acked = 0
        elif call.name == "wait_acks":
            acked = sent
        seals = [r for r in call.records if r.topic == topics.dedupe_topic(NS, QUEUE) or r.key == NUMBER_KEY]
        if seals:
            assert len(seals) == len(call.records), "nothing else leaves with them"
            assert acked == sent
        marks += sum(record.key != NUMBER_KEY for record in seals)
        sent += len(call.records)
    assert marks >= 3


def test_hint_never_passes_an_uncommitted_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    carry = LiveTable.carry_candidates
    monkeypatch.setattr(LiveTable, "carry_candidates", lambda table, end: carry(table, end, budget=5))
    scene = Scene(partitions=1)
    define_steps(scene, count=3, seconds=0.05)
    scene.define("long", lambda ctx, payload: [ctx.step(f"t{i}", scene.runtime.pass_time, 0.5) for i in range(8)])
    worker = scene.start("w-0")
    moved: set[int] = set()

    def check(call: Call) -> None:
        for commit in call.offsets:
            meta = decode(commit.metadata, commit.offset)
            assert meta is not None
            if commit.partition.topic == scene.lane().topic and meta.hint is not None:
                assert keys_from(scene, meta.hint) == keys_from(scene, 0)
                moved.add(meta.hint)

    Spy(worker, check)
    scene.enqueue("long", "live")
    for i in range(15):
        scene.enqueue("steps", f"job-{i}")
        scene.runtime.pass_time(0.2)
    scene.settle()
    assert not scene.runtime.failures
    assert len(moved) > 5  # it moves with the number's mark, which is written once a second
    scene.close()


def keys_from(scene: Scene, start: int) -> set[bytes]:
    """Live keys of number 0, as a restore from there finds them, of what is committed by now."""
    keys: set[bytes] = set()
    for record in scene.broker.records(CHECKPOINTS):
        key = record.key() or b""
        if record.value() is None:
            keys.discard(key)
        elif (record.offset() or 0) >= start:
            keys.add(key)
    return keys


def test_aborted_flush_returns_to_the_front_in_order(scene: Scene) -> None:
    ledger = define_steps(scene, count=6, seconds=0.02)
    worker = scene.start("w-0")
    scene.until(scene.active)
    # Each commit takes its time before it fails: the job goes on, and ends, while its steps are on their way.
    Spy(worker, lambda call: scene.runtime.pass_time(0.3) if call.name == "commit" else None)
    worker.worker.flushing.flusher._drop_producer()
    for _ in range(4):
        scene.broker.faults.fail_next("commit", AbortRequired("planned"), process=worker.name)
    scene.enqueue("steps", "job-1")
    scene.settle()
    assert settled_once(ledger)
    written = [r for r in scene.broker.records(CHECKPOINTS) if r.value() is not None]
    sequences = [record.sequence for r in written if (record := saved_record(r.key() or b"", r.value() or b""))]
    assert sequences == sorted(sequences)
    steps = [decode_step(r.value() or b"").name for r in written if b"#step:" in (r.key() or b"")]
    assert steps == [f"s{i}" for i in range(len(steps))]
    assert worker.worker.state.counters.events["flush.failed"] == 4


def test_committed_end_never_passes_an_unread_record() -> None:
    scene = Scene(partitions=1, settings={"inflight_max_records": 4}, concurrency=2)
    returned: set[int] = set()

    def note(ctx: object, payload: int) -> None:
        scene.runtime.pass_time(0.1)
        returned.add(payload)

    scene.define("note", note)
    worker = scene.start("w-0")
    seen: list[int] = []

    def check(call: Call) -> None:
        for commit in call.offsets:
            if commit.partition == scene.lane():
                assert returned >= set(range(commit.offset)), "a commit stays behind what was read and run"
                seen.append(commit.offset)

    Spy(worker, check)
    for i in range(40):
        scene.enqueue("note", f"job-{i}", i)
    scene.settle()
    assert not scene.runtime.failures
    assert seen[-1] == 40
    assert seen == sorted(seen)
    scene.close()


def test_drained_lane_commits_its_end_past_markers(scene: Scene) -> None:
    verify = family(scene)
    scene.start("w-0")
    scene.enqueue("parent", "job-1")
    scene.settle()
    ends = scene.broker.admin().end_offsets(scene.committed())
    assert {lane: entry.offset or 0 for lane, entry in scene.committed().items()} == ends
    verify()


def test_one_unsendable_record_stops_nobody_else() -> None:
    scene = Scene(partitions=1, limits=MemoryLimits(session_seconds=3.0, record_bytes=20_000))
    scene.define("plain", lambda ctx, payload: payload)
    scene.define("huge", lambda ctx, payload: "x" * 30_000)
    scene.start("w-0")
    for i in range(5):
        scene.enqueue("plain", f"before-{i}")
    scene.enqueue("huge", "huge")
    for i in range(5):
        scene.enqueue("plain", f"after-{i}")
    scene.settle()
    assert sum(states == [State.SUCCEEDED] for states in scene.ends().values()) == 11
    assert scene.dead_letters() == []
    [told] = [status for status in scene.statuses() if status.id == "huge" and status.state in TERMINAL]
    assert told.state is State.SUCCEEDED, "it has; whoever waits for it hears that its result is not to be had"
    assert told.result is None
    assert told.error is not None
    assert told.error.kind == "unsendable"
    scene.close()


# With a second queue the worker has a flush more to make, for which the one whose end is held up here is in the way.
@pytest.mark.parametrize("one_queue_and_two", [False], ids=["one queue"], indirect=True)
def test_last_flush_of_the_owner_before_is_never_missed(patient: Scene) -> None:
    """Its offsets are visible, its checkpoints not yet: the restore reads past the last stable offset, to the end."""
    ledger = define_steps(patient, count=3, seconds=1.0)
    worker = patient.start("w-0")
    patient.until(patient.active)
    tid = WorkerConfig.transactional_id(worker.worker.config)
    held: list[HeldMarkers] = []

    def hold_the_last(call: Call) -> None:
        its = patient.lane(Lane.NORMAL, patient.number_of("job-1"))
        released = [decode(c.metadata, c.offset) for c in call.offsets if c.partition == its]
        if any(meta is not None and meta.released for meta in released) and not held:
            held.append(patient.broker.faults.hold_markers(tid))

    Spy(worker, hold_the_last)
    worker.worker.flushing.flusher._drop_producer()
    patient.enqueue("steps", "job-1")
    patient.until(lambda: ledger["s1"] == 1)
    worker.stop()
    patient.until(lambda: bool(held) and held[0].caught)
    # The markers reach the offsets first, the checkpoint partition last.
    entry = patient.broker._cluster.transactions._entries[tid]
    for offsets in entry.groups.values():
        offsets.finish(entry.producer_id, commit=True)
    entry.groups = {}
    successor = patient.start("w-1")
    patient.until(lambda: worker.over, 10.0)
    patient.until(lambda: successor.engine is not None and bool(successor.engine.state.numbers), 10.0)
    patient.runtime.pass_time(0.5)
    held[0].release()
    patient.settle()
    assert ledger == {"s0": 1, "s1": 1, "s2": 1}
