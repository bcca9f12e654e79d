"""Jobs and steps per second of one worker process."""

from __future__ import annotations

from statistics import median

from benchmarks.engine import Report
from benchmarks.rows import Row, at_least, beside
from benchmarks.world import Bare, Kit, world
from processor.broker.base import TopicSpec

RUNS = 5


def noop(kit: Kit) -> list[Row]:
    """Jobs that do nothing, beside the hand-written loop on the same records: A B A B, medians."""
    return [_beside(kit, "noop", "threads"), _beside(kit, "noop_async", "asyncio")]


def _beside(kit: Kit, job_type: str, kind: str) -> Row:
    count = kit.some(200_000, 2_000)
    ours: list[Report] = []
    bare: list[Bare] = []
    with world(kit, "noop") as here:
        status = f"{here.namespace}.bare-status"
        here.broker.admin().create_topics([TopicSpec(name=status, partitions=8)])
        mails = ({"order_id": n, "to": "somebody@example.com", "n": 7} for n in range(count))
        here.fill(here.job(job_type, mail) for mail in mails)
        for run in range(RUNS):
            bare.append(here.bare("loop", kit.bootstrap, here.lane(), status, str(count)))
            if run:
                here.rewind()
            ours.append(here.engine(expect=count).report())
            kit.say(f"no-op, {kind}, run {run + 1}: {ours[-1].rate:,.0f} of {bare[-1].rate:,.0f} jobs/s")
    cpu, bare_cpu = median(report.cpu_of_a_job for report in ours), median(each.cpu for each in bare)
    kit.say(f"no-op, {kind}: {cpu:.1f} us of processor time a job, the loop {bare_cpu:.1f} us")
    rates, bare_rates = [report.rate for report in ours], [each.rate for each in bare]
    return beside(f"no-op jobs, {kind}", median(rates), median(bare_rates), 0.7, "jobs/s")


def steps(kit: Kit) -> list[Row]:
    """A hundred jobs at a time, each with so many steps that they reach the log while it runs."""
    count, per_job = 100, kit.some(3_000, 100)
    with world(kit, "steps") as here:
        here.fill(here.job("steps", {"count": per_job}) for _ in range(count))
        report = here.engine(expect=count).report()
    wrote = report.events.get("steps", 0)
    kit.say(f"{wrote:,} of {count * per_job:,} steps were written, the others' jobs had ended before the next flush")
    seconds = report.ended_at - report.active_at
    return [at_least("steps, many jobs", count * per_job / seconds, 20_000, "steps/s")]
