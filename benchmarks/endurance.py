"""Restoring what others left, and memory over very many jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from benchmarks import jobs
from benchmarks.rows import Row, at_most
from benchmarks.world import Kit, World, world
from processor.broker.base import OffsetCommit, OutRecord, TopicPartition
from processor.core.checkpoint import progress_key
from processor.core.offset_metadata import OffsetMetadata
from processor.core.offset_metadata import encode as encode_metadata
from processor.job import Lane
from processor.wire.codec import encode
from processor.wire.records import CheckpointRecord
from processor.wire.topics import checkpoints_topic

RUNS = 3
EPOCH = 3


def restore(kit: Kit) -> list[Row]:
    """A partition with 100,000 jobs that have saved something and are not finished, handed over in good order.

    From the group's assignment until the number is claimed and its first job may start.
    """
    live, seconds = kit.some(100_000, 1_000), []
    for run in range(RUNS):
        with world(kit, "restore", partitions=1) as here:
            _leave_unfinished(here, live)
            engine = here.engine()
            engine.wait_active()
            time.sleep(1.0)
            report = engine.stop()
        seconds.append(report.active_at - report.assigned_at)
        kit.say(f"restore, run {run + 1}: {seconds[-1]:.2f} s, of which reading {max(report.restores):.2f} s")
        if not report.finished:
            raise RuntimeError("no job went on after the restore")
    return [at_most(f"restore, {live:,} live checkpoints", median(seconds), 3, "s")]


def _leave_unfinished(here: World, live: int) -> None:
    """Write what a worker leaves that saved progress of every job of its lane and finished none."""
    made = [here.job("noop", {"order_id": n, "to": "somebody@example.com", "n": 7}) for n in range(live)]
    here.fill(made)
    topic = checkpoints_topic(here.namespace, jobs.QUEUE)
    now = time.time_ns() // 1_000_000

    def progress() -> Iterator[OutRecord]:
        for offset, job in enumerate(made):
            record = CheckpointRecord(
                id=job.id,
                life=1,
                hop=0,
                epoch=EPOCH,
                sequence=offset + 1,
                at=now,
                home_topic=here.lane(),
                home_offset=offset,
                attempt=1,
                cursor=str(offset),
            )
            yield OutRecord(topic, progress_key(job.id), encode(record), None, 0)

    here.append(progress())
    left = OffsetMetadata(epoch=EPOCH, slot="gone", read_mark=live, released=True, hint=0)
    idle = OffsetMetadata(epoch=EPOCH, slot="gone", read_mark=0, released=True, hint=0)
    here.commit(
        [
            OffsetCommit(TopicPartition(here.lane(), 0), 0, encode_metadata(left, 0).text),
            OffsetCommit(TopicPartition(here.lane(Lane.DUE), 0), 0, encode_metadata(idle, 0).text),
        ]
    )


def memory(kit: Kit) -> list[Row]:
    """One worker runs very many jobs, of which one in a hundred saves something; then another one takes over."""
    count = kit.some(5_000_000, 20_000)
    with world(kit, "memory") as here:
        mails = ({"order_id": n, "to": "somebody@example.com", "n": 7} for n in range(count))
        here.fill(here.job("mixed", mail) for mail in mails)
        report = here.engine(expect=count, watch_memory=True).report()
        kit.say(f"memory: {report.rate:,.0f} jobs/s")
        engine = here.engine(slot="bench-1")
        engine.wait_active()
        after = engine.stop()
    early = [mb for finished, mb in report.memory if 0.1 * count <= finished <= 0.2 * count]
    late = [mb for finished, mb in report.memory if finished >= 0.9 * count]
    done = f"{count / 1e6:g} M jobs"
    return [
        at_most(f"RSS of a worker over {done}, highest", max(mb for _, mb in report.memory), 200, "MB"),
        at_most(f"RSS at the end of {done}, beside 10 to 20 % in", median(late) / median(early), 1.1, "x"),
        at_most(f"restore after {done}, eight partitions", after.active_at - after.assigned_at, 1, "s"),
    ]
