"""Lists of jobs: whose queue is known, whose clock is wrong, and what cannot be read."""

from __future__ import annotations

import pytest

from processor import admin
from processor.admin.jobs import JobRow, list_jobs
from processor.broker.base import OutRecord
from processor.broker.memory import MemoryBroker
from processor.clock import ManualClock
from processor.core.topic_plan import topic_plan
from processor.errors import TopicMissing, UnknownQueue
from processor.job import ErrorInfo, Job
from processor.states import State
from processor.wire.codec import encode
from processor.wire.records import AnyRecord, StatusRecord
from processor.wire.topics import QueueSpec

JOB = Job("j", "import", 1, "bulk", b"{}", 1_000)


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker(ManualClock())
    queues = [QueueSpec(name="bulk", partitions=1), QueueSpec(name="mail", partitions=2)]
    admin.apply_topics(made, topic_plan("shop", queues))
    return made


def write(broker: MemoryBroker, topic: str, record: AnyRecord | bytes, key: bytes = b"k") -> None:
    producer = broker.producer()
    producer.append(OutRecord(topic, key, encode(record) if isinstance(record, tuple) else record))
    assert producer.flush(1) == 0
    producer.close()


def say(broker: MemoryBroker, job_id: str, state: State, at: int, life: int = 1, queue: str = "bulk") -> None:
    record = StatusRecord(job_id, life, "import", queue, state, at, 1, "w-0")
    write(broker, "shop.status", record, job_id.encode())


@pytest.mark.parametrize(
    "states", [None, frozenset({State.QUEUED}), frozenset({State.DEAD}), frozenset({State.SCHEDULED}), frozenset()]
)
def test_a_queue_that_is_not_there_is_told_whatever_states_are_asked_for(
    broker: MemoryBroker, states: frozenset[State] | None
) -> None:
    """Else a mistyped name is an empty list: nothing dead, all is well."""
    with pytest.raises(UnknownQueue, match="queue blk has no topics in namespace shop") as caught:
        list_jobs(broker, "shop", queue="blk", states=states)
    assert caught.value.hint == "there are: bulk, mail"
    with pytest.raises(UnknownQueue) as caught:
        list_jobs(broker, "other", queue="bulk", states=states)
    assert caught.value.hint == "there are: none"


def test_a_namespace_without_topics_is_told(broker: MemoryBroker) -> None:
    with pytest.raises(TopicMissing):
        list_jobs(broker, "other")


def states(rows: list[JobRow]) -> dict[str, State]:
    return {row.id: row.state for row in rows}


def test_a_list_says_what_a_handle_says_when_clocks_differ(broker: MemoryBroker) -> None:
    say(broker, "taken-over", State.RUNNING, 9_000)
    say(broker, "taken-over", State.SUCCEEDED, 4_000)  # by a worker whose clock is behind
    say(broker, "again", State.DEAD, 9_000)
    say(broker, "again", State.QUEUED, 4_000, life=2)
    found = states(list_jobs(broker, "shop"))
    assert found == {"taken-over": State.SUCCEEDED, "again": State.QUEUED}
    for job_id, state in found.items():
        told = admin.job_status(broker, "shop", job_id)
        assert told is not None
        assert told.state is state


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["ran", "mailed", "waits", "early"]),
        ({"queue": "mail"}, ["mailed"]),
        ({"queue": "bulk"}, ["ran", "waits", "early"]),
        ({"states": frozenset({State.QUEUED})}, ["waits", "early"]),
        ({"states": frozenset({State.SUCCEEDED, State.DEAD})}, ["ran", "mailed"]),
        ({"states": frozenset({State.SCHEDULED})}, ["later"]),
        ({"states": frozenset({State.SCHEDULED}), "queue": "mail"}, []),
        ({"type_": "import", "states": frozenset({State.DEAD})}, ["mailed"]),
        ({"type_": "report"}, []),
        ({"limit": 2}, ["ran", "mailed"]),
        ({"limit": 0}, []),
    ],
)
def test_jobs_are_chosen_and_the_newest_come_first(
    broker: MemoryBroker, chosen: dict[str, object], expected: list[str]
) -> None:
    say(broker, "ran", State.SUCCEEDED, 9_000)
    say(broker, "mailed", State.DEAD, 8_000, queue="mail")
    for job_id, at in (("waits", 7_000), ("early", 6_000), ("ran", 5_000)):
        write(broker, "shop.jobs.bulk", JOB._replace(id=job_id, enqueued_at=at))
    write(broker, "shop.retry.1h", JOB._replace(id="later", due_at=10**7, number=0))
    write(broker, "shop.retry.1h", JOB._replace(id="ran", due_at=10**7, number=0, attempt=1, hop=1))
    write(broker, "shop.retry.1h", b"garbage")
    write(broker, "shop.status", b"garbage")
    assert [row.id for row in list_jobs(broker, "shop", **chosen)] == expected  # type: ignore[arg-type]  # a table


def test_a_redriven_job_that_waits_is_not_hidden_by_its_last_life(broker: MemoryBroker) -> None:
    say(broker, "j", State.DEAD, 9_000)
    write(broker, "shop.jobs.bulk.due", JOB._replace(life=2))
    (row,) = list_jobs(broker, "shop")
    assert (row.state, row.life) == (State.QUEUED, 2)
    assert row.place == ("shop.jobs.bulk.due", 0, 0)


def test_a_row_shows_first_lines(broker: MemoryBroker) -> None:
    error = ErrorInfo("app.Broken", "first\nsecond\nthird")
    record = StatusRecord("j", 1, "import", "bulk", State.DEAD, 5, 2, "w-0", error=error, note="why\nnot")
    write(broker, "shop.status", record, b"j")
    (row,) = list_jobs(broker, "shop")
    assert (row.error, row.note, row.attempt) == ("app.Broken: first", "why", 2)
