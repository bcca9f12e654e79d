"""The relay: which databases it takes, what becomes of rows, and what it does when either side is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert, select

from processor.app import App
from processor.broker.base import TopicSpec
from processor.broker.memory import MemoryBroker, MemoryLimits
from processor.errors import DefinitionError, EnqueueUnconfirmed, ProcessorError, SettingsError
from processor.job import Job
from processor.outbox import relay
from processor.outbox.relay import Relay, Waiting, create, open_database
from processor.outbox.table import jobs, store
from processor.wire.codec import decode_job, encode
from processor.wire.headers import IDEMPOTENCY, header, is_derived
from processor.wire.settings_sources import load_settings


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "that is no address of a database"),
        ("shop.db", "that is no address of a database"),
        ("nosuch://x", "that is no address of a database"),
        ("postgresql://ada@db:port/shop", "that is no address of a database"),
        ("sqlite:////nowhere/shop.db", "there is no file /nowhere/shop.db"),
    ],
)
def test_what_is_no_database_is_told_where_it_is_given(url: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        open_database(url)


def test_a_password_in_an_address_is_not_told() -> None:
    with pytest.raises(SettingsError) as caught:
        open_database("postgresql://ada:hunter2@db:port/shop")
    assert "hunter2" not in str(caught.value) + caught.value.hint


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "shop.sqlite").touch()
    made = open_database(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    create(made)
    create(made)  # it is there already
    yield made
    made.dispose()


class Shop:
    """An app on a memory broker, and its relay."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.broker = MemoryBroker(limits=MemoryLimits(delivery_seconds=0.05))
        settings = load_settings({"client.enqueue_timeout": "50ms", "client.close_timeout": "50ms"}, env={})
        self.app = App("shop", settings=settings, broker=self.broker)
        self.app.queue("q", partitions=1)
        self.pay = self.app.job("pay", queue="q")(lambda ctx: None)
        self.broker.admin().create_topics([TopicSpec(name=spec.name, partitions=1) for spec in self.app.topic_plan()])
        self.relay = Relay(engine, self.app.client())

    def rows(self, **values: Any) -> None:
        with self.engine.begin() as sql:
            sql.execute(insert(jobs).values(**{"namespace": "shop", "lane": "normal", "stored_at": 5, **values}))

    def lane(self) -> list[str]:
        return [decode_job(record.value() or b"").id for record in self.broker.records("shop.jobs.q")]

    def left(self) -> list[tuple[str, str | None]]:
        with self.engine.connect() as sql:
            return [(row.job_id, row.refused) for row in sql.execute(select(jobs).order_by(jobs.c.id))]


@pytest.fixture
def shop(engine: Engine) -> Iterator[Shop]:
    made = Shop(engine)
    yield made
    made.broker.faults.outage(False)
    made.app.close()


def job(job_id: str, queue: str = "q") -> Job:
    return Job(job_id, "pay", 1, queue, b"", 1)


def test_what_is_rolled_back_is_never_sent(shop: Shop) -> None:
    with shop.engine.connect() as sql:
        shop.pay.enqueue(id="rolled-back", session=sql)
        sql.rollback()
        shop.pay.enqueue(id="kept", session=sql)
        sql.commit()
    assert shop.relay.drain() == (1, 0)
    assert shop.lane() == ["kept"]
    assert shop.relay.send_some() == (0, 0)


def test_rows_go_in_their_order_as_repeats_with_what_they_were_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH", 2)
    with shop.engine.begin() as sql:
        for number in range(4):
            shop.pay.enqueue(id=f"j{number}", session=sql)
        keyed = shop.pay.enqueue(idempotency_key="order-7", until="finished", session=sql)
    ticks: list[int] = []
    assert shop.relay.drain(ticks.append) == (5, 0)
    assert ticks == [2, 4, 5]
    assert shop.lane() == ["j0", "j1", "j2", "j3", keyed.id]
    headers = [record.headers() for record in shop.broker.records("shop.jobs.q")]
    assert all(is_derived(each) for each in headers), "a relay that died in between sends them once more"
    assert [header(each, IDEMPOTENCY) for each in headers] == [None] * 4 + [b"finished"]


def test_a_row_that_can_never_be_sent_holds_up_nobody_and_says_why(shop: Shop) -> None:
    shop.rows(job_id="garbage", job=b"\xff\x00", until=None)
    shop.rows(job_id="lane", job=encode(job("lane")), lane="express")
    shop.rows(job_id="no-topic", job=encode(job("no-topic", queue="gone")))
    shop.rows(job_id="fine", job=encode(job("fine")))
    shop.rows(job_id="theirs", job=encode(job("theirs")), namespace="other")
    assert shop.relay.waiting() == Waiting(4, 5, 0)
    done = shop.relay.drain()
    assert (done.sent, done.refused) == (1, 3)
    assert set(shop.lane()) == {"fine"}, "sent once more, as a repeat, when the others were looked for one by one"
    assert shop.relay.waiting() == Waiting(0, None, 3)
    told = {job_id: why for job_id, _, why in shop.relay.refused()}
    assert "'express' is not a valid Lane" in told["lane"]
    assert "gone" in told["no-topic"]
    assert set(told) == {"garbage", "lane", "no-topic"}
    assert [row[0] for row in shop.relay.refused(limit=1)] == ["garbage"]

    shop.broker.admin().create_topics([TopicSpec(name="shop.jobs.gone", partitions=1)])
    assert shop.relay.retry_refused() == 3
    assert shop.relay.drain() == (1, 2)
    assert [job_id for job_id, _ in shop.left()] == ["garbage", "lane", "theirs"]


def test_rows_stay_until_the_log_has_confirmed_them(shop: Shop) -> None:
    with shop.engine.begin() as sql:
        shop.pay.enqueue(id="j", session=sql)
    shop.broker.faults.outage(True)
    with pytest.raises(EnqueueUnconfirmed):
        shop.relay.send_some()
    assert shop.left() == [("j", None)]
    shop.broker.faults.outage(False)
    assert shop.relay.drain().sent == 1
    assert shop.left() == []
    assert set(shop.lane()) == {"j"}


def test_a_database_without_an_outbox_says_what_to_do(tmp_path: Path, shop: Shop) -> None:
    other = Relay(create_engine(f"sqlite:///{tmp_path / 'empty.sqlite'}"), shop.app.client())
    for ask in (other.waiting, other.refused, other.retry_refused, other.send_some, other.drain):
        with pytest.raises(SettingsError, match="no such table: processor_outbox") as caught:
            ask()
        assert "processor outbox create" in caught.value.hint
    other._engine.dispose()


def test_a_relay_outlives_outages_and_waits_longer_each_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with shop.engine.begin() as sql:
        shop.pay.enqueue(id="j", session=sql)
    failures = iter([SettingsError("the database"), EnqueueUnconfirmed("j", "nobody"), None, SettingsError("again")])
    waited: list[float] = []
    send_some = shop.relay.send_some

    def failing() -> Any:
        error: ProcessorError | None = next(failures, None)
        if error is not None:
            raise error
        return send_some()

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waited.append(timeout)
            if len(waited) == 6:
                self.set()
            return self.is_set()

    monkeypatch.setattr(shop.relay, "send_some", failing)
    shop.relay.run(Stop())
    assert waited == [1.0, 2.0, 0.0, 1.0, relay.LOOK_EVERY, relay.LOOK_EVERY]
    assert shop.lane() == ["j"]


@pytest.mark.parametrize("session", [None, "sqlite://", object(), 7])
def test_what_is_no_session_stores_nothing(session: object) -> None:
    from processor.job import Lane

    with pytest.raises(DefinitionError, match="cannot store a job"):
        store(session, "shop", job("j"), Lane.NORMAL)
