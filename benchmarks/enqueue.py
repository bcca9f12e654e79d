"""How many jobs a second a producer service publishes with `enqueue_many`, beside a hand-written producer."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from operator import truediv
from statistics import median

from confluent_kafka import Producer
from fastavro import schemaless_writer

from benchmarks import jobs
from benchmarks.jobs import QUEUE, Mail
from benchmarks.rows import Row, beside
from benchmarks.world import Kit, world
from processor.app import App
from processor.wire import schemas
from processor.wire.codec import MARKER

RUNS = 5
CONFIRMED_EVERY = 10
"""Rounds after which what was sent is confirmed."""


def many(kit: Kit) -> list[Row]:
    """A stream of payloads, A B A B, medians. The hand-written producer makes the same bytes of the same payloads with
    the usual tools (pydantic, uuid, fastavro), and checks nothing. What it sends of bytes that are made already is said
    beside it.
    """
    count = kit.some(100_000, 5_000)
    ours: list[float] = []
    bare: list[float] = []
    ready: list[float] = []
    with world(kit, "enqueue") as here:
        job_type = here.app.job_types["noop"]
        mails = [Mail(order_id=n, to="somebody@example.com", n=7) for n in range(count)]
        producer = _producer(kit.bootstrap)
        topic = here.lane()
        for run in range(RUNS):
            records = [_record(mail) for mail in mails]
            ready.append(_rate(partial(_send, producer, topic, iter(records)), count))
            bare.append(_rate(lambda: _send(producer, topic, map(_record, mails)), count))
            ours.append(_rate(lambda: job_type.enqueue_many(iter(mails)), count))
            kit.say(
                f"enqueue_many, run {run + 1}: {ours[-1]:,.0f} jobs/s, by hand {bare[-1]:,.0f}, bytes {ready[-1]:,.0f}"
            )
    return [beside("enqueue_many", median(ours), median(bare), 0.6, "jobs/s")]


def limited(kit: Kit) -> list[Row]:
    """Single enqueues that do not wait for their confirmation, to a queue with a limit and to one without, in many
    short rounds, now the one first and now the other; the median of the rounds' ratios, since a busy machine slows a
    whole round. What was sent is confirmed between rounds. The figure of the limit is read beside them twice a second.
    """
    rounds, count = kit.some(1_000, 50), 100
    rates: dict[str, list[float]] = {"limited": [], "free": []}
    with world(kit, "limit") as here:
        settings = here.app.settings()
        apps = {
            name: jobs.build(here.shape, settings, max_backlog=limit)
            for name, limit in (("limited", 1_000_000_000), ("free", None))
        }
        mail = Mail(order_id=1, to="somebody@example.com", n=7)

        def send(app: App) -> None:
            job_type = app.job_types["noop"]
            for _ in range(count):
                job_type.enqueue(mail, wait=False)

        for turn in range(-CONFIRMED_EVERY, rounds):  # the first ones open what is needed
            for name in sorted(apps, reverse=turn % 2 == 0):
                rate = _rate(partial(send, apps[name]), count)
                if turn >= 0:
                    rates[name].append(rate)
            if turn % CONFIRMED_EVERY == 0 and any(app.client().flush(60.0) for app in apps.values()):
                raise RuntimeError("jobs were not sent")
        left = [job_id for app in apps.values() for job_id in app.close()]
        if left:
            raise RuntimeError(f"{len(left)} jobs were not sent")
    ratio = median(map(truediv, rates["limited"], rates["free"]))
    kit.say(f"enqueue, {rounds} rounds of {count}: with a limit {ratio:.3f} of the rate without")
    without = median(rates["free"])
    return [beside("enqueue with a limit", ratio * without, without, 0.97, "jobs/s")]


Made = tuple[bytes, bytes, list[tuple[str, str | bytes | None]]]


SCHEMA = schemas.load("job").brief or {}
HEAD = MARKER + schemas.fingerprint(SCHEMA)


def _record(mail: Mail) -> Made:
    job_id = str(uuid.uuid4())
    job = {
        "id": job_id,
        "type": "noop",
        "version": 1,
        "queue": QUEUE,
        "payload": mail.model_dump_json().encode(),
        "enqueued_at": time.time_ns() // 1_000_000,
        "key": None,
    }
    sink = io.BytesIO()
    sink.write(HEAD)
    schemaless_writer(sink, SCHEMA, job)
    return job_id.encode(), sink.getvalue(), [("job-id", job_id.encode()), ("job-type", b"noop")]


def _send(producer: Producer, topic: str, records: Iterator[Made]) -> None:
    for key, value, headers in records:
        producer.produce(topic, value, key, headers=headers)
    producer.flush()


def _rate(send: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    send()
    return count / (time.perf_counter() - began)


def _producer(bootstrap: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
