"""Jobs that wait to be tried again: when they come back, what they cost while they wait, and whom they hold up."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from statistics import median

from benchmarks import bare
from benchmarks.rows import Row, at_least, at_most, beside
from benchmarks.world import Kit, World, until, world
from processor.admin.reading import read_to_end
from processor.broker.base import OutRecord, TopicPartition
from processor.job import Job, Lane
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.headers import routing_headers

SHORTEST, LONGEST = 1.0, 120.0
BUCKETS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000)
"""Milliseconds."""
WAVE_AHEAD = 12.0
"""Seconds before a wave of records comes due."""


def delays(kit: Kit) -> list[Row]:
    """Jobs that ask for delays between 1 s and 120 s: from when each was due to the first line of its handler."""
    count = kit.some(10_000, 500)
    draw = random.Random(4)
    waits = [draw.uniform(SHORTEST, LONGEST) for _ in range(count)]
    with world(kit, "delays") as here:
        here.fill(here.job("stumble", {"after": wait}) for wait in waits)
        late = here.engine(expect_samples=count, patience=400.0).report().samples
    if len(late) < count:
        raise RuntimeError(f"{len(late)} of {count} jobs came back")
    for line in _histogram(late):
        kit.say(line)
    return [
        at_least("retry delays 1 s to 120 s, earliest", min(late), 0, "ms late"),
        at_most("retry delays, p50", median(late), 500, "ms late"),
        at_most("retry delays, latest", max(late), 1000 + SHORTEST * 10, "ms late"),
    ]


def _histogram(late: list[float]) -> Iterator[str]:
    counts = Counter(next((bucket for bucket in BUCKETS if value <= bucket), 0) for value in late)
    for bucket in (*BUCKETS, 0):
        if counts[bucket]:
            name = f"up to {bucket:>5} ms" if bucket else "          later"
            yield f"  {name}  {counts[bucket]:>6,}  {'#' * max(1, round(60 * counts[bucket] / len(late)))}"


def waiting(kit: Kit) -> list[Row]:
    """What records that wait in the retry chain cost a worker: its memory with none, and with very many.

    Two processes that live equally long and run nothing else. The records are alike, so they are packed well, and one
    answer of a broker holds several times its size: the worst case for a reader.
    """
    count = kit.some(200_000, 20_000)
    sizes: dict[str, float] = {}
    with world(kit, "waiting") as here:
        for name in ("none", "many"):
            if name == "many":
                far = time.time_ns() // 1_000_000 + 7 * 86_400_000
                here.append(_delayed(here, "1d", far, n) for n in range(count))
            engine = here.engine(slot=f"bench-{name}", watch_memory=True)
            engine.wait_active()
            time.sleep(15.0)
            sizes[name] = max(mb for _, mb in engine.stop().memory)
            kit.say(f"RSS with {count if name == 'many' else 0:,} waiting: {sizes[name]:.0f} MB")
    share = sizes["many"] / sizes["none"]
    return [at_most(f"RSS with {count:,} waiting retries, beside none", share, 1.1, "x")]


def wave(kit: Kit) -> list[Row]:
    """Very many that come due at once: how fast they reach the due lane."""
    count = kit.some(50_000, 5_000)
    with world(kit, "wave") as here:
        engine = here.engine(slot="bench-wave", paused=True)
        engine.wait_active()
        due = time.time_ns() // 1_000_000 + int(WAVE_AHEAD * 1000)
        here.append(_delayed(here, "30s", due, n) for n in range(count))
        lanes = [TopicPartition(here.lane(Lane.DUE), number) for number in range(here.shape.partitions)]
        admin = here.broker.admin()

        def arrived() -> int:
            return sum(admin.end_offsets(lanes).values())

        stamps: list[int] = []

        def all_there() -> bool:
            # Offsets count the marks of transactions too: they tell only when a look is worth its time.
            stamps[:] = _stamps(here, lanes) if arrived() >= count else []
            return len(stamps) >= count

        until(all_there, "the wave")
        engine.stop()
        copied = bare.copy(kit.bootstrap, here.lane(Lane.DUE), topics.retry_topic(here.namespace, "1s"), count)
    if len(stamps) != count:
        raise RuntimeError(f"{len(stamps)} of {count} arrived")
    seconds = (max(stamps) - due) / 1000
    kit.say(f"wave: first {min(stamps) - due} ms after it was due, last {max(stamps) - due} ms")
    return [
        beside(f"{count:,} retries due at once, beside a bare copy loop", count / seconds, copied, 0.3, "records/s"),
        at_least("the first of them", min(stamps) - due, 0, "ms late"),
    ]


def storm(kit: Kit) -> list[Row]:
    """Fresh jobs while a backlog of retried ones keeps the due lane full, beside fresh jobs alone."""
    count = kit.some(200_000, 5_000)
    rates: dict[str, list[float]] = {"alone": [], "storm": []}
    for _ in range(3):
        for name, found in rates.items():
            with world(kit, "storm") as here:
                mails = ({"order_id": n, "to": "somebody@example.com", "n": 7} for n in range(count))
                here.fill(here.job("noop", mail) for mail in mails)
                if name == "storm":
                    here.append(_returned(here, n) for n in range(2 * count))
                found.append(here.engine(expect=count, expect_type="noop").report().rate)
            kit.say(f"fresh jobs, {name}: {found[-1]:,.0f} jobs/s")
    share = median(rates["storm"]) / median(rates["alone"])
    return [at_least("fresh jobs under a retry storm, beside none", share, 0.6, "x")]


def _job(here: World, number: int, **fields: object) -> Job:
    job = here.job("noop_due", {"order_id": number, "to": "somebody@example.com", "n": 7})
    return job._replace(number=here.number_of(job.id), hop=1, attempt=1, **fields)  # type: ignore[arg-type]  # by name


def _delayed(here: World, delay: str, due: int, number: int) -> OutRecord:
    """A job as it waits in a rung."""
    job = _job(here, number, due_at=due)
    topic = topics.retry_topic(here.namespace, delay)
    return OutRecord(topic, job.id.encode(), encode(job), routing_headers(job, derived=True))


def _returned(here: World, number: int) -> OutRecord:
    """A job as it comes back into the due lane."""
    job = _job(here, number)
    headers = routing_headers(job, derived=True)
    return OutRecord(here.lane(Lane.DUE), job.id.encode(), encode(job), headers, job.number or 0)


def _stamps(here: World, lanes: list[TopicPartition]) -> list[int]:
    """When the records of the due lane were written, milliseconds."""
    return [record.timestamp()[1] for record in read_to_end(here.broker, lanes)]
