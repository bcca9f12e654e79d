"""What a hand-written loop does in the same place: each a process of its own that prints a rate, and for
`loop` the microseconds of processor time of one job.

python -m benchmarks.bare loop BOOTSTRAP JOBS_TOPIC STATUS_TOPIC JOBS
python -m benchmarks.bare async-sleeps JOBS
python -m benchmarks.bare thread-sleeps JOBS
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.jobs import NAP, QUEUE, Mail

AT_A_TIME = 100
COMMIT_EVERY = 0.05
"""Seconds between two transactions."""


def _clients(bootstrap: str, topic: str) -> tuple[Any, Any]:
    """A consumer that reads a topic from its beginning, and a producer that may begin a transaction."""
    from confluent_kafka import Consumer, Producer

    name = f"bare-{time.time_ns()}"
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": name,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "linger.ms": 5,
            "retry.backoff.ms": 3,
            "retry.backoff.max.ms": 50,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    consumer.subscribe([topic])
    producer.init_transactions()
    return consumer, producer


def loop(bootstrap: str, jobs_topic: str, status_topic: str, jobs: str) -> tuple[float, float]:
    """Consume, decode, validate, handle, encode a status record, offsets, a transaction per 50 ms; jobs per second.

    It reads the very records that the engine reads, and writes status records of the same schema and size.
    """
    from confluent_kafka import TopicPartition
    from fastavro import schemaless_reader, schemaless_writer

    from processor.wire import schemas
    from processor.wire.codec import HEAD, MARKER

    job_schema, status_schema = schemas.load("job").brief or {}, schemas.load("status").brief or {}
    head = MARKER + schemas.fingerprint(status_schema)
    consumer, producer = _clients(bootstrap, jobs_topic)
    wanted, done, begun = int(jobs), 0, False
    start = last = cpu = 0.0
    low: dict[int, int] = {}
    while done < wanted:
        messages = consumer.consume(500, 0.05)
        if messages and not start:
            start, cpu = time.perf_counter(), time.process_time()
            last = start
        for message in messages:
            job: Any = schemaless_reader(io.BytesIO((message.value() or b"")[HEAD:]), job_schema, None)
            _handle(Mail.model_validate_json(job["payload"]))
            low[message.partition() or 0] = (message.offset() or 0) + 1
            done += 1
            if not begun:
                producer.begin_transaction()
                begun = True
            sink = io.BytesIO()
            sink.write(head)
            schemaless_writer(sink, status_schema, _status(job))
            producer.produce(status_topic, sink.getvalue(), job["id"], message.partition() or 0)
        now = time.perf_counter()
        if low and (now - last > COMMIT_EVERY or done >= wanted):
            offsets = [TopicPartition(jobs_topic, partition, offset) for partition, offset in low.items()]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
            producer.commit_transaction()
            begun, last = False, now
            low.clear()
    rate, cpu = done / (time.perf_counter() - start), (time.process_time() - cpu) / done * 1e6
    consumer.close()
    return rate, cpu


def copy(bootstrap: str, source: str, target: str, count: int) -> float:
    """Read records and write them as they are into another topic, offsets with them, a transaction per 50 ms; records
    per second from the first record read to the last commit.
    """
    from confluent_kafka import TopicPartition

    consumer, producer = _clients(bootstrap, source)
    done, begun = 0, False
    start = last = 0.0
    low: dict[int, int] = {}
    while done < count:
        messages = consumer.consume(500, 0.05)
        if messages and not start:
            start = last = time.perf_counter()
        for message in messages:
            if not begun:
                producer.begin_transaction()
                begun = True
            producer.produce(target, message.value(), message.key(), headers=message.headers())
            low[message.partition() or 0] = (message.offset() or 0) + 1
            done += 1
        now = time.perf_counter()
        if begun and (now - last >= 0.05 or done >= count):
            offsets = [TopicPartition(source, partition, offset) for partition, offset in low.items()]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
            producer.commit_transaction()
            begun, last = False, time.perf_counter()
    consumer.close()
    return count / (last - start)


def _handle(payload: Mail) -> None:
    return None


def _status(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": job["id"],
        "life": 1,
        "type": job["type"],
        "queue": QUEUE,
        "state": "succeeded",
        "at": time.time_ns() // 1_000_000,
        "attempt": 1,
        "worker": "bench-0",
        "result": None,
    }


def async_sleeps(jobs: str) -> tuple[float, float]:
    """As many sleeps, so many at a time, on an event loop; per second."""

    async def run() -> float:
        left = int(jobs)

        async def one_after_the_other() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await asyncio.sleep(NAP)

        began = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(AT_A_TIME)))
        return int(jobs) / (time.perf_counter() - began)

    return asyncio.run(run()), 0.0


def thread_sleeps(jobs: str) -> tuple[float, float]:
    """The same in a pool of threads."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        began = time.perf_counter()
        for future in [pool.submit(time.sleep, NAP) for _ in range(int(jobs))]:
            future.result()
        return int(jobs) / (time.perf_counter() - began), 0.0


_ALL: dict[str, Callable[..., tuple[float, float]]] = {
    "loop": loop,
    "async-sleeps": async_sleeps,
    "thread-sleeps": thread_sleeps,
}

if __name__ == "__main__":
    print(*_ALL[sys.argv[1]](*sys.argv[2:]), flush=True)
    os._exit(0)
