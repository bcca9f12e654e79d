"""Replaying the history of queues, on the memory broker."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from processor import admin
from processor.admin.dead_letters import list_letters
from processor.admin.replay import Outcome, Plan, plan_replay, replays_of, run_replay
from processor.admin.replay import run as running
from processor.admin.transactions import Order
from processor.broker.base import Broker, OffsetCommit, OutRecord, TopicPartition
from processor.broker.memory import Frame, MemoryBroker
from processor.broker.memory.faults import ProcessKilled
from processor.clock import ManualClock
from processor.core.audit import REPLAY, noted
from processor.core.dedupe import idempotent_id
from processor.core.redrive import LetterState
from processor.core.replay.history import LeftOut
from processor.core.replay.spec import Spec
from processor.core.topic_plan import topic_plan
from processor.errors import AbortRequired, BrokerError, ProducerFatal, ReplayError, RetriableBrokerError, UnknownQueue
from processor.job import Carried, Job, Lane
from processor.states import State
from processor.wire.codec import decode_checkpoint, decode_job, decode_status, encode
from processor.wire.groups import queue_group
from processor.wire.headers import routing_headers
from processor.wire.records import AuditRecord, CheckpointRecord, DeadLetterRecord, StatusRecord
from processor.wire.topics import QueueSpec, jobs_topic

CLOCK = ManualClock()
BEGIN = CLOCK.now_ms()
LANES = (Lane.NORMAL, Lane.DUE, Lane.LOW)
ALL = Spec(namespace="shop", queues=("bulk",), everything=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    made = MemoryBroker(clock)
    for namespace in ("shop", "test"):
        queues = [QueueSpec(name="bulk", partitions=3, lanes=LANES), QueueSpec(name="mail", partitions=2)]
        admin.apply_topics(made, topic_plan(namespace, queues))
    return made


def job(number: int = 0, **fields: Any) -> Job:
    made = Job(f"j{number}", "import", 1, "bulk", json.dumps({"n": number}).encode(), BEGIN + number)
    return made._replace(**fields)


def put(broker: Broker, *jobs: Job, lane: Lane = Lane.NORMAL, namespace: str = "shop") -> None:
    producer = broker.producer()
    for one in jobs:
        key = (one.id if one.key is None else one.key).encode()
        producer.append(OutRecord(jobs_topic(namespace, one.queue, lane), key, encode(one), routing_headers(one)))
    assert producer.flush(1) == 0
    producer.close()


def ended(broker: Broker, *jobs: Job, state: State = State.SUCCEEDED) -> None:
    producer = broker.producer()
    for one in jobs:
        status = StatusRecord(one.id, one.life, one.type, one.queue, state, BEGIN, 1, "host/0")
        producer.append(OutRecord("shop.status", one.id.encode(), encode(status)))
    assert producer.flush(1) == 0
    producer.close()


def plan(broker: Broker, spec: Spec = ALL, name: str | None = None, **fields: Any) -> Plan:
    return plan_replay(broker, replace(spec, **fields), CLOCK.now_ms(), name)


def order(**fields: Any) -> Order:
    return replace(Order(by="eva@desk", reason="fixed", clock=ManualClock()), **fields)


def run(broker: Broker, spec: Spec = ALL, name: str | None = None, **fields: Any) -> Outcome:
    return run_replay(broker, plan(broker, spec, name, **fields), order())


def lying(broker: MemoryBroker, namespace: str = "test", queue: str = "bulk", lane: Lane = Lane.NORMAL) -> list[Job]:
    """The jobs of a lane."""
    reader = admin.tail(broker, [jobs_topic(namespace, queue, lane)], from_start=True)
    return [decode_job(record.value() or b"") for record in reader]


# -- which jobs --------------------------------------------------------------------------------------------------------


def test_a_plan_counts_by_type_and_state_and_changes_nothing(broker: MemoryBroker) -> None:
    put(broker, *(job(n) for n in range(4)), job(4, type="report"))
    ended(broker, job(0), job(1))
    ended(broker, job(2), state=State.DEAD)
    before = {name: broker.records(name) for name in broker.admin().topics()}
    made = plan(broker)
    assert made.choice.counts() == {
        ("bulk", "import", "dead"): 1,
        ("bulk", "import", "queued"): 1,
        ("bulk", "import", "succeeded"): 2,
        ("bulk", "report", "queued"): 1,
    }
    assert (made.gone, made.unreadable, made.replay.frozen) == ([], 0, None)
    assert {name: broker.records(name) for name in broker.admin().topics()} == before


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"types": ("report",)}, {5}),
        ({"keys": ("k1",)}, {6}),
        ({"states": ("dead", "succeeded")}, {0, 1}),
        ({"states": ("queued",), "types": ("import",)}, {2, 3, 4, 6}),
        ({"where": ("n=3",)}, {3}),
        ({"where": ("n=3", "n=4")}, set()),
        ({"where": ("customer.names.1=eva",)}, {4}),
        ({"where": ("customer.id=7",)}, {4}),
        ({"where": ("customer.id=true",)}, set()),
        ({"where": ("customer.id=" + "[" * 100_000,)}, set()),
        ({"where": (f"customer.names.{'1' * 5_000}=eva",)}, set()),
        ({"where": ("customer.names.\u0661=eva",)}, set()),
        ({"everything": False, "since": "1970-01-01T00:00:00.003", "until": "1970-01-01T00:00:00.005"}, {3, 4}),
        ({"everything": False, "ids": ("j2", "j6")}, {2, 6}),
        ({"everything": False, "ids": ("j2", "j6"), "queues": ()}, {2, 6}),
    ],
)
def test_filters_choose(broker: MemoryBroker, fields: dict[str, Any], expected: set[int]) -> None:
    early = [job(n, enqueued_at=n) for n in range(4)]
    named = job(4, enqueued_at=4, payload=b'{"customer": {"id": 7, "names": ["ada", "eva"]}}')
    put(broker, *early, named, job(5, type="report", enqueued_at=5, payload=b"no JSON"), job(6, key="k1"))
    ended(broker, early[0])
    ended(broker, early[1], state=State.DEAD)
    assert {one.id for one in plan(broker, **fields).choice.jobs} == {f"j{n}" for n in expected}


def test_offsets_choose_within_one_lane(broker: MemoryBroker) -> None:
    put(broker, *(job(n) for n in range(30)))
    put(broker, job(99), lane=Lane.DUE)
    lane = [decode_job(r.value() or b"").id for r in broker.records("shop.jobs.bulk") if r.partition() == 1]
    spec = replace(ALL, everything=False, from_offsets=("1@2",), to_offsets=("1@5",))
    assert [one.id for one in plan(broker, spec).choice.jobs] == lane[2:5]
    every = plan(broker, ALL, everything=False, from_offsets=("0",)).choice.jobs
    assert {one.id for one in every} == {f"j{n}" for n in range(30)}
    with pytest.raises(ReplayError, match="has no partition 9"):
        plan(broker, spec, from_offsets=("9@2",))


def test_a_job_is_one_job_whatever_records_it_has_left(broker: MemoryBroker) -> None:
    put(broker, job(1, key="k"), job(2, key="k"))
    put(broker, job(1, key="k", hop=2, attempt=1), lane=Lane.DUE)
    put(broker, job(1, key="k", life=2, payload=b'{"n": 77}'), lane=Lane.DUE)
    made = plan(broker)
    assert [(one.id, one.life) for one in made.choice.jobs] == [("j1", 2), ("j2", 1)], "in the order in which they ran"
    run(broker, to_namespace="test")
    assert [one.payload for one in lying(broker)] == [b'{"n": 77}', b'{"n": 2}']


def test_what_its_parent_or_origin_starts_again_is_left_out(broker: MemoryBroker) -> None:
    put(broker, job(1), job(2, parent="j1", parent_life=1), job(3, parent="elsewhere"))
    run(broker, everything=False, ids=("j3",), queues=())
    made = plan(broker)
    assert {one.id for one in made.choice.jobs} == {"j1", "j3"}
    assert made.choice.left_out == {LeftOut.CHILD: 1, LeftOut.COPY: 1}
    assert [one.id for one in plan(broker, everything=False, ids=("j2",)).choice.jobs] == ["j2"]


def test_an_id_of_which_there_is_no_record_is_named(broker: MemoryBroker) -> None:
    put(broker, job(1))
    assert plan(broker, everything=False, ids=("j1", "j9", "j9")).choice.missing == ["j9"]


def test_a_record_that_is_no_job_is_counted(broker: MemoryBroker) -> None:
    producer = broker.producer()
    producer.append(OutRecord("shop.jobs.bulk", b"x", b"garbage"))
    producer.flush(1)
    put(broker, job(1))
    made = plan(broker)
    assert (made.unreadable, len(made.choice.jobs)) == (1, 1)


def test_a_job_that_another_program_wrote_as_json_is_replayed(broker: MemoryBroker) -> None:
    producer = broker.producer()
    producer.append(OutRecord("shop.jobs.bulk", b"o7", b'{"id": "o7", "type": "import", "payload": {"n": 7}}'))
    assert producer.flush(1) == 0
    made = plan(broker, everything=False, since="1970-01-01", where=("n=7",))
    assert [(one.queue, one.id) for one in made.choice.jobs] == [("bulk", "o7")]
    run(broker, to_namespace="test")
    (new,) = lying(broker)
    assert (new.redriven_from, new.type, new.queue) == ("shop/bulk/o7@1", "import", "bulk")
    assert json.loads(new.payload) == {"n": 7}


def test_enqueues_that_an_idempotency_key_kept_out_are_no_jobs(broker: MemoryBroker) -> None:
    name = idempotent_id("bulk", None, "order-7")
    put(broker, job(1, id=name, life=100), job(2, id=name, life=140), job(3))
    ended(broker, job(1, id=name, life=100))
    ends = broker.admin().end_offsets([TopicPartition("shop.jobs.bulk", number) for number in range(3)])
    commits = [OffsetCommit(place, end) for place, end in ends.items()]
    assert [one.life for one in plan(broker).choice.jobs if one.id == name] == [140], "it may yet begin a life"
    broker.admin().commit(queue_group("shop", "bulk"), commits)
    (one,) = [one for one in plan(broker).choice.jobs if one.id == name]
    assert (one.life, one.state) == (100, "succeeded")
    assert run(broker, everything=False, ids=(name,), same_ids=True, lane="low").sent == 1
    (new,) = lying(broker, "shop", lane=Lane.LOW)
    assert (new.life, json.loads(new.payload)) == (101, {"n": 1})


def test_a_forgotten_status_is_told_from_a_job_that_waits(broker: MemoryBroker) -> None:
    put(broker, *(job(n) for n in range(9)))
    ends = broker.admin().end_offsets([TopicPartition("shop.jobs.bulk", 0)])
    broker.admin().commit(queue_group("shop", "bulk"), [OffsetCommit(place, end) for place, end in ends.items()])
    states = {one.id: one.state for one in plan(broker).choice.jobs}
    done = {decode_job(r.value() or b"").id for r in broker.records("shop.jobs.bulk") if r.partition() == 0}
    assert done
    assert states == {f"j{n}": "unknown" if f"j{n}" in done else "queued" for n in range(9)}


# -- what is gone ------------------------------------------------------------------------------------------------------


def test_what_was_deleted_is_named(broker: MemoryBroker) -> None:
    put(broker, *(job(n) for n in range(30)))
    place = TopicPartition("shop.jobs.bulk", 1)
    broker.admin().delete_records({place: 4})
    (gone,) = plan(broker).gone
    assert (gone.queue, gone.lane, gone.number, gone.asked, gone.begins, gone.records) == ("bulk", "normal", 1, 0, 4, 4)
    (part,) = plan(broker, everything=False, from_offsets=("1@3",)).gone
    assert (part.asked, part.records) == (3, 1)
    assert plan(broker, everything=False, from_offsets=("1@4",)).gone == []
    (whole,) = plan(broker, everything=False, from_offsets=("1@1",), to_offsets=("1@3",)).gone
    assert whole.records == 2
    assert plan(broker, everything=False, ids=("j1",)).gone == [gone]


def test_by_time_nothing_is_gone_if_an_older_record_is_kept(broker: MemoryBroker, clock: ManualClock) -> None:
    put(broker, *(job(n, key="k") for n in range(3)))
    clock.advance(600)
    put(broker, *(job(n, key="k", enqueued_at=clock.now_ms()) for n in range(3, 6)))
    (number,) = {r.partition() or 0 for r in broker.records("shop.jobs.bulk")}
    now = clock.now_ms()

    def made(since: str) -> Plan:
        return plan_replay(broker, replace(ALL, everything=False, since=since), now)

    assert {one.id for one in made("5m").choice.jobs} == {"j3", "j4", "j5"}
    broker.admin().delete_records({TopicPartition("shop.jobs.bulk", number): 1})
    assert made("5m").gone == []
    (gone,) = made("1h").gone
    assert (gone.records, gone.number) == (1, number)
    broker.admin().delete_records({TopicPartition("shop.jobs.bulk", number): 6})
    (gone,) = made("5m").gone
    assert (gone.records, gone.oldest) == (6, None)


# -- what they become --------------------------------------------------------------------------------------------------


def test_new_ids_are_linked_to_the_old_ones(broker: MemoryBroker) -> None:
    old = job(1, key="k", kill_at=BEGIN + 5_001, attempt=2, hop=4, life=3, deaths=1, parent="p", parent_life=1)
    put(broker, old)
    assert run(broker, to_namespace="test", to_queue="mail").sent == 1
    (new,) = lying(broker, queue="mail")
    assert new.id != old.id
    assert new.redriven_from == "shop/bulk/j1@3"
    assert (new.queue, new.life, new.hop, new.attempt, new.deaths) == ("mail", 1, 0, 0, 0)
    assert (new.parent, new.parent_life, new.key, new.payload, new.type) == (None, 0, "k", old.payload, "import")
    assert (new.kill_at or 0) - new.enqueued_at == 5_000
    (record,) = broker.records("test.status")
    status = decode_status(record.value() or b"")
    assert (status.id, status.state) == (new.id, State.QUEUED)
    assert status.note == "replayed from shop/bulk/j1@3 by eva@desk: fixed"
    assert dict(broker.records("test.jobs.mail")[0].headers() or [])["derived"] == b"1"


def test_another_name_gives_other_ids(broker: MemoryBroker) -> None:
    put(broker, job(1))
    run(broker, ALL, "one", to_namespace="test")
    run(broker, ALL, "two", to_namespace="test")
    assert len({one.id for one in lying(broker)}) == 2


def test_jobs_of_a_key_keep_their_order_and_number(broker: MemoryBroker) -> None:
    put(broker, *(job(n, key=f"k{n % 5}") for n in range(60)))
    run(broker, to_namespace="test")
    for key in range(5):
        mine = [json.loads(one.payload)["n"] for one in lying(broker) if one.key == f"k{key}"]
        assert mine == list(range(key, 60, 5))
    old = {decode_job(r.value() or b"").key: r.partition() for r in broker.records("shop.jobs.bulk")}
    assert old == {decode_job(r.value() or b"").key: r.partition() for r in broker.records("test.jobs.bulk")}


def test_a_job_keeps_its_id_and_number_and_begins_its_next_life(broker: MemoryBroker) -> None:
    put(broker, job(1), job(2), job(3), job(4))
    ended(broker, job(1), job(3))
    ended(broker, job(4, life=2), state=State.DEAD)
    made = plan(broker, same_ids=True, lane="low")
    assert made.choice.left_out == {LeftOut.UNENDED: 1, LeftOut.LATER_LIFE: 1}
    assert run(broker, same_ids=True, lane="low").sent == 2
    number = {decode_job(r.value() or b"").id: r.partition() for r in broker.records("shop.jobs.bulk")}
    new = {decode_job(r.value() or b"").id: r for r in broker.records("shop.jobs.bulk.low")}
    assert set(new) == {"j1", "j3"}
    for name, record in new.items():
        one = decode_job(record.value() or b"")
        assert (one.life, one.number, record.partition()) == (2, number[name], number[name])
        status = admin.job_status(broker, "shop", name)
        assert status is not None
        assert (status.state, status.life) == (State.QUEUED, 2)


def test_in_another_namespace_a_job_keeps_its_life_too(broker: MemoryBroker) -> None:
    put(broker, job(1), job(2))
    assert run(broker, to_namespace="test", same_ids=True).sent == 2
    assert {(one.id, one.life, one.number) for one in lying(broker)} == {("j1", 1, None), ("j2", 1, None)}


def test_from_the_last_checkpoint(broker: MemoryBroker) -> None:
    def saved(name: str, cursor: str) -> bytes:
        return encode(CheckpointRecord(name, 1, 0, 1, 1, 5, "shop.jobs.bulk", 0, 1, cursor=cursor))

    put(broker, *(job(n) for n in range(1, 5)))
    put(broker, job(2, hop=2, attempt=1, carried=Carried([], saved("j2", "22"))), lane=Lane.DUE)
    ended(broker, job(1), state=State.DEAD)
    ended(broker, job(4))
    letter = DeadLetterRecord(
        "j1", "dead", 5, "host/0", "shop.jobs.bulk", 2, 9, encode(job(1)), progress=saved("j1", "11")
    )
    producer = broker.producer()
    producer.append(OutRecord("shop.dlq", b"j1", encode(letter)))
    producer.append(OutRecord("shop.checkpoints.bulk", b"j3", saved("j3", "33"), None, 0))
    assert producer.flush(1) == 0
    run(broker, to_namespace="test", from_checkpoint=True)
    found = {
        (one.redriven_from or "")[10:12]: one.carried and decode_checkpoint(one.carried.progress or b"").cursor
        for one in lying(broker)
    }
    assert found == {"j1": "11", "j2": "22", "j3": "33", "j4": None}
    run(broker, ALL, "from-start", to_namespace="test", to_queue="mail")
    assert [one.carried for one in lying(broker, queue="mail")] == [None] * 4


def test_a_dead_letter_whose_job_was_replayed_is_settled(broker: MemoryBroker) -> None:
    put(broker, job(1), job(2))
    ended(broker, job(1), job(2), state=State.DEAD)
    producer = broker.producer()
    for one in (job(1), job(2)):
        letter = DeadLetterRecord(one.id, "dead", 5, "host/0", "shop.jobs.bulk", 2, 9, encode(one))
        producer.append(OutRecord("shop.dlq", one.id.encode(), encode(letter)))
    assert producer.flush(1) == 0
    run(broker, everything=False, ids=("j1",), same_ids=True)
    run(broker, everything=False, ids=("j2",))
    states = {row.id: row.state for row in list_letters(broker, "shop")}
    assert states == {"j1": LetterState.REDRIVEN, "j2": LetterState.OPEN}
    (row,) = [row for row in list_letters(broker, "shop") if row.id == "j1"]
    assert row.settled is not None
    assert (row.settled.action, row.settled.by) == ("replay", "eva@desk")


# -- once --------------------------------------------------------------------------------------------------------------


def test_the_same_replay_sends_once(broker: MemoryBroker) -> None:
    put(broker, *(job(n) for n in range(20)))
    assert run(broker, to_namespace="test").sent == 20
    again = plan(broker, to_namespace="test")
    assert (again.left, again.replay.done is not None) == ([], True)
    assert run_replay(broker, again, order()) == Outcome(before=20)
    assert len(lying(broker)) == 20


def test_the_name_is_made_of_what_was_said() -> None:
    one = Spec(namespace="shop", queues=("mail", "bulk"), types=("b", "a", "a"), everything=True)
    other = Spec(namespace="shop", queues=("bulk", "mail"), types=("a", "b"), everything=True)
    assert one == other
    assert one.name() == other.name()
    # A replay that another version began must be found again: this digest never changes.
    assert ALL.name() == "76ce88380d01"
    assert len({ALL.name(), replace(ALL, lane="low").name(), replace(ALL, same_ids=True).name()}) == 3


def test_what_comes_later_is_no_part_of_it(broker: MemoryBroker) -> None:
    put(broker, *(job(n) for n in range(5)))
    made = plan(broker)
    put(broker, job(9))
    assert run_replay(broker, made, order()).sent == 5
    assert len(lying(broker, "shop")) == 11
    assert plan(broker).left == [], "nor are its own jobs"
    assert len(plan(broker, ALL, "next").choice.jobs) == 6


class Stopped(BaseException):
    """The command's process is gone."""


class Dies(ManualClock):
    """A clock by which a process dies: at the n-th look at it."""

    def __init__(self, left: int, kill: Callable[[], object]) -> None:
        super().__init__()
        self._left, self._kill = left, kill

    def monotonic(self) -> float:
        self._left -= 1
        if self._left == 0:
            self._kill()
            raise Stopped
        return super().monotonic()


@pytest.mark.parametrize("look", range(1, 24))
@pytest.mark.parametrize("same_ids", [False, True], ids=["new", "same"])
def test_a_replay_killed_anywhere_and_run_again_doubles_nothing(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, look: int, same_ids: bool
) -> None:
    monkeypatch.setattr(running, "BATCH", 4)
    jobs = [job(n) for n in range(20)]
    put(broker, *jobs)
    ended(broker, *jobs)
    spec = replace(ALL, lane="low", same_ids=same_ids)
    process = broker.process("command")
    with contextlib.suppress(Stopped, ProcessKilled):
        run_replay(process, plan(process, spec), order(clock=Dies(look, process.kill)))
    outcome = run(broker, spec)
    assert outcome.before + outcome.sent == 20
    assert Counter(json.loads(one.payload)["n"] for one in lying(broker, "shop", lane=Lane.LOW)) == Counter(range(20))
    assert replays_of(broker, "shop").of(spec.name()).done is not None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [AbortRequired("no"), RetriableBrokerError("slow"), ProducerFatal("gone")])
@pytest.mark.parametrize("operation", ["init", "begin", "append", "wait_acks", "commit"])
def test_a_faulty_broker_makes_no_job_go_twice_or_not_at_all(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, operation: str, error: BrokerError, after: bool
) -> None:
    monkeypatch.setattr(running, "BATCH", 4)
    put(broker, *(job(n) for n in range(20)))
    broker.faults.fail_next(operation, error, after=after, transactional_id="test.replay.fix", times=2)
    with contextlib.suppress(BrokerError):
        run(broker, ALL, "fix", to_namespace="test")
    outcome = run(broker, ALL, "fix", to_namespace="test")
    assert outcome.before + outcome.sent == 20
    assert Counter(json.loads(one.payload)["n"] for one in lying(broker)) == Counter(range(20))


def test_a_late_commit_does_no_harm(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BATCH", 4)
    put(broker, *(job(n) for n in range(20)))
    held = broker.faults.hold_next("test.replay.fix", Frame.COMMIT)
    arrived: list[bool] = []

    def done(_: int) -> None:
        if held.caught and not arrived:
            arrived.append(held.release())

    run_replay(broker, plan(broker, ALL, "fix", to_namespace="test"), order(done=done))
    assert arrived
    assert Counter(json.loads(one.payload)["n"] for one in lying(broker)) == Counter(range(20))


def test_of_two_at_once_the_second_goes_on(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BATCH", 4)
    put(broker, *(job(n) for n in range(20)))
    second: list[Outcome] = []

    def other(count: int) -> None:
        if count and not second:
            second.append(Outcome())
            second[0] = run(broker, to_namespace="test")

    with pytest.raises(ReplayError, match="goes on elsewhere"):
        run_replay(broker, plan(broker, to_namespace="test"), order(done=other))
    assert (second[0].before, second[0].sent) == (4, 16)
    assert Counter(json.loads(one.payload)["n"] for one in lying(broker)) == Counter(range(20))


def test_who_planned_while_another_began_is_told(broker: MemoryBroker) -> None:
    put(broker, job(1))
    made = plan(broker, to_namespace="test")
    put(broker, job(2))
    run(broker, to_namespace="test")
    with pytest.raises(ReplayError, match="begun elsewhere meanwhile"):
        run_replay(broker, made, order())
    assert len(lying(broker)) == 2


def test_a_record_that_cannot_be_sent_holds_up_nothing_else(broker: MemoryBroker) -> None:
    put(broker, job(1), job(2, payload=b'"' + b"x" * 100_000 + b'"'), job(3))
    broker.admin().set_topic_config("test.jobs.bulk", {"max.message.bytes": "50000"})
    outcome = run(broker, to_namespace="test")
    assert (outcome.sent, [one.id for one, _ in outcome.refused]) == (2, ["j2"])
    assert plan(broker, to_namespace="test").replay.done is None
    broker.admin().set_topic_config("test.jobs.bulk", {"max.message.bytes": "500000"})
    assert run(broker, to_namespace="test") == Outcome(before=2, sent=1)


def test_what_is_deleted_between_plan_and_run_is_counted(broker: MemoryBroker) -> None:
    put(broker, *(job(n) for n in range(30)))
    made = plan(broker, to_namespace="test")
    broker.admin().delete_records({TopicPartition("shop.jobs.bulk", 1): 4})
    outcome = run_replay(broker, made, order())
    assert (outcome.sent, outcome.gone) == (26, 4)


def test_a_rate_is_kept(broker: MemoryBroker) -> None:
    put(broker, *(job(n) for n in range(7)))
    clock = ManualClock()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)

    made = plan(broker, to_namespace="test")
    assert run_replay(broker, made, order(rate=2.0, clock=clock, pause=pause)).sent == 7
    assert sum(pauses) == pytest.approx(3.5)


# -- what makes no sense -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"everything": False}, ReplayError, "which part of the history"),
        ({"since": "1h"}, ReplayError, "which part of the history"),
        ({"queues": ()}, ReplayError, "which queues"),
        ({"queues": ("gone",)}, UnknownQueue, "queue gone has no topics"),
        ({"queues": ("bulk", "mail"), "everything": False, "from_offsets": ("1",)}, ReplayError, "one queue"),
        ({"everything": False, "from_offsets": ("x",)}, ReplayError, "no offset"),
        ({"everything": False, "since": "2026-99-01"}, ReplayError, "no moment"),
        ({"everything": False, "since": "soon"}, ReplayError, "no length of time"),
        ({"where": ("n",)}, ReplayError, "tests nothing"),
        ({"everything": False, "since": "1h", "until": "2h"}, ReplayError, "is not after --since"),
        ({"everything": False, "from_offsets": ("1", "2")}, ReplayError, "--from-offset twice"),
        ({"everything": False, "to_offsets": ("0@1", "0@2")}, ReplayError, "--to-offset twice"),
        ({"everything": False, "from_offsets": ("1@4",), "to_offsets": ("1@2",)}, ReplayError, "is before --from"),
        ({"same_ids": True, "to_queue": "mail"}, ReplayError, "its own queue"),
        ({"to_queue": "gone"}, ReplayError, r"no topic shop\.jobs\.gone"),
        ({"lane": "high"}, ReplayError, r"no topic shop\.jobs\.bulk\.high"),
        ({"source_lane": "high"}, ReplayError, "has a lane high"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    broker: MemoryBroker, fields: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        plan(broker, **fields)


def test_a_name_belongs_to_one_replay(broker: MemoryBroker) -> None:
    put(broker, job(1))
    run(broker, ALL, "fix", to_namespace="test")
    with pytest.raises(ReplayError, match="begun with other options: types"):
        plan(broker, ALL, "fix", to_namespace="test", types=("import",))


@pytest.mark.parametrize("break_it", [lambda d: d.update(begun={"spec": {"new": 1}}), lambda d: d.update(x=1)])
def test_a_replay_of_a_newer_version_is_not_gone_on_with(
    broker: MemoryBroker, break_it: Callable[[dict[str, Any]], None]
) -> None:
    detail: dict[str, Any] = {}
    break_it(detail)
    producer = broker.producer()
    producer.append(noted("test", AuditRecord(REPLAY, "replay:fix", 1, "eva@desk", detail=json.dumps(detail))))
    producer.flush(1)
    with pytest.raises(ReplayError, match="cannot be read by this version"):
        plan(broker, ALL, "fix", to_namespace="test")
