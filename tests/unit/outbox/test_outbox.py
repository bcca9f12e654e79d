"""The outbox without a cluster: what its doors refuse, and what a full queue does to what was stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import create_async_engine

from processor.app import App
from processor.broker.base import TopicSpec
from processor.broker.memory import MemoryBroker
from processor.client.backlog import QueueFull
from processor.client.sender import Client
from processor.clock import ManualClock
from processor.errors import DefinitionError
from processor.outbox.relay import Relay, create, open_database


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "shop.sqlite").touch()
    engine = open_database(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    create(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def app() -> Iterator[App]:
    app = App("shop")
    clock = ManualClock()
    broker = MemoryBroker(clock, lambda ready, timeout: ready())
    app.queue("q", max_backlog=10)
    app.job("pay", queue="q")(lambda ctx: None)
    broker.admin().create_topics([TopicSpec(name=spec.name, partitions=1) for spec in app.topic_plan()])
    app.bind(broker)
    yield app
    app.close()


def test_what_was_stored_is_sent_to_a_full_queue_too(app: App, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.begin() as sql:
        for _ in range(30):
            app.job_types["pay"].enqueue(session=sql)
    monkeypatch.delattr(Client, "send")  # not one by one, as after an error
    assert Relay(engine, app.client()).drain() == (30, 0)
    monkeypatch.undo()
    with pytest.raises(QueueFull):
        app.job_types["pay"].enqueue()


def test_every_door_refuses_a_critical_job_that_nobody_waits_for(app: App, engine: Engine, tmp_path: Path) -> None:
    pay = app.job("capture", queue="q", critical=True)(lambda ctx: None)

    async def in_a_loop() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.sqlite'}")
        async with engine.begin() as sql:
            with pytest.raises(DefinitionError, match="wait=False"):
                await pay.aenqueue(session=sql, wait=False)
        await engine.dispose()
        with pytest.raises(DefinitionError, match="wait=False"):
            await pay.aenqueue(wait=False)

    asyncio.run(in_a_loop())
    with engine.begin() as sql, pytest.raises(DefinitionError, match="wait=False"):
        pay.enqueue(session=sql, wait=False)
    with pytest.raises(DefinitionError, match="wait=False"):
        app.enqueue("other", queue="q", critical=True, wait=False)
    assert Relay(engine, app.client()).waiting().rows == 0
