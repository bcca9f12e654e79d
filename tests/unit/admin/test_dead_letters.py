"""Dead letters as operators see them, and their way back, on the memory broker."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from processor import admin
from processor.admin import dead_letters
from processor.admin import redrive as redriving
from processor.admin.dead_letters import LetterFilter
from processor.admin.redrive import Order, Settlement
from processor.broker.base import Broker, OutRecord
from processor.broker.memory import Frame, MemoryBroker
from processor.broker.memory.faults import ProcessKilled
from processor.clock import ManualClock
from processor.core.redrive import LetterState, Redrive
from processor.core.topic_plan import topic_plan
from processor.errors import (
    AbortRequired,
    BrokerError,
    DeadLetterError,
    ProducerFatal,
    RetriableBrokerError,
    TopicMissing,
)
from processor.job import Failure, Job
from processor.states import State
from processor.wire.codec import decode_audit, decode_job, decode_status, encode
from processor.wire.records import CheckpointRecord, DeadLetterRecord
from processor.wire.topics import QueueSpec

JOB = Job(id="j1", type="import", version=1, queue="bulk", payload=b"{}", enqueued_at=1_000)
OPEN = LetterFilter(states=frozenset({LetterState.OPEN}))


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker(ManualClock())
    admin.apply_topics(made, topic_plan("shop", [QueueSpec(name="bulk", partitions=4), QueueSpec(name="mail")]))
    return made


def letter(job: Job = JOB, **fields: Any) -> DeadLetterRecord:
    failure = Failure("ValueError", "no amount\nin row 3", "Traceback ...", "f1", 1, "host/0", 5)
    record = DeadLetterRecord(job.id, "exhausted", 5, "host/0", f"shop.jobs.{job.queue}", 2, 9, encode(job))
    return record._replace(failures=[failure])._replace(**fields)


def died(broker: Broker, *letters: DeadLetterRecord | bytes) -> None:
    producer = broker.producer()
    for number, one in enumerate(letters):
        value, key = (one, b"x") if isinstance(one, bytes) else (encode(one), one.id.encode() or b"%d" % number)
        producer.append(OutRecord("shop.dlq", key, value))
    assert producer.flush(1) == 0
    producer.close()


def many(broker: Broker, count: int) -> list[str]:
    ids = [f"j{number}" for number in range(count)]
    died(broker, *(letter(JOB._replace(id=job_id), at=number) for number, job_id in enumerate(ids)))
    return ids


def order(**fields: Any) -> Order:
    return replace(Order(by="eva@desk", reason="fixed", clock=ManualClock()), **fields)


def redrive(broker: Broker, where: LetterFilter = OPEN, how: Redrive = Redrive(), **fields: Any) -> Settlement:  # noqa: B008  (a frozen value)
    return redriving.redrive_letters(
        broker, "shop", dead_letters.list_letters(broker, "shop", where), how, order(**fields)
    )


def sent(broker: MemoryBroker, queue: str = "bulk") -> list[Job]:
    reader = admin.tail(broker, [f"shop.jobs.{queue}.due"], from_start=True)
    return [decode_job(record.value() or b"") for record in reader]


# -- looking -----------------------------------------------------------------------------------------------------------


def test_letters_come_newest_last_with_what_became_of_them(broker: MemoryBroker) -> None:
    died(broker, letter(at=9), letter(JOB._replace(id="j2", type="mail", queue="mail"), at=3, reason="crash_loop"))
    first, second = dead_letters.list_letters(broker, "shop")
    assert (first.id, first.type, first.queue, first.reason, first.at) == ("j2", "mail", "mail", "crash_loop", 3)
    assert (second.id, second.life, second.attempts, second.fingerprint) == ("j1", 1, 1, "f1")
    assert second.error == "ValueError: no amount"
    assert {first.state, second.state} == {LetterState.OPEN}


@pytest.mark.parametrize(
    "where",
    [
        {"reasons": frozenset({"crash_loop"})},
        {"types": frozenset({"mail"})},
        {"queues": frozenset({"mail"})},
        {"fingerprints": frozenset({"f2"})},
        {"names": frozenset({"j2", "j9"})},
        {"since": 7},
        {"states": frozenset({LetterState.OPEN}), "types": frozenset({"mail", "other"})},
    ],
)
def test_filters_choose(broker: MemoryBroker, where: dict[str, Any]) -> None:
    other = letter(JOB._replace(id="j2", type="mail", queue="mail"), at=7, reason="crash_loop")
    died(broker, letter(), other._replace(failures=[Failure("E", "m", fingerprint="f2")]))
    (found,) = dead_letters.list_letters(broker, "shop", LetterFilter(**where))
    assert found.id == "j2"
    (same,) = dead_letters.find_letters(broker, "shop", str(found.address))
    assert same == found


def test_groups_are_told_largest_first(broker: MemoryBroker) -> None:
    many(broker, 3)
    died(broker, letter(JOB._replace(id="other"), at=99, failures=[Failure("E", "m")]))
    rows = dead_letters.list_letters(broker, "shop")
    large, small = dead_letters.group_letters(rows, "fingerprint")
    assert (large.name, large.count, large.open, large.first, large.last) == ("f1", 3, 3, 0, 2)
    assert (small.name, small.error, small.example) == ("-", "E: m", rows[-1].address)
    assert [group.name for group in dead_letters.group_letters(rows, "type")] == ["import"]


def test_what_is_no_letter_is_shown_and_can_be_discarded(broker: MemoryBroker) -> None:
    died(broker, b"garbage", letter()._replace(id="", job=None, raw=b"what came", reason="undecodable"))
    rows = dead_letters.list_letters(broker, "shop")
    assert {row.reason for row in rows} == {"undecodable"}
    assert {row.life for row in rows} == {0}
    result = redrive(broker)
    assert (result.done, len(result.refused)) == (0, 2)
    assert all("cannot be redriven" in str(error) for _, error in result.refused)
    assert redriving.discard_letters(broker, "shop", rows, order()).done == 2
    assert {row.state for row in dead_letters.list_letters(broker, "shop")} == {LetterState.DISCARDED}


def test_an_unknown_letter_is_named(broker: MemoryBroker) -> None:
    with pytest.raises(DeadLetterError, match="no dead letter 0@99 in namespace shop"):
        dead_letters.find_letters(broker, "shop", "0@99")
    with pytest.raises(DeadLetterError, match="no dead letter of a job j9") as caught:
        dead_letters.find_letters(broker, "shop", "j9")
    assert "processor job show j9" in caught.value.hint
    with pytest.raises(TopicMissing, match=r"elsewhere\.dlq"):
        dead_letters.list_letters(broker, "elsewhere")


# -- redriving ---------------------------------------------------------------------------------------------------------


def test_a_redrive_sends_the_job_its_status_and_the_audit_record(broker: MemoryBroker) -> None:
    progress = encode(CheckpointRecord("j1", 1, 0, 1, 1, 5, "shop.jobs.bulk", 0, 1, cursor="1"))
    died(broker, letter(progress=progress))
    (row,) = dead_letters.list_letters(broker, "shop")
    assert redrive(broker).done == 1
    (job,) = sent(broker)
    assert (job.id, job.life, job.number, job.redriven_from) == ("j1", 2, 2, str(row.address))
    assert job.carried is not None
    assert job.carried.progress == progress
    (audit,) = [decode_audit(r.value() or b"") for r in broker.records("shop.audit")]
    assert (audit.action, audit.subject, audit.by, audit.reason) == ("redrive", str(row.address), "eva@desk", "fixed")
    assert (audit.job_id, audit.life, audit.detail) == ("j1", 2, "from its checkpoint")
    status = admin.job_status(broker, "shop", "j1")
    assert status is not None
    assert (status.state, status.life) == (State.QUEUED, 2)
    (row,) = dead_letters.list_letters(broker, "shop")
    assert (row.state, row.settled) == (LetterState.REDRIVEN, audit)


def test_a_letter_is_redriven_once(broker: MemoryBroker) -> None:
    many(broker, 3)
    before = dead_letters.list_letters(broker, "shop")
    assert redrive(broker).done == 3
    again = redriving.redrive_letters(broker, "shop", before, Redrive(), order())
    assert (again.done, again.skipped, again.refused) == (0, 3, [])
    assert len(sent(broker)) == 3
    died(broker, letter(JOB._replace(id="j1", life=2)))
    assert redrive(broker).done == 1
    assert Counter((job.id, job.life) for job in sent(broker)) == Counter([("j0", 2), ("j1", 2), ("j2", 2), ("j1", 3)])


def test_a_job_in_json_that_was_kept_as_it_came_goes_back_to_its_queue_and_number(broker: MemoryBroker) -> None:
    raw = b'{"id": "order-7", "type": "mail.send", "payload": {"to": "ann"}}'
    for job_id in ("", "order-7"):
        died(broker, letter()._replace(id=job_id, job=None, raw=raw, reason="internal_error"))
    first, second = dead_letters.list_letters(broker, "shop")
    assert (first.queue, second.queue) == ("bulk", "bulk")
    redrive(broker, LetterFilter(queues=frozenset({"bulk"})))
    jobs = sent(broker)
    assert [(job.id, job.queue, job.number, job.payload) for job in jobs] == [
        ("order-7", "bulk", 2, b'{"to": "ann"}') for _ in jobs
    ]
    assert jobs


def test_doubles_of_one_life_are_sent_once(broker: MemoryBroker) -> None:
    died(broker, letter(), letter())
    result = redrive(broker)
    assert (result.done, result.skipped) == (1, 1)
    assert {row.state for row in dead_letters.list_letters(broker, "shop")} == {LetterState.REDRIVEN}


def test_what_cannot_be_sent_holds_up_nothing_else(broker: MemoryBroker) -> None:
    lost = JOB._replace(id="lost", queue="gone")
    large = JOB._replace(id="large", payload=b"x" * 100_000)
    broker.admin().set_topic_config("shop.jobs.bulk.due", {"max.message.bytes": "50000"})
    died(broker, letter(lost), letter(JOB._replace(number=9), id="j1"), letter(large), letter(JOB._replace(id="j4")))
    result = redrive(broker)
    assert (result.done, result.skipped) == (1, 0)
    refused = {row.id: error for row, error in result.refused}
    assert set(refused) == {"lost", "j1", "large"}
    assert "its queue 'gone' has no topic 'shop.jobs.gone.due'" in str(refused["lost"])
    assert "dlq discard" in refused["lost"].hint
    assert [job.id for job in sent(broker)] == ["j4"]
    assert {row.id: row.state for row in dead_letters.list_letters(broker, "shop", OPEN)} == dict.fromkeys(
        refused, LetterState.OPEN
    )


def test_a_discarded_letter_is_sent_back_only_when_it_is_chosen(broker: MemoryBroker) -> None:
    died(broker, letter())
    rows = dead_letters.list_letters(broker, "shop")
    assert redriving.discard_letters(broker, "shop", rows, order()).done == 1
    assert redrive(broker).done == 0
    stale = redriving.redrive_letters(broker, "shop", rows, Redrive(), order())
    assert (stale.done, stale.skipped) == (0, 1), "it was open when it was chosen"
    assert redrive(broker, LetterFilter()).done == 1
    assert redriving.discard_letters(broker, "shop", dead_letters.list_letters(broker, "shop"), order()).skipped == 1


def test_a_rate_is_kept(broker: MemoryBroker) -> None:
    many(broker, 7)
    clock = ManualClock()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)

    steps: list[int] = []
    assert redrive(broker, rate=2.0, clock=clock, pause=pause, done=steps.append).done == 7
    assert steps == [2, 2, 2, 1]
    assert sum(pauses) == pytest.approx(3.5)


class Stopped(BaseException):
    """The command's process is gone."""


@dataclass
class Dies(ManualClock):
    """A clock by which a process dies: at the n-th look at it."""

    left: int
    kill: Callable[[], object]

    def __post_init__(self) -> None:
        super().__init__()

    def monotonic(self) -> float:
        self.left -= 1
        if self.left == 0:
            self.kill()
            raise Stopped
        return super().monotonic()


@pytest.mark.parametrize("look", range(1, 16))
def test_a_command_killed_anywhere_and_run_again_sends_each_once(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    monkeypatch.setattr(redriving, "BATCH", 3)
    ids = many(broker, 10)
    process = broker.process("command")
    with contextlib.suppress(Stopped, ProcessKilled):
        redrive(process, clock=Dies(look, process.kill))
    redrive(broker)
    assert Counter(job.id for job in sent(broker)) == Counter(ids)
    assert {row.state for row in dead_letters.list_letters(broker, "shop")} == {LetterState.REDRIVEN}
    statuses = [decode_status(r.value() or b"") for r in admin.tail(broker, ["shop.status"], from_start=True)]
    assert Counter(status.id for status in statuses) == Counter(ids)


def test_of_two_operators_the_first_is_told_and_nothing_is_sent_twice(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redriving, "BATCH", 3)
    ids = many(broker, 10)
    second: list[Settlement] = []

    def other(_: int) -> None:
        if not second:
            second.append(redrive(broker, by="tom@desk"))

    with pytest.raises(DeadLetterError, match="another redrive or discard of this namespace has begun") as caught:
        redrive(broker, done=other)
    assert "not done twice" in caught.value.hint
    assert second[0].done == 7
    assert Counter(job.id for job in sent(broker)) == Counter(ids)


OPERATOR = "shop.dlq.operator"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [AbortRequired("no"), RetriableBrokerError("slow"), ProducerFatal("gone")])
@pytest.mark.parametrize("operation", ["init", "begin", "append", "wait_acks", "commit"])
def test_a_faulty_broker_makes_no_letter_go_twice_or_not_at_all(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, operation: str, error: BrokerError, after: bool
) -> None:
    monkeypatch.setattr(redriving, "BATCH", 3)
    ids = many(broker, 10)
    broker.faults.fail_next(operation, error, after=after, transactional_id=OPERATOR, times=2)
    with contextlib.suppress(BrokerError):
        redrive(broker)
    redrive(broker)
    assert Counter(job.id for job in sent(broker)) == Counter(ids)
    assert {row.state for row in dead_letters.list_letters(broker, "shop")} == {LetterState.REDRIVEN}


@pytest.mark.parametrize("frame", [Frame.COMMIT, Frame.ABORT])
def test_a_late_frame_does_no_harm(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, frame: Frame) -> None:
    monkeypatch.setattr(redriving, "BATCH", 3)
    ids = many(broker, 10)
    held = broker.faults.hold_next(OPERATOR, frame)
    arrived: list[bool] = []

    def done(_: int) -> None:
        if held.caught and not arrived:
            arrived.append(held.release())

    redrive(broker, done=done)
    redrive(broker)
    assert arrived or frame is Frame.ABORT, "a redrive that goes well aborts nothing"
    assert Counter(job.id for job in sent(broker)) == Counter(ids)


def test_a_queue_that_no_topic_can_be_called_after_holds_up_nothing(broker: MemoryBroker) -> None:
    died(broker, letter(JOB._replace(id="odd", queue="no such queue!\n")), letter())
    result = redrive(broker)
    assert (result.done, [row.id for row, _ in result.refused]) == (1, ["odd"])
    assert "\n" not in str(result.refused[0][1])
