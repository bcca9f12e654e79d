"""Jobs of 10 ms, a hundred at a time, in the order of their keys."""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate
from statistics import median

from benchmarks.rows import Row, at_least, beside
from benchmarks.world import Kit, World, world

RUNS = 3


def zipf(keys: int, s: float, jobs: int) -> list[int]:
    """A key for each job, by Zipf's law; the same in every run."""
    weights = list(accumulate(1 / rank**s for rank in range(1, keys + 1)))
    return random.Random(7).choices(range(keys), cum_weights=weights, k=jobs)


def many_keys(kit: Kit) -> list[Row]:
    """10,000 keys, none of them hot, beside bare sleeps that know neither keys nor Kafka: A B A B, medians."""
    return [
        _beside(kit, "nap_async", "async-sleeps", "asyncio", 0.95),
        _beside(kit, "nap", "thread-sleeps", "threads", 0.80),
    ]


def _beside(kit: Kit, job_type: str, reference: str, kind: str, share: float) -> Row:
    count = kit.some(60_000, 2_000)
    ours, bare = [], []
    with world(kit, "order") as here:
        _fill(here, job_type, zipf(10_000, 0.5, count))
        for run in range(RUNS):
            bare.append(here.bare(reference, str(count)).rate)
            if run:
                here.rewind()
            ours.append(here.engine(expect=count).report().rate)
            kit.say(f"10 ms jobs, {kind}, run {run + 1}: {ours[-1]:,.0f} of {bare[-1]:,.0f} jobs/s")
    return beside(f"10 ms jobs, 10,000 keys, {kind}", median(ours), median(bare), share, "jobs/s")


def hot_key(kit: Kit) -> list[Row]:
    """1,000 keys of which one has every seventh job: how close it gets to its 100 a second."""
    rows = []
    for job_type, kind in (("nap_async", "asyncio"), ("nap", "threads")):
        keys = zipf(1_000, 1.0, kit.some(12_000, 1_000))
        with world(kit, "hot") as here:
            _fill(here, job_type, keys)
            ends = sorted(here.engine(expect=len(keys)).report().samples)
        rows.append(at_least(f"hottest of 1,000 keys, {kind}", (len(ends) - 1) / (ends[-1] - ends[0]), 90, "jobs/s"))
    return rows


def _fill(here: World, job_type: str, keys: list[int]) -> None:
    [(hottest, _)] = Counter(keys).most_common(1)
    here.fill(here.job(job_type, {"key": f"k{key}", "hot": key == hottest}, key=f"k{key}") for key in keys)
