"""What operators call, on the memory broker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from processor import admin
from processor.admin import Action
from processor.broker.base import OffsetCommit, OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import MemoryBroker
from processor.broker.partitioner import partition_for
from processor.clock import ManualClock
from processor.core import offset_metadata
from processor.core.checkpoint import job_key, progress_key, signal_key, step_key
from processor.core.offset_metadata import OffsetMetadata
from processor.core.topic_plan import topic_plan
from processor.errors import TopicMismatch, TopicMissing, UnknownQueue
from processor.job import Job, Lane
from processor.states import State
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.records import AnyRecord, CheckpointRecord, LiveJobRecord, StatusRecord, StepRecord
from processor.wire.topics import QueueSpec

BULK = QueueSpec(name="bulk", partitions=2, lanes=(Lane.HIGH,))
PLAN = topic_plan("shop", [BULK])
JOB = Job(id="j1", type="import", version=1, queue="bulk", payload=b"{}", enqueued_at=1_000)


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker(ManualClock())
    admin.apply_topics(made, PLAN)
    return made


def write(broker: MemoryBroker, topic: str, key: bytes, record: AnyRecord | bytes | None, partition: int = -1) -> None:
    value = encode(record) if isinstance(record, tuple) else record
    producer = broker.producer()
    producer.append(OutRecord(topic, key, value, None, partition))
    assert producer.flush(1) == 0
    producer.close()


def commit(broker: MemoryBroker, topic: str, partition: int, offset: int, metadata: str = "") -> None:
    place = TopicPartition(topic, partition)
    broker.admin().commit("shop.jobs.bulk", [OffsetCommit(place, offset, metadata)])


def status(job_id: str, state: State, at: int, life: int = 1) -> StatusRecord:
    return StatusRecord(job_id, life, "import", "bulk", state, at, 1, "host/0")


def wider(partitions: int) -> list[TopicSpec]:
    return topic_plan("shop", [replace(BULK, partitions=partitions)])


# -- topics ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_creates_nothing() -> None:
    broker = MemoryBroker(ManualClock())
    review = admin.apply_topics(broker, PLAN, dry_run=True)
    assert {change.action for change in review.changes} == {Action.CREATE}
    assert broker.admin().topics() == {}


def test_applying_twice_changes_nothing(broker: MemoryBroker) -> None:
    assert set(broker.admin().topics()) == {spec.name for spec in PLAN}
    assert admin.apply_topics(broker, PLAN).changes == []
    assert admin.verify_topics(broker, PLAN) == []


def test_a_start_without_topics_names_all_that_are_missing() -> None:
    with pytest.raises(TopicMissing, match=r"shop\.checkpoints\.bulk does not exist; .*shop\.alerts") as caught:
        admin.verify_topics(MemoryBroker(ManualClock()), PLAN)
    assert caught.value.hint == "processor topics apply"


def test_a_start_that_would_lose_jobs_is_refused(broker: MemoryBroker) -> None:
    broker.admin().set_topic_config("shop.jobs.bulk", {"retention.ms": "1000"})
    with pytest.raises(TopicMismatch, match="unfinished jobs would be deleted"):
        admin.verify_topics(broker, PLAN)
    review = admin.apply_topics(broker, PLAN)
    assert [change.text for change in review.changes] == ["set retention.ms=-1 on shop.jobs.bulk"]
    assert admin.verify_topics(broker, PLAN) == []


def test_harmless_differences_are_returned(broker: MemoryBroker) -> None:
    broker.admin().set_topic_config("shop.checkpoints.bulk", {"segment.ms": "5000"})
    assert [difference.setting for difference in admin.verify_topics(broker, PLAN)] == ["segment.ms"]


def test_a_drained_queue_is_widened_with_the_normal_lane_last(broker: MemoryBroker) -> None:
    review = admin.apply_topics(broker, wider(4))
    assert [change.topic for change in review.changes if change.action is Action.WIDEN] == [
        "shop.checkpoints.bulk",
        "shop.dedupe.bulk",
        "shop.jobs.bulk.high",
        "shop.jobs.bulk.due",
        "shop.jobs.bulk",
    ]
    assert broker.admin().topics(["shop.jobs.bulk"])["shop.jobs.bulk"].partitions == 4


@pytest.mark.parametrize("wanted", [4, 16])
def test_the_status_topic_keeps_its_number_of_partitions(broker: MemoryBroker, wanted: int) -> None:
    plan = [replace(spec, partitions=wanted) if spec.name == "shop.status" else spec for spec in PLAN]
    review = admin.apply_topics(broker, plan)
    [refused] = review.refused
    assert f"8 partitions instead of {wanted}, and is never widened" in refused.text
    assert "topics.status_partitions = 8" in refused.text
    assert broker.admin().topics(["shop.status"])["shop.status"].partitions == 8
    [difference] = review.differences
    assert "topics.status_partitions = 8" in difference.text
    assert [found.topic for found in admin.verify_topics(broker, plan)] == ["shop.status"]


def test_a_queue_with_waiting_jobs_is_not_widened_unless_it_has_no_keys(broker: MemoryBroker) -> None:
    write(broker, "shop.jobs.bulk", b"j1", JOB)
    review = admin.apply_topics(broker, wider(4))
    assert {change.action for change in review.changes} == {Action.REFUSED}
    assert "queue bulk holds about 1 job" in review.refused[0].text
    assert broker.admin().topics(["shop.checkpoints.bulk"])["shop.checkpoints.bulk"].partitions == 2
    assert admin.apply_topics(broker, wider(4), keyless=["bulk"]).refused == []


def test_a_queue_with_a_live_job_is_not_widened(broker: MemoryBroker) -> None:
    progress = CheckpointRecord("j1", 1, 0, 1, 1, 5, "shop.jobs.bulk", 0, 1)
    write(broker, "shop.checkpoints.bulk", progress_key("j1"), progress)
    review = admin.plan_topics(broker, wider(4))
    assert "queue bulk holds 1 unfinished job" in review.refused[0].text
    end = progress._replace(sequence=2, final=encode(status("j1", State.SUCCEEDED, 6)))
    write(broker, "shop.checkpoints.bulk", progress_key("j1"), end)
    assert admin.plan_topics(broker, wider(4)).refused == []


def test_a_new_lane_of_a_busy_queue_is_as_wide_as_the_others(broker: MemoryBroker) -> None:
    write(broker, "shop.jobs.bulk", b"j1", JOB)
    plan = topic_plan("shop", [replace(BULK, partitions=4, lanes=(Lane.HIGH, Lane.LOW))])
    admin.apply_topics(broker, plan)
    assert broker.admin().topics(["shop.jobs.bulk.low"])["shop.jobs.bulk.low"].partitions == 2
    admin.verify_topics(broker, plan)


def test_partitions_are_never_removed(broker: MemoryBroker) -> None:
    review = admin.apply_topics(broker, wider(1))
    assert {change.action for change in review.changes} == {Action.REFUSED}
    assert "cannot be removed" in review.refused[0].text


@pytest.mark.parametrize(
    ("topic", "config"),
    [("shop.dlq", {"retention.ms": "-1"}), ("shop.dlq", {"cleanup.policy": "compact"})],
)
def test_what_would_delete_records_must_be_asked_for(broker: MemoryBroker, topic: str, config: dict[str, str]) -> None:
    broker.admin().set_topic_config(topic, config)
    review = admin.apply_topics(broker, PLAN)
    assert "deletes what is older" in review.refused[0].text
    assert broker.admin().topics([topic], configs=True)[topic].config.items() >= config.items()
    assert admin.apply_topics(broker, PLAN, shorten=True).refused == []
    assert admin.plan_topics(broker, PLAN).differences == []


def test_more_replicas_are_for_other_tools(broker: MemoryBroker) -> None:
    plan = [replace(spec, replication=3) for spec in PLAN]
    assert "Kafka's own tools" in admin.plan_topics(broker, plan).refused[0].text


# -- lag ---------------------------------------------------------------------------------------------------------------


def test_lag_counts_what_is_not_complete(broker: MemoryBroker) -> None:
    for number in range(5):
        write(broker, "shop.jobs.bulk", b"k", JOB._replace(id=f"j{number}"), partition=1)
    metadata = OffsetMetadata(epoch=3, slot="host/0", read_mark=5, ranges=((2, 3),))
    commit(broker, "shop.jobs.bulk", 1, 1, offset_metadata.encode(metadata, 1).text)
    lags = {(lag.lane, lag.number): lag for lag in admin.queue_lag(broker, "shop")}
    assert len(lags) == 6
    found = lags[Lane.NORMAL, 1]
    assert (found.start, found.end, found.waiting, found.slot, found.epoch) == (1, 5, 2, "host/0", 3)
    assert [found.is_done(offset) for offset in range(5)] == [True, False, True, True, False]
    assert lags[Lane.DUE, 0].waiting == 0


def test_lag_of_an_unknown_queue_names_the_known_ones(broker: MemoryBroker) -> None:
    with pytest.raises(UnknownQueue) as caught:
        admin.queue_lag(broker, "shop", ["bluk"])
    assert "bulk" in caught.value.hint
    assert admin.queue_lag(broker, "elsewhere") == []


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_the_status_of_a_job_is_its_latest_life_and_that_lifes_first_end(broker: MemoryBroker) -> None:
    assert admin.job_status(broker, "shop", "j1") is None
    for record in (
        status("j1", State.RUNNING, 1),
        status("j2", State.RUNNING, 99),
        status("j1", State.SUCCEEDED, 2),
        status("j1", State.DEAD, 3),
    ):
        write(broker, "shop.status", record.id.encode(), record)
    write(broker, "shop.status", b"j1", b"garbage", partition_for(b"j1", 8))
    found = admin.job_status(broker, "shop", "j1")
    assert found is not None
    assert found.state is State.SUCCEEDED
    write(broker, "shop.status", b"j1", status("j1", State.QUEUED, 4, life=2))
    write(broker, "shop.status", b"j1", status("j1", State.SUCCEEDED, 5, life=1))
    found = admin.job_status(broker, "shop", "j1")
    assert found is not None
    assert (found.state, found.life) == (State.QUEUED, 2)


def test_a_list_joins_status_and_lanes(broker: MemoryBroker) -> None:
    write(broker, "shop.status", b"a", status("a", State.SUCCEEDED, 50))
    for job_id in ("a", "b", "c"):
        write(broker, "shop.jobs.bulk", b"k", JOB._replace(id=job_id, enqueued_at=10 + ord(job_id)), partition=0)
    write(broker, "shop.jobs.bulk", b"x", b"garbage", partition=0)
    commit(broker, "shop.jobs.bulk", 0, 1)
    rows = admin.list_jobs(broker, "shop")
    assert [(row.id, row.state) for row in rows] == [
        ("c", State.QUEUED),
        ("b", State.QUEUED),
        ("a", State.SUCCEEDED),
    ]
    assert rows[1].place == ("shop.jobs.bulk", 0, 1)
    assert [row.id for row in admin.list_jobs(broker, "shop", states=frozenset({State.SUCCEEDED}))] == ["a"]
    assert [row.id for row in admin.list_jobs(broker, "shop", queue="bulk", limit=1)] == ["c"]
    assert admin.list_jobs(broker, "shop", type_="mail") == []
    with pytest.raises(UnknownQueue):
        admin.list_jobs(broker, "shop", queue="mail")


def test_saved_progress_is_the_fold_of_the_checkpoint_topic(broker: MemoryBroker) -> None:
    topic = topics.checkpoints_topic("shop", "bulk")
    old = CheckpointRecord("j1", 1, 0, 1, 1, 5, "shop.jobs.bulk", 0, 1, cursor="1")
    newest = old._replace(epoch=2, cursor="2")
    step = StepRecord("j1", 1, 0, 2, 2, "head", "finished", "7")
    gone = step._replace(name="gone")
    live = LiveJobRecord("j1", 1, 0, 2, 3, encode(JOB), "shop.jobs.bulk", 0, 9)
    for key, record in (
        (progress_key("j1"), newest),
        (progress_key("j1"), old),
        (step_key("j1", "head"), step),
        (step_key("j1", "gone"), gone),
        (step_key("j1", "gone"), None),
        (job_key("j1"), live),
        (signal_key("j1", "child-1"), b"signal"),
        (progress_key("j2"), newest._replace(id="j2")),
        (b"j1#nonsense", old),
    ):
        write(broker, topic, key, record, partition=1)
    found = admin.saved_progress(broker, "shop", "bulk", "j1")
    assert found is not None
    assert (found.number, found.ended, found.signals) == (1, False, ["child-1"])
    assert found.progress == newest
    assert found.steps == [step]
    assert found.live == live
    assert admin.saved_progress(broker, "shop", "bulk", "j1", number=0) is None
    assert admin.saved_progress(broker, "shop", "bulk", "unknown") is None


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_tail_shows_the_last_records_and_stops(broker: MemoryBroker) -> None:
    for number in range(5):
        write(broker, "shop.dlq", b"k", b"%d" % number, partition=0)
    shown = [record.value() for record in admin.tail(broker, ["shop.dlq"], count=2)]
    assert shown == [b"3", b"4"]
    assert len(list(admin.tail(broker, ["shop.dlq"], from_start=True))) == 5
    assert list(admin.tail(broker, ["shop.dlq"])) == []
    with pytest.raises(TopicMissing, match=r"shop\.nothing"):
        list(admin.tail(broker, ["shop.nothing"]))


def test_a_tail_follows(broker: MemoryBroker) -> None:
    write(broker, "shop.dlq", b"k", b"old", partition=0)
    records = admin.tail(broker, ["shop.dlq"], count=1, follow=True)
    assert next(records).value() == b"old"
    write(broker, "shop.dlq", b"k", b"new", partition=0)
    assert next(records).value() == b"new"
