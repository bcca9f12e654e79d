"""Crashes, scaling in, scaling out: how long until a job's next item runs, what is done twice, what a worker adds.

Walks note each of their items (10 ms apart) with the process and the moment, so that everything can be read from the
ledger afterwards.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.jobs import NAP, QUEUE
from benchmarks.rows import Row, at_least, at_most, percentile
from benchmarks.world import Item, Kit, World, alive, until, world
from processor.broker.base import TopicPartition
from processor.wire.groups import queue_group

ENDLESS = 10_000_000
SLOTS = "abc"
SETTLED = 1.5
"""Seconds of quiet before the next disturbance."""


def kill(kit: Kit) -> list[Row]:
    """`kill -9` of a worker process under `processor worker`, which starts it again in its slot; four walks run."""
    runs, waits = kit.some(20, 2), []
    with world(kit, "kill", partitions=4) as here:
        here.fill(here.job("walk", {"count": ENDLESS}, job_id=here.id_for(number)) for number in range(4))
        for run in range(runs):
            supervisor = here.worker("k")
            pid = _runner(here, set())
            time.sleep(SETTLED)
            at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            until(lambda: _started_after(here, at, 4), "all walks to go on", pause=0.1)  # noqa: B023  (done in this turn)
            firsts = [next(item.at for item in items if item.at > at) for items in here.by_job().values()]
            waits += [first - at for first in firsts]
            _end(supervisor)
            kit.say(f"kill -9, run {run + 1}: {max(firsts) - at:.2f} s until all four go on")
    return [
        at_most("kill -9 to the job's next item, p50", median(waits), 1, "s"),
        at_most("kill -9 to the job's next item, p99", percentile(waits, 0.99), 2, "s"),
    ]


def third(kit: Kit) -> list[Row]:
    """Two workers on one busy queue, then a third, which leaves again: jobs a second, in turns. Beside it lies an idle
    queue, whose partitions are nobody's gain.
    """
    runs, seconds, slots = kit.some(3), max(2.0, 8.0 * kit.scale), 4
    most = 3 * slots / NAP  # jobs a second, if no slot ever waited
    flags = ("--no-supervise", "-q", "default")
    ratios = []
    with world(kit, "third", partitions=12, concurrency=slots) as here:
        here.fill(here.job("rest", {"key": ""}) for _ in range(int(most * (3 * seconds + 25) * runs)))
        for slot in SLOTS[:2]:
            here.worker(slot, *flags)
        for run in range(runs):
            two = _rate(here, 2, seconds)
            joiner = here.worker(SLOTS[2], *flags)
            three = _rate(here, 3, seconds)
            _end(joiner)
            two = (two + _rate(here, 2, seconds)) / 2
            ratios.append(three / two)
            kit.say(f"third worker, run {run + 1}: {three:,.0f} jobs/s by {two:,.0f}, {ratios[-1]:.2f} times")
    return [at_least(f"a third worker, 10 ms jobs, {slots} slots each", median(ratios), 1.3, "times")]


def _rate(here: World, workers: int, seconds: float) -> float:
    """Jobs that end in a second, once so many workers share the queue."""
    admin, group = here.broker.admin(), queue_group(here.namespace, QUEUE)
    places = [TopicPartition(here.lane(), number) for number in range(here.shape.partitions)]
    share = here.shape.partitions // workers

    def done() -> int:
        return sum(found.offset or 0 for found in admin.committed(group, places, stable=False).values())

    until(
        lambda: [len(member.partitions) for member in admin.members(group)] == [share] * workers,
        f"{workers} workers to share the queue",
        pause=0.2,
    )
    time.sleep(SETTLED)
    began, before = time.monotonic(), done()
    time.sleep(seconds)
    after = done()
    return (after - before) / (time.monotonic() - began)


def _runner(here: World, known: set[int]) -> int:
    """Process id of the worker that runs all walks now."""
    found: list[int] = []

    def seen() -> bool:
        pids = {items[-1].pid for items in here.by_job().values() if items}
        found[:] = [pid for pid in pids - known if alive(pid)]
        return len(pids) == 1 and len(found) == 1

    until(seen, "the walks to run")
    return found[0]


def _started_after(here: World, moment: float, walks: int) -> bool:
    return sum(items[-1].at > moment for items in here.by_job().values()) == walks


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    process.wait(60)


@dataclass(slots=True)
class _Moves:
    """What walks went through when a worker left or came. Seconds."""

    leave: list[float] = field(default_factory=list)
    """From SIGTERM to the first item at the next owner."""
    leave_idle: list[float] = field(default_factory=list)
    """From the last item at the old owner to the first at the next."""
    join_idle: list[float] = field(default_factory=list)


def scaling(kit: Kit) -> list[Row]:
    """Three workers share twelve walks; one leaves by SIGTERM and comes again, then the next one, and so on.

    So it is a rolling restart as well as scaling in and out.
    """
    runs, walks = kit.some(21, 3), 12
    moves = _Moves()
    with world(kit, "scaling", partitions=walks) as here:
        here.fill(here.job("walk", {"count": ENDLESS}, job_id=here.id_for(number)) for number in range(walks))
        workers = {slot: here.worker(slot, "--no-supervise") for slot in SLOTS}
        _until_shared(here, workers)
        for run in range(runs):
            slot = SLOTS[run % len(SLOTS)]
            leaver = workers.pop(slot)
            at = time.monotonic()
            _end(leaver)
            stay = {worker.pid for worker in workers.values()}
            until(lambda: _owners(here) == stay, "the other workers to take all walks")  # noqa: B023  (done in this turn)
            time.sleep(SETTLED)
            _note_leave(here, moves, leaver.pid, at)
            began = time.monotonic()
            joiner = workers[slot] = here.worker(slot, "--no-supervise")
            _until_shared(here, workers)
            _note_join(here, moves, joiner.pid, began)
            kit.say(
                f"scaling, run {run + 1}: idle {moves.leave_idle[-1]:.2f} s, one leaving; {moves.join_idle[-1]:.2f} s, "
                "one joining"
            )
        walked = here.by_job().values()
    redone = sum(len(items) - len({item.item for item in items}) for items in walked)
    return [
        at_most("SIGTERM to the job's next item elsewhere, p99", percentile(moves.leave, 0.99), 1.5, "s"),
        at_most("items redone by scaling in and out", redone, 0, "items"),
        at_most("idle per partition, one leaves, p99", percentile(moves.leave_idle, 0.99), 1, "s"),
        at_most("idle per partition, one joins, p50", median(moves.join_idle), 1.3, "s"),
        at_most("idle per partition, one joins, slowest", max(moves.join_idle), 2, "s"),
    ]


def _owners(here: World) -> set[int]:
    now = time.monotonic()
    lately = {job: items[-1] for job, items in here.by_job().items() if now - items[-1].at < 1.0}
    return {item.pid for item in lately.values()} if len(lately) == here.shape.partitions else set()


def _until_shared(here: World, workers: dict[str, subprocess.Popen[Any]]) -> None:
    pids = {worker.pid for worker in workers.values()}
    until(lambda: _owners(here) == pids, "all workers to have walks")
    time.sleep(SETTLED)


def _note_leave(here: World, moves: _Moves, pid: int, at: float) -> None:
    for before, after in _changes(here, lambda before, after: before.pid == pid and after.at > at):
        moves.leave.append(after.at - at)
        moves.leave_idle.append(after.at - before.at)


def _note_join(here: World, moves: _Moves, pid: int, began: float) -> None:
    for before, after in _changes(here, lambda before, after: after.pid == pid and after.at > began):
        moves.join_idle.append(after.at - before.at)


def _changes(here: World, wanted: Callable[[Item, Item], bool]) -> list[tuple[Item, Item]]:
    """Items of one walk, one after the other, in different processes."""
    return [
        (before, after)
        for items in here.by_job().values()
        for before, after in pairwise(items)
        if before.pid != after.pid and wanted(before, after)
    ]
