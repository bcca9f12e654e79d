"""A million jobs in the projection: how fast they get in, and how long each page and its slowest question take."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import httpx
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import select

from benchmarks.rows import Row, at_most, beside, percentile
from benchmarks.world import Kit
from processor.admin import apply_topics
from processor.app import App
from processor.broker.base import TopicPartition
from processor.clock import ManualClock
from processor.core.redrive import Address, job_of
from processor.job import ErrorInfo, Failure, Job, Place
from processor.ops import tables
from processor.ops.applying import Batch
from processor.ops.filters import parse
from processor.ops.folding import JobSeen, LetterSeen, Seen, StatusSeen
from processor.ops.login import ProxyLogin, networks
from processor.ops.projector import FETCH
from processor.ops.queries import LetterSet, Queries
from processor.ops.roles import Role, User
from processor.ops.store import Store
from processor.ops.web.serve import create
from processor.states import State
from processor.wire.codec import decode_dead_letter, encode
from processor.wire.records import DeadLetterRecord, StatusRecord
from processor.wire.settings_sources import load_settings

JOBS = 1_000_000
DEAD = 40
"""Each so-manieth job is dead."""
PLACE = TopicPartition("bench.jobs.orders", 0)
LONGEST_MS = 50.0
PAGE_MS = 500.0
REPEATS = 5
FIRST_AT = 1_700_000_000_000
"""When the first job was enqueued, milliseconds since the epoch; the others 10 ms later each."""
SEARCH = {f"order.{kind}": ("order_id",) for kind in ("charge", "ship", "mail", "report")}
FILTERS = (
    *("", "state:dead", "state:dead,succeeded", "state:retrying", "type:order.*", "type:order.charge state:dead"),
    *("queue:q3", "queue:q3,q4 state:dead", "error:ValueError state:dead", "order_id:777", "order_id:777 state:dead"),
    *("worker:host-1/3", "worker:host-1/3 state:dead", "id:0", "key:c1", "since:1h", "type:nothing", "Jane"),
)
HARD = (
    *("worker:host-1/3 state:retrying", "worker:host-1/3 type:order.nothing", "worker:host-1/* state:dead"),
    *("worker:host-0/1,host-1/1 state:dead queue:q2", "worker:host-0/1 type:order.charge", "state:retrying since:10m"),
    *("type:order.mail queue:q3 state:retrying", "error:KeyError", "state:running"),
)
"""Filters of which each condition alone means many jobs, and all together few or none."""


class Order(BaseModel):
    """Payload of all its jobs."""

    order_id: int
    customer: str


def projection(kit: Kit) -> list[Row]:
    """Fill it, beside a bare loop of `executemany` into a table of the same row; then ask what the pages ask."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/jobs.sqlite", "bench")
        store.prepare("c", SEARCH)
        store.begin_at([(PLACE, 0)])
        amount = kit.some(JOBS, 20_000)
        rates, bare = _fill(store, amount, Path(folder), kit.say)
        rows = [beside(f"projected, of {amount} jobs", rates, bare, 0.3, "jobs/s")]
        rows += [at_most(name, _slowest(ask), LONGEST_MS, "ms") for name, ask in _pages(Queries(store))]
        rows += [at_most(name, _slowest(ask), PAGE_MS, "ms") for name, ask in _whole_pages(kit, store, amount)]
        store.close()
        return rows


def _fill(store: Store, amount: int, folder: Path, say: Callable[[str], None]) -> tuple[float, float]:
    """Jobs in a second: ours and the bare loop's, in turns, so that both see the same machine.

    The bare loop puts the same finished rows into the same tables with the same indexes; it decides nothing.
    """
    Store(f"sqlite:///{folder}/bare.sqlite", "bench").prepare("c", SEARCH)
    loop = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    loop.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-65536")
    ours = bare = 0.0
    at, size = 0, FETCH // 2
    for start in range(0, amount, size):
        batch = [seen for number in range(start, min(start + size, amount)) for seen in _job(number)]
        began = time.perf_counter()
        with store.writing() as sql:
            Batch(sql, SEARCH).write(batch, {PLACE: (at, at + len(batch))})
        ours += time.perf_counter() - began
        at += len(batch)
        rows = _rows(store, _id(start), _id(start + size))
        began = time.perf_counter()
        loop.execute("BEGIN")
        for name, found in rows.items():
            loop.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(found[0]))})", found)
        loop.execute("COMMIT")
        bare += time.perf_counter() - began
        if start % 100_000 == 0:
            say(f"{start} jobs")
    loop.close()
    return amount / ours, amount / bare


def _rows(store: Store, first: str, last: str) -> dict[str, list[tuple[object, ...]]]:
    """What a batch has become, of all tables that name jobs."""
    found = {}
    for table in (tables.jobs, tables.bodies, tables.fields, tables.moves, tables.failures, tables.letters):
        key = table.c.id if table is tables.jobs else table.c.job_id
        with store.engine.connect() as sql:
            found[table.name] = [tuple(row) for row in sql.execute(select(table).where(key >= first, key < last))]
    return {name: rows for name, rows in found.items() if rows}


def _id(number: int) -> str:
    return f"0192{number:08x}-7000-8000-{random.Random(number).getrandbits(48):012x}"


def _job(number: int) -> list[Seen]:
    """Its record and its status; of each 40th a failure and a dead letter as well."""
    kind = ("charge", "ship", "mail", "report")[number % 4]
    at = FIRST_AT + number * 10
    payload = json.dumps({"order_id": number, "customer": f"c{number % 5000}"}).encode()
    job = Job(_id(number), f"order.{kind}", 1, f"q{number % 7}", payload, at, number=number % 12)
    worker = f"host-{number % 3}/{number % 8}"
    status = StatusRecord(job.id, 1, job.type, job.queue, State.SUCCEEDED, at + 5, 1, worker, number=job.number)
    found: list[Seen] = [JobSeen(job, Place(PLACE.topic, 0, number), False)]
    if number % DEAD:
        waits = number % 500 == 1
        return [*found, StatusSeen(status._replace(state=State.RETRYING) if waits else status, number)]
    error = Failure(
        "builtins.ValueError",
        f"order {number}",
        "shop.py:3",
        fingerprint=f"{number // DEAD % 60:012x}",
        at=at,
        attempt=1,
    )
    told = ErrorInfo(error.kind, error.message, error.traceback, error.fingerprint)
    found.append(StatusSeen(status._replace(state=State.DEAD, error=told), number))
    record = DeadLetterRecord(
        job.id, "failed", at, worker, *Place(PLACE.topic, 0, number), job=encode(job), failures=[error]
    )
    letter = decode_dead_letter(encode(record))
    return [*found, LetterSeen(Address(0, number), letter, job_of(letter), 300)]


def _pages(queries: Queries) -> Iterator[tuple[str, Callable[[], object]]]:
    now = FIRST_AT + JOBS * 10

    def asked(text: str) -> Callable[[], object]:
        where = parse(text, now, ["order_id"])
        return lambda: (queries.jobs(where), queries.count(where))

    for text in FILTERS:
        yield f"list and count of {text or 'all'!r}", asked(text)
    yield "states", queries.states
    yield "failures", queries.failure_groups
    yield "types", queries.types
    yield "dead letters", lambda: queries.letters(state="open")
    yield "dead letters of a type", lambda: queries.letters(state="open", type_="order.charge")
    yield "dead letters by error", queries.letter_groups
    yield "dead letters, counted", lambda: queries.letter_count(LetterSet(), "open")
    yield "one job", lambda: queries.job(_id(DEAD))
    yield "audit", queries.audit


def _whole_pages(kit: Kit, store: Store, amount: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Whole answers of the dashboard: of somebody who may see all queues, and of somebody who may see one."""
    app = App(
        f"bench-pages-{time.time_ns() % 10**9}", settings=load_settings({"kafka.bootstrap": kit.bootstrap}, env={})
    )
    for number in range(7):
        app.queue(f"q{number}", partitions=12)
    for name in SEARCH:
        app.job(name, queue="q0", payload=Order, search=["order_id"])(lambda ctx, order: None)
    apply_topics(app.broker(), app.topic_plan())
    # All of the last hour, and the busiest one that there is.
    clock = ManualClock(FIRST_AT + amount * 10)
    users = {
        "all": (User(name="all", role=Role.ADMIN), ""),
        "one": (User(name="one", role=Role.ADMIN, queues=frozenset({"q1"})), ""),
    }
    application = create(app, store, ProxyLogin(users, "X-User", networks("127.0.0.1")), clock=clock)
    job = _id(DEAD)
    lists = [f"/jobs?q={quote(text)}" for text in (*FILTERS, *HARD)]
    others = (
        "/failures",
        "/letters",
        "/letters?state=",
        "/queues",
        "/workers",
        "/schedules",
        "/replay",
        "/audit",
        "/care",
    )
    for path in ("/overview", *others, f"/care?q={job}", f"/jobs/{job}", *lists):
        yield f"page {unquote(path)}", lambda path=path: _answer(application, path, "all")  # type: ignore[misc]  # bound now
        if path != f"/jobs/{job}":  # it is of another queue
            yield f"page {unquote(path)} of q1", lambda path=path: _answer(application, path, "one")  # type: ignore[misc]


def _answer(application: FastAPI, path: str, user: str) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers={"X-User": user}
        ) as client:
            return await client.get(path)

    asyncio.run(ask()).raise_for_status()


def _slowest(ask: Callable[[], object]) -> float:
    """Milliseconds: the median of some askings, after one that warms the file's pages."""
    ask()
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        ask()
        spent.append((time.perf_counter() - began) * 1000)
    return percentile(spent, 0.5)
