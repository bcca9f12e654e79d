"""Orders of callers: what a cancel says, by what is known of the job."""

from __future__ import annotations

import pytest

from processor.broker.base import OutRecord, TopicPartition, TopicSpec
from processor.broker.memory import MemoryBroker, MemoryLimits
from processor.client.orders import cancelling, give, send
from processor.core.control import CANCEL, PAUSE
from processor.core.dedupe import idempotent_id
from processor.core.idempotency import life_at
from processor.errors import BrokerUnavailable, RecordRefused
from processor.states import TERMINAL, State
from processor.wire.codec import decode_audit, decode_control
from processor.wire.records import ControlRecord, StatusRecord

NOW = 1_767_225_600_000


def status(state: State, life: int = 1, number: int | None = None) -> StatusRecord:
    return StatusRecord("j", life, "mail", "bulk", state, NOW - 5, 1, "w-0", number=number)


@pytest.mark.parametrize(
    ("job_id", "known", "life", "queue", "number", "type_"),
    [
        ("j", None, 1, "", -1, ""),
        (idempotent_id("bulk", None, "order-7"), None, life_at(NOW), "", -1, ""),
        ("j", status(State.RUNNING, 3), 3, "bulk", -1, "mail"),
        ("j", status(State.QUEUED, 3, number=4), 3, "bulk", -1, "mail"),
        ("j", status(State.IN_DOUBT, number=4), 1, "bulk", -1, "mail"),
        ("j", status(State.RETRYING, 2, number=4), 2, "bulk", 4, "mail"),
        ("j", status(State.RETRYING, 2, number=0), 2, "bulk", 0, "mail"),
        ("j", status(State.SCHEDULED, number=4), 1, "bulk", 4, "mail"),
        ("j", status(State.RETRYING), 1, "bulk", -1, "mail"),
    ],
)
def test_a_cancel_names_the_life_and_where_a_waiting_job_will_be(
    job_id: str, known: StatusRecord | None, life: int, queue: str, number: int, type_: str
) -> None:
    order = cancelling(job_id, known, by="ada@desk", reason="why", now_ms=NOW)
    assert order is not None
    assert order[:5] == (f"job:{job_id}", CANCEL, NOW, "ada@desk", "why")
    assert (order.life, order.queue, order.number, order.type) == (life, queue, number, type_)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_what_has_ended_is_not_cancelled(state: State) -> None:
    assert cancelling("j", status(state), by="ada", reason="", now_ms=NOW) is None


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker(limits=MemoryLimits(delivery_seconds=0.05))
    made.admin().create_topics([TopicSpec(name=f"shop.{name}", partitions=1) for name in ("control", "audit")])
    return made


@pytest.mark.parametrize(
    ("order", "kept", "audited"),
    [
        (ControlRecord("job:j#", CANCEL, 5, "ada", "why", life=3), True, ("cancel", "job:j#", "j#", 3)),
        (ControlRecord("queue:bulk", PAUSE, 5, "ada", "why"), True, ("pause", "queue:bulk", "", 0)),
        (ControlRecord("type:mail", "resume", 5, "ada", "why"), False, ("resume", "type:mail", "", 0)),
    ],
)
def test_an_order_and_who_gave_it_are_both_there(
    broker: MemoryBroker, order: ControlRecord, kept: bool, audited: tuple[str, str, str, int]
) -> None:
    give(broker.producer(), "shop", order, 5)
    (said,) = broker.records("shop.control")
    assert said.key() == order.target.encode()
    value = said.value()
    assert (None if value is None else decode_control(value)) == (order if kept else None)
    (record,) = broker.records("shop.audit")
    found = decode_audit(record.value() or b"")
    assert (found.action, found.subject, found.job_id, found.life) == audited
    assert (found.at, found.by, found.reason) == (5, "ada", "why")


def test_an_order_that_is_not_confirmed_says_so_and_that_it_may_be_given_again(broker: MemoryBroker) -> None:
    broker.faults.outage(True)
    with pytest.raises(BrokerUnavailable) as caught:
        give(broker.producer(), "shop", ControlRecord("queue:bulk", PAUSE, 5, "ada", ""), 0.01)
    assert str(caught.value) == "pause of queue:bulk was not confirmed within 0.01 s"
    assert caught.value.hint == "give it again"


def test_an_order_that_the_broker_refuses_raises_its_reason(broker: MemoryBroker) -> None:
    broker.faults.refuse("shop.control")
    with pytest.raises(RecordRefused):
        give(broker.producer(), "shop", ControlRecord("queue:bulk", PAUSE, 5, "ada", ""), 5)


def test_nothing_to_send_is_sent_at_once(broker: MemoryBroker) -> None:
    broker.faults.outage(True)
    send(broker.producer(), [], 60, "nothing")
    broker.faults.outage(False)
    send(broker.producer(), [OutRecord("shop.audit", None, b"x")], 5, "one")
    assert broker.admin().end_offsets([TopicPartition("shop.audit", 0)]) == {("shop.audit", 0): 1}
