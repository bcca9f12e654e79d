"""Why a job does not run, out of the log, the group and the orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from processor import admin
from processor.admin.why import facts_of
from processor.broker.base import Membership, OffsetCommit, OutRecord, TopicPartition
from processor.broker.memory import AdvancingWait, MemoryBroker
from processor.clock import ManualClock
from processor.core import offset_metadata
from processor.core.checkpoint import job_key, progress_key
from processor.core.control import CANCEL, PAUSE
from processor.core.offset_metadata import OffsetMetadata
from processor.core.topic_plan import topic_plan
from processor.core.why import Cause, reasons
from processor.job import ErrorInfo, Job
from processor.states import State
from processor.wire.codec import MARKER, encode
from processor.wire.groups import instance_name, queue_group
from processor.wire.records import AnyRecord, CheckpointRecord, ControlRecord, LiveJobRecord, StatusRecord
from processor.wire.topics import QueueSpec, TopicShape

LANE, DUE, CHECKPOINTS = "shop.jobs.bulk", "shop.jobs.bulk.due", "shop.checkpoints.bulk"
GROUP = queue_group("shop", "bulk")
NOW = 1_767_225_600_000
JOB = Job("j", "import", 1, "bulk", b"{}", NOW - 60_000)
STATUS = StatusRecord("j", 1, "import", "bulk", State.RUNNING, NOW - 5_000, 1, "host/0")


class Owner:
    """A member of the queue's group that takes what it is given."""

    def __init__(self) -> None:
        self.membership: Membership | None = None

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self.membership = membership

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None: ...
    def on_lost(self, partitions: Sequence[TopicPartition]) -> None: ...


class Log:
    """A namespace with one queue of one partition, and what stands in its topics."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.broker = MemoryBroker(self.clock, AdvancingWait(self.clock))
        shape = TopicShape(status_partitions=1, retry_partitions=1)
        admin.apply_topics(self.broker, topic_plan("shop", [QueueSpec(name="bulk", partitions=1)], shape=shape))

    def write(self, topic: str, key: str | bytes, record: AnyRecord | bytes) -> None:
        producer = self.broker.producer()
        value = encode(record) if isinstance(record, tuple) else record
        producer.append(OutRecord(topic, key.encode() if isinstance(key, str) else key, value))
        assert producer.flush(1) == 0
        producer.close()

    def say(self, state: State, **fields: Any) -> None:
        record = STATUS._replace(state=state, **fields)
        self.write("shop.status", record.id, record)

    def claim(self, slot: str, offset: int = 0, *, released: bool = False, topic: str = LANE) -> None:
        meta = OffsetMetadata(epoch=1, slot=slot, read_mark=offset, released=released)
        text = offset_metadata.encode(meta, offset).text
        producer = self.broker.transactional_producer(f"claim {slot}")
        producer.init(5)
        producer.begin()
        commit = OffsetCommit(TopicPartition(topic, 0), offset, text)
        if self.owner is None or self.owner.membership is None:
            producer.abort(5)
            self.broker.admin().commit(GROUP, [commit])
        else:
            producer.send_offsets([commit], GROUP, self.owner.membership, 5)
            producer.commit(5)
        producer.close()

    owner: Owner | None = None

    def serve(self, slot: str) -> None:
        """A worker owns the partition."""
        self.owner = Owner()
        member = self.broker.group_consumer(GROUP, instance_id=instance_name(GROUP, slot))
        member.subscribe([LANE], self.owner)
        for _ in range(100):
            member.poll(0.1)
            if any(each.partitions for each in self.broker.admin().members(GROUP)):
                return
        raise AssertionError("it was given nothing")

    def causes(self, job_id: str = "j") -> list[Cause]:
        return [reason.cause for reason in reasons(facts_of(self.broker, "shop", job_id, NOW))]


@pytest.fixture
def log() -> Log:
    return Log()


def test_of_a_job_that_nobody_has_seen_nothing_is_known(log: Log) -> None:
    log.write(LANE, "other", JOB._replace(id="other"))
    log.write(LANE, "x", b"garbage")
    assert log.causes() == [Cause.UNKNOWN]


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_job_in_a_lane_knows_how_many_are_before_it(log: Log, before: int) -> None:
    log.serve("host-0")
    log.claim("host-0")
    for number in range(before):
        log.write(LANE, f"o{number}", JOB._replace(id=f"o{number}"))
    log.write(LANE, "j", JOB)
    facts = facts_of(log.broker, "shop", "j", NOW)
    assert (facts.state, facts.ahead, facts.number, facts.owner) == (State.QUEUED, before, 0, "host-0")
    assert log.causes() == [Cause.BEHIND if before else Cause.NEXT]


def test_jobs_before_it_that_are_done_do_not_count(log: Log) -> None:
    for number in range(5):
        log.write(LANE, f"o{number}", JOB._replace(id=f"o{number}"))
    log.write(LANE, "j", JOB)
    meta = OffsetMetadata(epoch=1, slot="host-0", read_mark=6, ranges=((2, 3),))
    commit = OffsetCommit(TopicPartition(LANE, 0), 1, offset_metadata.encode(meta, 1).text)
    log.broker.admin().commit(GROUP, [commit])
    assert facts_of(log.broker, "shop", "j", NOW).ahead == 2, "of 1 to 4 the jobs 2 and 3 are done"
    assert log.causes() == [Cause.NO_WORKER]


@pytest.mark.parametrize(
    ("claimed", "released", "cause"),
    [
        ("host-0", False, Cause.NEXT),
        ("host-0", True, Cause.HELD),
        ("host-9", False, Cause.HELD),
        (None, False, Cause.HELD),
    ],
)
def test_a_partition_whose_owner_has_not_claimed_it_is_held(
    log: Log, claimed: str | None, released: bool, cause: Cause
) -> None:
    log.write(LANE, "j", JOB)
    log.serve("host-0")
    if claimed is not None:
        log.claim(claimed, released=released)
    assert log.causes() == [cause]


KEYED = JOB._replace(key="c-1")
LIVE = LiveJobRecord("first", 1, 0, 1, 1, encode(KEYED._replace(id="first")), LANE, 0, NOW, state=State.RETRYING)


@pytest.mark.parametrize(
    ("records", "holder"),
    [
        ([(LANE, KEYED._replace(id="first")), (LANE, KEYED)], ("first", "queued")),
        ([(LANE, KEYED), (LANE, KEYED._replace(id="later"))], None),
        ([(LANE, KEYED._replace(id="other", key="c-2")), (LANE, KEYED)], None),
        ([(LANE, KEYED), (DUE, KEYED._replace(id="back"))], ("back", "queued")),
        ([(LANE, KEYED), (CHECKPOINTS, LIVE)], ("first", "retrying")),
        ([(LANE, KEYED), (CHECKPOINTS, LIVE._replace(job=encode(JOB._replace(id="first", key="c-2"))))], None),
        ([(LANE, KEYED), (CHECKPOINTS, LIVE._replace(job=MARKER + b"12345678newer"))], None),
    ],
)
def test_whose_turn_it_is_in_a_key(log: Log, records: list[tuple[str, Any]], holder: tuple[str, str] | None) -> None:
    log.serve("host-0")
    log.claim("host-0")
    for topic, record in records:
        log.write(topic, job_key(record.id) if topic == CHECKPOINTS else "c-1", record)
    facts = facts_of(log.broker, "shop", "j", NOW)
    assert (facts.key_holder, facts.key_holder_state) == (holder or ("", ""))
    assert (Cause.KEY in log.causes()) is (holder is not None)


def test_a_promoted_job_that_has_ended_holds_no_key(log: Log) -> None:
    log.write(LANE, "c-1", KEYED)
    log.write(CHECKPOINTS, job_key("first"), LIVE)
    end = CheckpointRecord("first", 1, 0, 1, 2, NOW, CHECKPOINTS, -1, 1, final=b"end")
    log.write(CHECKPOINTS, progress_key("first"), end)
    log.write(CHECKPOINTS, b"first#nonsense", b"garbage")
    assert facts_of(log.broker, "shop", "j", NOW).key_holder == ""


def test_a_job_that_ended_is_not_looked_for_further(log: Log) -> None:
    log.say(State.SUCCEEDED)
    assert log.causes() == [Cause.ENDED]


def test_a_job_that_was_redriven_waits_in_its_lane(log: Log) -> None:
    log.say(State.DEAD, at=NOW - 90_000, error=ErrorInfo("E", "first\nsecond"))
    assert log.causes() == [Cause.ENDED]
    log.write(DUE, "j", JOB._replace(life=2, number=0))
    facts = facts_of(log.broker, "shop", "j", NOW)
    assert (facts.state, facts.error) == (State.QUEUED, "E: first")
    assert log.causes() == [Cause.NO_WORKER]


def test_an_end_that_is_not_yet_committed_beside_its_offset_is_no_new_life(log: Log) -> None:
    log.write(LANE, "j", JOB)
    log.say(State.DEAD, at=NOW)
    assert log.causes() == [Cause.ENDED]


@pytest.mark.parametrize(
    ("due", "home", "served", "expected"),
    [
        (NOW + 60_000, False, False, [Cause.RETRY, Cause.NO_WORKER]),
        (NOW - 1, False, True, [Cause.COMES_HOME]),
        (NOW - 1, False, False, [Cause.NO_WORKER]),
        (NOW - 1, True, True, [Cause.NEXT]),
    ],
)
def test_a_retry_waits_comes_home_and_is_there(
    log: Log, due: int, home: bool, served: bool, expected: list[Cause]
) -> None:
    log.say(State.RETRYING, due_at=due, number=0)
    if served:
        log.serve("host-0")
        log.claim("host-0")
    if home:
        log.write(DUE, "j", JOB._replace(hop=1, attempt=1, number=0))
    assert log.causes() == expected


def test_a_job_that_waits_for_its_time_is_found_in_the_chain(log: Log) -> None:
    log.write("shop.retry.1h", "j", JOB._replace(due_at=NOW + 3_600_000, number=0))
    facts = facts_of(log.broker, "shop", "j", NOW)
    assert (facts.state, facts.due_at) == (State.SCHEDULED, NOW + 3_600_000)
    assert log.causes() == [Cause.NOT_DUE, Cause.NO_WORKER]


@pytest.mark.parametrize(
    ("until", "note", "expected"),
    [
        (NOW + 600_000, "unknown job type import", [Cause.DEPLOY, Cause.NO_WORKER]),
        (None, "ask somebody", [Cause.PARKED, Cause.NO_WORKER]),
    ],
)
def test_a_parked_job_waits_for_a_deploy_or_for_a_person(
    log: Log, until: int | None, note: str, expected: list[Cause]
) -> None:
    log.say(State.WAITING)
    live = LIVE._replace(id="j", state=State.WAITING, reason=note, until=until, job=encode(JOB))
    log.write(CHECKPOINTS, job_key("j"), live)
    facts = facts_of(log.broker, "shop", "j", NOW)
    assert (facts.until, facts.note, facts.number) == (until, note, 0)
    assert log.causes() == expected


ORDERS = [
    (ControlRecord("job:j", CANCEL, NOW, "ada", "wrong", life=1), [Cause.CANCELLING, Cause.NO_WORKER]),
    (ControlRecord("job:j", CANCEL, NOW, "ada", "wrong", life=0), [Cause.NO_WORKER]),
    (ControlRecord("queue:bulk", PAUSE, NOW, "ada", "audit"), [Cause.QUEUE_PAUSED, Cause.NO_WORKER]),
    (ControlRecord("queue:other", PAUSE, NOW, "ada", "audit"), [Cause.NO_WORKER]),
    (ControlRecord("type:import", PAUSE, NOW, "ada", "audit"), [Cause.TYPE_PAUSED, Cause.NO_WORKER]),
]


@pytest.mark.parametrize(("order", "expected"), ORDERS)
def test_what_operators_ordered_comes_first(log: Log, order: ControlRecord, expected: list[Cause]) -> None:
    log.write(LANE, "j", JOB)
    log.write("shop.control", order.target, order)
    log.write("shop.control", "type:mail", b"garbage")
    assert log.causes() == expected


def test_a_kill_date_that_has_come_is_told_of_a_job_that_still_waits(log: Log) -> None:
    log.write(LANE, "j", JOB._replace(kill_at=NOW - 1))
    assert log.causes() == [Cause.KILL_DATE, Cause.NO_WORKER]


def test_a_running_job_whose_worker_is_gone_is_told_so(log: Log) -> None:
    log.say(State.RUNNING)
    assert log.causes() == [Cause.WORKER_GONE]
    log.serve("host-0")
    assert log.causes() == [Cause.RUNNING]
