"""Jobs that are stored with the rows they are about: sent if those are committed, once, whoever dies. On real parts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from processor.client.sender import Client
from processor.errors import DefinitionError, EnqueueUnconfirmed, PayloadInvalid, SettingsError
from processor.job import Job, Lane
from processor.job_ids import uuid7
from processor.outbox.relay import BATCH, Relay, create, open_database
from processor.outbox.table import jobs, metadata, store
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE, Walk
from tests.integration.test_critical import ids_in
from tests.postgres import postgres
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database with an outbox."""
    if request.param == "sqlite":
        path = tmp_path / "shop.sqlite"
        path.touch()
        yield f"sqlite:///{path}"
    else:
        with postgres() as url:
            yield url


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_database(database)
    create(engine)
    create(engine)  # a second time changes nothing
    yield engine
    jobs.drop(engine)
    engine.dispose()


def leaf(place: int, job_type: str = "walk") -> Job:
    now = 1_700_000_000_000 + place
    return Job(uuid7(now), job_type, 1, QUEUE, json.dumps({"items": 1}).encode(), now)


def waits(engine: Engine) -> int:
    with engine.connect() as sql:
        return sql.execute(select(func.count()).select_from(jobs)).scalar_one()


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    for process in STARTED:
        process.kill()
        process.communicate()
    STARTED.clear()


def run_outbox(fleet: Fleet, database: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "processor", "outbox", *words, "--database", database]
    command += ["--namespace", fleet.namespace, "--bootstrap", fleet.bootstrap]
    pipe, env = subprocess.PIPE, os.environ.copy()
    STARTED.append(subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True))
    return STARTED[-1]


def test_what_is_committed_is_sent_and_what_is_rolled_back_is_not(fleet: Fleet, engine: Engine) -> None:
    kept, dropped = [leaf(place) for place in range(3)], leaf(9)
    with Session(engine) as session:
        for job in kept:
            store(session, fleet.namespace, job, Lane.NORMAL)
        session.commit()
        store(session, fleet.namespace, dropped, Lane.NORMAL)
        session.rollback()
    with engine.begin() as sql:
        store(sql, "another", leaf(7), Lane.NORMAL)
    relay = Relay(engine, fleet.app.client())
    assert relay.waiting().rows == 3
    assert relay.drain() == (3, 0)
    assert relay.drain() == (0, 0)
    assert waits(engine) == 1, "what is of another namespace is left alone"
    fleet.start_ready("a")
    fleet.finish(job.id for job in kept)
    fleet.settle()
    assert {status.id for status in fleet.statuses()} == {job.id for job in kept}


def test_every_row_runs_once_though_relays_are_killed(fleet: Fleet, engine: Engine, database: str) -> None:
    stored = [leaf(place) for place in range(3_000)]
    with Session(engine) as session:
        for job in stored:
            store(session, fleet.namespace, job, Lane.NORMAL)
        session.commit()
    fleet.start_ready("a")
    for left in (2_999, 2_000):
        relay = run_outbox(fleet, database, "run")
        eventually(lambda left=left: waits(engine) <= left, 60, "the relay sends")  # type: ignore[misc]  # bound at once
        relay.kill()
        relay.communicate()
    once = run_outbox(fleet, database, "run", "--once")
    out, err = once.communicate(timeout=120)
    assert once.returncode == 0, err
    assert "sent" in out
    assert waits(engine) == 0
    fleet.finish((job.id for job in stored), 120)
    fleet.settle()
    assert Counter(str(line["job"]) for line in fleet.ledger("item")) == Counter(job.id for job in stored)


def test_of_two_relays_the_second_keeps_the_order(fleet: Fleet, engine: Engine) -> None:
    """The first has taken its rows and hangs: the second neither passes it nor thinks that nothing waits."""
    stored = [leaf(place)._replace(key="k") for place in range(BATCH + 20)]
    with Session(engine) as session:
        for job in stored:
            store(session, fleet.namespace, job, Lane.NORMAL)
        session.commit()
    client = fleet.app.client()
    taken, go_on = threading.Event(), threading.Event()

    class Slow:
        namespace = client.namespace

        def send_many(self, *what: Any) -> int:
            taken.set()
            go_on.wait(60)
            return client.send_many(*what)

    first, second = Relay(engine, cast("Client", Slow())), Relay(engine, client)
    with ThreadPoolExecutor() as threads:
        one = threads.submit(first.send_some)
        assert taken.wait(60)
        if engine.dialect.name == "postgresql":
            assert second.send_some() == (0, 0)
            other = threads.submit(second.drain)
            go_on.set()
            assert (one.result(60), other.result(60)) == ((BATCH, 0), (20, 0))
        else:
            assert second.drain() == (BATCH + 20, 0)
            go_on.set()
            one.result(60)
    assert waits(engine) == 0
    assert list(dict.fromkeys(ids_in(fleet))) == [job.id for job in stored]


def test_a_row_that_cannot_be_sent_holds_up_no_other(fleet: Fleet, engine: Engine) -> None:
    good, nowhere = leaf(1), leaf(2)._replace(queue="nowhere")
    with Session(engine) as session:
        store(session, fleet.namespace, nowhere, Lane.NORMAL)
        store(session, fleet.namespace, good, Lane.NORMAL)
        session.execute(
            jobs.insert().values(namespace=fleet.namespace, job_id="torn", lane="normal", job=b"?", stored_at=1)
        )
        session.commit()
    relay = Relay(engine, fleet.app.client())
    assert relay.drain() == (1, 2)
    assert relay.waiting() == (0, None, 2)
    refused = {job_id: why for job_id, _, why in relay.refused()}
    assert set(refused) == {nowhere.id, "torn"}
    assert "refused" in refused[nowhere.id]
    assert relay.retry_refused() == 2
    assert relay.waiting().rows == 2
    fleet.start_ready("a")
    fleet.finish([good.id])


def test_without_a_broker_the_rows_stay(engine: Engine, unique: str) -> None:
    from processor.app import App
    from processor.wire.settings_sources import load_settings

    settings = {"kafka.bootstrap": "127.0.0.1:1", "client.enqueue_timeout": "1s", "client.close_timeout": "1s"}
    app = App(unique, settings=load_settings(settings, env={}))
    with Session(engine) as session:
        store(session, unique, leaf(1), Lane.NORMAL)
        session.commit()
    relay = Relay(engine, app.client())
    with pytest.raises(EnqueueUnconfirmed):
        relay.send_some()
    assert relay.waiting().rows == 1
    app.close()


def test_the_commands_tell_what_waits_and_what_is_wrong(fleet: Fleet, engine: Engine, database: str) -> None:
    with Session(engine) as session:
        store(session, fleet.namespace, leaf(1), Lane.NORMAL)
        store(session, fleet.namespace, leaf(2)._replace(queue="nowhere"), Lane.NORMAL)
        session.commit()
    said = run_outbox(fleet, database, "show").communicate(timeout=60)[0]
    assert said.startswith("2 jobs to be sent, the oldest for")
    once = run_outbox(fleet, database, "run", "--once")
    assert once.communicate(timeout=60)[0] == "1 job sent, 1 refused: processor outbox show tells why\n"
    assert once.returncode == 1
    facts = json.loads(run_outbox(fleet, database, "show", "--json").communicate(timeout=60)[0])
    assert (facts["rows"], facts["refused"]) == (0, 1)
    assert facts["refused_rows"][0]["why"]
    jobs.drop(engine)
    missing = run_outbox(fleet, database, "run")
    _, err = missing.communicate(timeout=60)
    assert missing.returncode == 2
    assert "processor outbox create" in err
    create(engine)


def test_the_doors_store_a_job(fleet: Fleet, engine: Engine) -> None:
    """With all that an enqueue may be told; checked at once, without a broker."""
    walk = fleet.app.job_types["walk"]
    with Session(engine) as session:
        plain = walk.enqueue(Walk(items=2), session=session)
        keyed = [walk.enqueue(Walk(items=2), session=session, idempotency_key="order-7") for _ in range(2)]
        later = walk.enqueue(Walk(items=2), session=session, delay="2s")
        named = fleet.app.enqueue("walk", {"items": 2}, session=session)
        with pytest.raises(PayloadInvalid):
            fleet.app.enqueue("walk", {"items": "many"}, session=session)
        assert waits(engine) == 0, "nothing is committed"
        session.commit()
    assert keyed[0].id == keyed[1].id
    assert Relay(engine, fleet.app.client()).drain() == (5, 0)
    fleet.start_ready("a")
    ids = {handle.id for handle in (plain, *keyed, later, named)}
    for handle in (plain, *keyed, later, named):
        handle.result(timeout=60)
    fleet.settle()
    assert Counter(str(line["job"]) for line in fleet.ledger("item")) == dict.fromkeys(ids, 2)
    assert plain.result(timeout=20) == named.result(timeout=20)


def test_async_sessions_store_a_job(fleet: Fleet, tmp_path: Path) -> None:
    walk = fleet.app.job_types["walk"]
    path = tmp_path / "async.sqlite"

    async def both() -> list[str]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        async with engine.begin() as sql:
            await sql.run_sync(metadata.create_all)
        async with AsyncSession(engine) as session:
            first = await walk.aenqueue(Walk(items=1), session=session)
            with pytest.raises(DefinitionError, match="aenqueue"):
                walk.enqueue(Walk(items=1), session=session)
            await session.commit()
        async with engine.begin() as sql:
            second = await walk.aenqueue(Walk(items=1), session=sql)
        await engine.dispose()
        return [first.id, second.id]

    ids = asyncio.run(both())
    engine = open_database(f"sqlite:///{path}")
    assert Relay(engine, fleet.app.client()).drain() == (2, 0)
    engine.dispose()
    fleet.start_ready("a")
    fleet.finish(ids)


@pytest.mark.parametrize("session", [object(), "sqlite://", 7])
def test_what_is_no_session_is_refused(fleet: Fleet, session: object) -> None:
    with pytest.raises(DefinitionError, match="cannot store a job"):
        fleet.app.job_types["walk"].enqueue(Walk(items=1), session=session)


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite:////nowhere/at/all.sqlite", "oracle+none://x"])
def test_what_is_no_database_is_refused(url: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  (which of two says the next line)
        open_database(url)
    assert isinstance(caught.value, SettingsError) or "extra" in str(caught.value)


def test_a_file_that_is_no_database_is_told(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    path.write_bytes(b"no database at all" * 100)
    engine = open_database(f"sqlite:///{path}")
    relay = Relay(engine, fleet.app.client())
    for ask in (relay.waiting, relay.send_some, relay.retry_refused, relay.refused, lambda: create(engine)):
        with pytest.raises(SettingsError, match="not a database"):
            ask()
    engine.dispose()
