"""A million jobs in the projection: how fast they get in, and how long the slowest question of each page takes."""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import select

from benchmarks.rows import Row, at_most, beside, percentile
from benchmarks.world import Kit
from processor.broker.base import TopicPartition
from processor.core.redrive import Address, job_of
from processor.job import ErrorInfo, Failure, Job, Place
from processor.ops import tables
from processor.ops.applying import Batch
from processor.ops.filters import parse
from processor.ops.folding import JobSeen, LetterSeen, Seen, StatusSeen
from processor.ops.projector import FETCH
from processor.ops.queries import LetterSet, Queries
from processor.ops.store import Store
from processor.states import State
from processor.wire.codec import decode_dead_letter, encode
from processor.wire.records import DeadLetterRecord, StatusRecord

JOBS = 1_000_000
DEAD = 40
"""Each so-manieth job is dead."""
PLACE = TopicPartition("bench.jobs.orders", 0)
LONGEST_MS = 50.0
REPEATS = 5
SEARCH = {f"order.{kind}": ("order_id",) for kind in ("charge", "ship", "mail", "report")}
FILTERS = (
    *("", "state:dead", "state:dead,succeeded", "state:retrying", "type:order.*", "type:order.charge state:dead"),
    *("queue:q3", "queue:q3,q4 state:dead", "error:ValueError state:dead", "order_id:777", "order_id:777 state:dead"),
    *("worker:host-1/3", "worker:host-1/3 state:dead", "id:0", "key:c1", "since:1h", "type:nothing", "Jane"),
)


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
    at = 1_700_000_000_000 + number * 10
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
    now = 1_700_000_000_000 + JOBS * 10

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


def _slowest(ask: Callable[[], object]) -> float:
    """Milliseconds: the median of some askings, after one that warms the file's pages."""
    ask()
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        ask()
        spent.append((time.perf_counter() - began) * 1000)
    return percentile(spent, 0.5)
