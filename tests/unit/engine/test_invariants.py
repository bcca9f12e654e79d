"""The invariants of the design that the engine has to keep, on the memory log.

Elsewhere, under their names: those of flushes in test_flush_invariants, of several groups in test_groups, of operators'
orders in test_operators, of redrives in test_testbed_redrive, of handlers in test_walls, of the owner in test_guard.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from processor.broker.base import Batch, OffsetCommit, OutRecord, PartitionFault, TopicPartition
from processor.broker.memory import MemoryLimits
from processor.broker.memory.consumer import MemoryReader
from processor.core.checkpoint import NUMBER_KEY, parse_key
from processor.core.live import LiveTable
from processor.core.offset_metadata import OffsetMetadata, decode
from processor.engine.queue_partition import PartitionPhase
from processor.errors import OffsetOutOfRange
from processor.job import Lane
from processor.policies import Park, Retry
from processor.states import State
from processor.wire import topics
from processor.wire.codec import decode_job, encode
from processor.wire.records import CheckpointRecord
from tests.unit.engine.scene import GROUP, NS, QUEUE, Scene, Simulated, lane_record
from tests.unit.engine.spy import Call, Spy

pytestmark = pytest.mark.usefixtures("one_queue_and_two")
SLOW_TIMEOUT = MemoryLimits(session_seconds=3.0, transaction_seconds=60.0, transaction_scan_seconds=10.0)


def metadata(scene: Scene, number: int) -> OffsetMetadata:
    """What is stored beside the committed offset of the normal lane."""
    entry = scene.committed()[scene.lane(Lane.NORMAL, number)]
    assert entry.offset is not None
    meta = decode(entry.metadata, entry.offset)
    assert meta is not None
    return meta


def owner(scene: Scene, number: int) -> Simulated:
    """Who runs the jobs of a number."""
    owners = [worker for worker in scene.running if number in worker.active()]
    assert len(owners) == 1
    return owners[0]


def define_steps(scene: Scene, count: int = 5, seconds: float = 0.3) -> Counter[str]:
    """Job type `steps`: each step is counted and takes its time."""
    ledger: Counter[str] = Counter()

    def run(name: str) -> int:
        ledger[name] += 1
        scene.runtime.pass_time(seconds)
        return len(name)

    scene.define("steps", lambda ctx, payload: [ctx.step(f"s{i}", run, f"s{i}") for i in range(count)])
    return ledger


def rewind(scene: Scene) -> None:
    """Once the group is empty, forget how far it was: everything is read again, as after a late offset frame."""
    scene.until(lambda: not scene.broker.admin().members(GROUP))
    lanes = [scene.lane(lane, number) for lane in (Lane.NORMAL, Lane.DUE) for number in range(scene.partitions)]
    scene.broker.admin().commit(GROUP, [OffsetCommit(lane, 0, "") for lane in lanes])


def settled_once(ledger: Counter[str]) -> bool:
    return set(ledger.values()) == {1}


def test_epoch_grows_across_workers_and_restarts(scene: Scene) -> None:
    epochs: list[list[int]] = []

    def note() -> None:
        scene.until(scene.active)
        scene.runtime.pass_time(0.5)
        epochs.append([metadata(scene, number).epoch for number in range(scene.partitions)])

    first = scene.start("w-0")
    note()
    first.kill()
    first = scene.start("w-0")
    note()
    first.stop()
    scene.until(lambda: first.over)
    scene.start("w-1")
    note()
    assert epochs == [[1] * 3, [2] * 3, [3] * 3]


def test_all_lanes_of_a_number_have_one_owner(scene: Scene) -> None:
    ran: dict[str, str] = {}
    scene.define("note", lambda ctx, payload: ran.update({ctx.id: scene.runtime.current_group}))
    for slot in ("w-0", "w-1"):
        scene.start(slot)
    scene.until(scene.active)
    for number in range(scene.partitions):
        for lane in (Lane.NORMAL, Lane.DUE):
            scene.enqueue("note", scene.id_for(number, lane.value), lane=lane)
    scene.settle()
    for number in range(scene.partitions):
        workers = {ran[scene.id_for(number, lane.value)] for lane in (Lane.NORMAL, Lane.DUE)}
        assert workers == {owner(scene, number).name}


def test_ended_job_seen_again_runs_no_step(scene: Scene) -> None:
    ledger = define_steps(scene, count=3)
    worker = scene.start("w-0")

    def die_before_the_burial(call: Call) -> None:
        ended = [s for s in scene.statuses() if s.state is State.SUCCEEDED]
        if call.name == "begin" and ended:
            worker.kill()

    Spy(worker, die_before_the_burial)
    scene.enqueue("steps", "job-1")
    scene.until(lambda: worker.over)
    rewind(scene)
    scene.start("w-0")
    scene.settle()
    assert ledger == {"s0": 1, "s1": 1, "s2": 1}
    assert [s.state for s in scene.statuses()].count(State.SUCCEEDED) == 2, "the status was sent again"


def test_stray_copy_of_a_moved_or_finished_job_never_runs(scene: Scene) -> None:
    ledger = define_steps(scene, count=5, seconds=0.5)
    scene.start("w-0")
    copy = lane_record(scene.enqueue("steps", "job-1", derived=True), derived=True)
    scene.until(lambda: any(b"job-1#job" in table.keys_of("job-1") for table in scene.live().values()))
    scene.append(copy)
    scene.settle()
    scene.append(copy)
    scene.settle()
    assert len(ledger) == 5
    assert settled_once(ledger)


def test_live_job_read_again_from_its_lane_is_not_started(scene: Scene) -> None:
    ledger = define_steps(scene, count=8, seconds=0.5)
    worker = scene.start("w-0")
    scene.enqueue("steps", "job-1")
    scene.until(lambda: any(b"job-1#job" in table.keys_of("job-1") for table in scene.live().values()))
    scene.runtime.pass_time(0.2)
    worker.kill()
    rewind(scene)
    scene.start("w-0")
    scene.settle()
    assert len(ledger) == 8
    assert sum(ledger.values()) <= 9, "only the step that the crash cut short ran twice"


def test_parked_job_read_again_from_its_lane_is_not_started(scene: Scene) -> None:
    """It lives in the checkpoint topic and has no attempt that would speak for it."""
    runs: list[int] = []

    def parks(ctx: Any, payload: Any) -> None:
        runs.append(ctx.attempt)
        raise ValueError("who is this?")

    scene.define("parks", parks, retry=Retry(5).on(ValueError, Park("ask Ada")))
    worker = scene.start("w-0")
    scene.enqueue("parks", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.WAITING)
    scene.runtime.pass_time(0.5)
    worker.kill()
    rewind(scene)
    scene.start("w-0")
    scene.until(scene.active)
    scene.until(lambda: not any(scene.lag().values()))
    scene.runtime.pass_time(2.0)
    assert runs == [1]
    assert scene.state_of("job-1") is State.WAITING


def test_healthy_slot_is_never_shot_nor_its_own(scene: Scene) -> None:
    define_steps(scene)
    workers = [scene.start(f"w-{i}") for i in range(3)]
    scene.until(scene.active)
    for i in range(12):
        scene.enqueue("steps", f"job-{i}")
    scene.runtime.pass_time(0.7)
    workers[2].kill()
    scene.settle()
    shots = [shot for worker in workers[:2] for shot in worker.worker.background.restorer.shots]
    assert shots
    assert set(shots) == {f"{NS}.worker.w-2"}


def test_take_over_is_bounded() -> None:
    scene = Scene(limits=SLOW_TIMEOUT)
    define_steps(scene)
    victim = scene.start("w-0")
    scene.start("w-1")
    scene.until(scene.active)
    number = min(victim.active())
    Spy(victim, lambda call: victim.kill() if call.name == "wait_acks" else None)
    victim.worker.flushing.flusher._drop_producer()
    scene.enqueue("steps", scene.id_for(number))
    scene.until(lambda: victim.over)
    began = scene.runtime.clock.monotonic()
    scene.until(scene.active)
    # The session, the patience with the open transaction, a moment for the rest; not the transaction's own minute.
    assert scene.runtime.clock.monotonic() - began < 3.0 + 1.0 + 1.5
    scene.settle()
    scene.close()


def test_worker_that_stops_leaves_the_group_before_it_closes(scene: Scene) -> None:
    # A static member that only closes would keep its numbers until its session is over, three seconds here.
    leaver = scene.start("w-0")
    stays = scene.start("w-1")
    scene.until(scene.active)
    leaver.stop()
    scene.until(lambda: leaver.over)
    scene.until(lambda: len(stays.active()) == 3, 1.0)
    scene.settle()


def test_restore_never_blocks_the_owning_thread() -> None:
    scene = Scene(limits=SLOW_TIMEOUT, settings={"stable_wait": 8.0})
    scene.define("plain", lambda ctx, payload: payload)
    define_steps(scene)
    victim, survivor = scene.start("w-0"), scene.start("w-1")
    scene.until(scene.active)
    lost, kept = (min(worker.active()) for worker in (victim, survivor))
    sent: set[TopicPartition] = set()

    def die(call: Call) -> None:
        sent.update(commit.partition for commit in call.offsets)
        if call.name == "commit" and scene.lane(Lane.NORMAL, lost) in sent:
            victim.kill()

    Spy(victim, die)
    victim.worker.flushing.flusher._drop_producer()
    scene.enqueue("steps", scene.id_for(lost))
    scene.until(lambda: any(n.phase is PartitionPhase.RESTORING for n in survivor.worker.state.numbers.values()))
    for turn in range(10):
        scene.enqueue("plain", scene.id_for(kept, f"while-{turn}"))
        scene.runtime.pass_time(0.2)
        assert scene.runtime.clock.monotonic() - survivor.worker.last_turn < 0.05
        assert scene.state_of(scene.id_for(kept, f"while-{turn}")) is State.SUCCEEDED
    assert any(n.phase is PartitionPhase.RESTORING for n in survivor.worker.state.numbers.values())
    scene.settle()
    scene.close()


def test_broker_outage_is_not_a_death_of_a_job(scene: Scene) -> None:
    ledger = define_steps(scene)
    scene.start("w-0")
    scene.enqueue("steps", "job-1")
    scene.runtime.pass_time(0.5)
    scene.broker.faults.outage(True)
    scene.runtime.pass_time(8.0)
    scene.broker.faults.outage(False)
    scene.settle()
    assert settled_once(ledger)
    assert scene.state_of("job-1") is State.SUCCEEDED
    assert [metadata(scene, number).epoch for number in range(3)] == [1, 1, 1]


def test_one_bad_partition_stops_only_itself(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    first = scene.start("w-0")
    for number in range(3):
        scene.enqueue("plain", scene.id_for(number, "first"))
    scene.settle()
    first.stop()
    scene.until(lambda: first.over)
    scene.enqueue("plain", scene.id_for(0, "lost"))
    bad = scene.lane(Lane.NORMAL, 0)
    scene.broker.admin().delete_records({bad: scene.broker.admin().end_offsets([bad])[bad]})
    second = scene.start("w-0")
    scene.until(lambda: len(second.active()) == 2)
    for number in (1, 2):
        scene.enqueue("plain", scene.id_for(number, "second"))
    scene.until(lambda: all(scene.state_of(scene.id_for(n, "second")) for n in (1, 2)))
    scene.until(lambda: second.worker.state.numbers[QUEUE, 0].phase is PartitionPhase.HELD, 2)
    assert second.worker.state.counters.events["held"] == 1


def append(scene: Scene, *records: OutRecord) -> None:
    producer = scene.broker.producer()
    for record in records:
        producer.append(record)
    producer.flush(5.0)


def test_one_unreadable_restore_stops_only_itself(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """All numbers are restored together; one cannot be read."""
    scene.define("plain", lambda ctx, payload: payload)
    bad = TopicPartition(topics.checkpoints_topic(NS, QUEUE), 0)
    append(scene, *(OutRecord(bad.topic, f"strange-{number}".encode(), b"", None, number) for number in range(3)))
    fetch = MemoryReader.fetch

    def failing(reader: MemoryReader, limit: int, timeout: float) -> Batch:
        batch = fetch(reader, limit, timeout)
        if not any(record.topic() == bad.topic and record.partition() == 0 for record in batch.records):
            return batch
        return batch._replace(faults=[PartitionFault(bad, OffsetOutOfRange("gone"))])

    monkeypatch.setattr(MemoryReader, "fetch", failing)
    worker = scene.start("w-0")
    scene.until(lambda: len(worker.active()) == 2)
    assert worker.worker.state.numbers[QUEUE, 0].phase is PartitionPhase.HELD
    assert worker.worker.state.counters.events["held"] == 1


def test_tombstone_under_a_strange_key_buries_nothing(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    checkpoints = topics.checkpoints_topic(NS, QUEUE)
    append(scene, OutRecord(checkpoints, b"\xff#what", None, None, 0))
    worker = scene.start("w-0")
    scene.until(scene.active)
    assert worker.worker.state.counters.events["held"] == 0


def test_unfinished_job_is_never_deleted_by_retention() -> None:
    scene = Scene(settings={"replay_time": 2.0, "promote_after": 1e6}, partitions=1)
    scene.define("plain", lambda ctx, payload: payload)
    scene.define("long", lambda ctx, payload: scene.runtime.pass_time(30.0))
    scene.start("w-0")
    scene.enqueue("plain", "before")
    scene.enqueue("long", "unfinished")
    for turn in range(20):
        scene.enqueue("plain", f"after-{turn}")
        scene.runtime.pass_time(1.0)
    lane = scene.lane()
    assert scene.broker.admin().begin_offsets([lane])[lane] <= 1
    assert scene.committed()[lane].offset == 1
    scene.settle()
    scene.close()


def test_expired_offsets_are_not_a_first_start(scene: Scene) -> None:
    ledger = define_steps(scene)
    worker = scene.start("w-0")
    scene.enqueue("steps", "job-1")
    scene.until(lambda: ledger["s3"] == 1)
    scene.runtime.pass_time(0.1)
    worker.kill()
    scene.broker.faults.forget_offsets(GROUP)
    scene.start("w-0")
    scene.settle()
    assert ledger == {"s0": 1, "s1": 1, "s2": 1, "s3": 2, "s4": 1}
    assert metadata(scene, scene.number_of("job-1")).epoch == 2


def test_idle_number_restores_in_o_live(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    carry = LiveTable.carry_candidates
    monkeypatch.setattr(LiveTable, "carry_candidates", lambda table, end: carry(table, end, budget=20))
    scene = Scene(partitions=1)
    ledger = define_steps(scene, count=2, seconds=0.05)
    scene.define("long", lambda ctx, payload: [ctx.step(f"t{i}", scene.runtime.pass_time, 3.0) for i in range(5)])
    worker = scene.start("w-0")
    scene.enqueue("long", "live")
    for i in range(60):
        scene.enqueue("steps", f"job-{i}")
        scene.runtime.pass_time(0.2)
    written = scene.broker.admin().end_offsets([TopicPartition(topics.checkpoints_topic(NS, QUEUE), 0)])
    assert sum(ledger.values()) == 120
    assert max(written.values()) > 300
    worker.kill()
    with caplog.at_level(logging.INFO, "processor.engine.tellings"):
        scene.start("w-0")
        scene.until(scene.active)
    read = [record.__dict__["records"] for record in caplog.records if record.msg == "numbers.restored"]
    assert read[-1] < 120
    scene.settle()
    scene.close()


def test_every_checkpoint_has_a_home(scene: Scene) -> None:
    define_steps(scene)
    scene.start("w-0")
    for i in range(6):
        scene.enqueue("steps", f"job-{i}")
    scene.until(lambda: any(len(table) for table in scene.live().values()))
    seen = 0
    while not scene.is_settled():
        seen += homes(scene)
        scene.runtime.pass_time(0.1)
    assert seen > 20


def homes(scene: Scene) -> int:
    """Check the home of every live checkpoint; how many there are."""
    jobs = {(r.topic(), r.partition(), r.offset()): decode_job(r.value() or b"").id for r in lane_records(scene)}
    count = 0
    for number, table in scene.live().items():
        for job_id in table.ids():
            view = table.view(job_id)
            assert view is not None
            assert view.home is not None, "steps alone belong to nobody"
            if view.home.offset >= 0:
                assert jobs[view.home.topic, number, view.home.offset] == job_id
            else:
                assert view.job is not None
            count += 1
    return count


def lane_records(scene: Scene) -> list[Any]:
    return [r for lane in (Lane.NORMAL, Lane.DUE) for r in scene.broker.records(topics.jobs_topic(NS, QUEUE, lane))]


def test_checkpoint_whose_home_is_finished_is_buried(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0")
    job = scene.enqueue("plain", "job-1")
    scene.settle()
    worker.stop()
    scene.until(lambda: worker.over)
    number = scene.number_of(job.id)
    scene.append(left_over(job.id, number))
    scene.start("w-0")
    scene.until(lambda: "job-1" not in scene.live()[number] and scene.active())
    assert [s.state for s in scene.statuses()] == [State.SUCCEEDED]


def left_over(job_id: str, number: int) -> OutRecord:
    """Progress of a job whose record in the lane is complete, as a torn flush leaves it."""
    record = CheckpointRecord(job_id, 1, 0, 1, 1, 0, topics.jobs_topic(NS, QUEUE), 0, 1)
    return OutRecord(topics.checkpoints_topic(NS, QUEUE), job_id.encode(), encode(record), None, number)


def test_parent_and_child_of_one_key_both_finish(scene: Scene) -> None:
    child = scene.define("child", lambda ctx, payload: None)
    scene.define("parent", lambda ctx, payload: ctx.spawn(child, {"key": "k"}))
    scene.start("w-0")
    scene.enqueue("parent", "job-1", key="k")
    scene.settle()
    assert list(scene.ends().values()) == [[State.SUCCEEDED]] * 2


def test_blocked_key_blocks_no_other_key() -> None:
    scene = Scene(partitions=1, settings={"inflight_max_records": 40}, concurrency=2)
    scene.define("plain", lambda ctx, payload: payload)
    scene.define("long", lambda ctx, payload: scene.runtime.pass_time(20.0))
    scene.start("w-0")
    scene.enqueue("long", "holder", key="a")
    for i in range(200):
        scene.enqueue("plain", f"behind-{i}", key="a")
    scene.enqueue("plain", "free", key="b")
    scene.until(lambda: scene.state_of("free") is State.SUCCEEDED, 3.0)
    assert scene.state_of("behind-0") is None
    scene.settle()
    ended = [s.id for s in scene.statuses() if s.state is State.SUCCEEDED and s.id.startswith("behind")]
    assert ended == [f"behind-{i}" for i in range(200)]
    scene.close()


def test_parked_jobs_block_no_slot_and_no_bound() -> None:
    scene = Scene(partitions=1, settings={"inflight_max_records": 8}, concurrency=1)
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0")
    for i in range(50):
        scene.enqueue("unknown", f"parked-{i}")
    scene.enqueue("plain", "free")
    scene.until(lambda: scene.state_of("free") is State.SUCCEEDED, 3.0)
    assert len(worker.worker.state.numbers[QUEUE, 0].jobs.parked) == 50
    assert worker.worker.state.loads[QUEUE].records == 0
    scene.settle()
    assert Counter(letter.reason for letter in scene.dead_letters()) == {"unknown_type": 50}
    scene.close()


def test_number_of_a_job_never_changes(scene: Scene) -> None:
    define_steps(scene, count=6)
    first = scene.start("w-0")
    for i in range(9):
        scene.enqueue("steps", f"job-{i}", key=f"key-{i}" if i % 2 else None)
    scene.runtime.pass_time(0.8)
    scene.start("w-1")
    scene.runtime.pass_time(0.8)
    first.kill()
    scene.settle()
    placed = {decode_job(r.value() or b"").id: r.partition() for r in lane_records(scene)}
    for record in scene.broker.records(topics.checkpoints_topic(NS, QUEUE)):
        if record.key() != NUMBER_KEY:
            assert record.partition() == placed[parse_key(record.key() or b"").id]


def test_terminal_state_of_a_life_is_final(scene: Scene) -> None:
    runs: Counter[str] = Counter()

    def turn(ctx: Any, payload: Any) -> None:
        runs[ctx.id] += 1
        if runs[ctx.id] > 1:
            raise ValueError("a second run would end otherwise")

    scene.define("turn", turn)
    scene.start("w-0")
    copies = [lane_record(scene.enqueue("turn", f"job-{i}", derived=True), derived=True) for i in range(6)]
    scene.settle()
    for copy in copies:
        scene.append(copy)
    scene.settle()
    assert len(scene.ends()) == 6
    assert all(states == [State.SUCCEEDED] for states in scene.ends().values())


def test_children_of_a_resumed_parent_exist_exactly_once(scene: Scene) -> None:
    child = scene.define("child", lambda ctx, payload: payload)

    def parent(ctx: Any, payload: Any) -> None:
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, 9), every="50ms"):
            ctx.spawn(child, {"row": row})
            scene.runtime.pass_time(0.1)

    scene.define("parent", parent)
    worker = scene.start("w-0")
    scene.enqueue("parent", "job-1")
    scene.runtime.pass_time(0.45)
    worker.kill()
    scene.start("w-0")
    scene.settle()
    rows: dict[bytes, set[str]] = {}
    for record in lane_records(scene):
        job = decode_job(record.value() or b"")
        if job.parent is not None:
            rows.setdefault(job.payload, set()).add(job.id)
    assert len(rows) == 8
    assert {len(ids) for ids in rows.values()} == {1}, "one id for each row, however often it was spawned"
    ended = Counter(s.id for s in scene.statuses() if s.type == "child")
    assert len(ended) == 8
