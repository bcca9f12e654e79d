"""A worker that dies in the middle of a flush: its open transaction must not hold its successors up for long."""

from __future__ import annotations

import time

import pytest

from processor.broker.base import Isolation, TopicPartition
from tests.integration.fleet import Fleet, Process
from tests.integration.jobs_app import PARTITIONS
from tests.proxy import END_TXN, FrameProxy
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)

TRANSACTION_TIMEOUT = 30.0
"""Of the workers' producers: how long an open transaction would hide everything behind it."""


def is_open(fleet: Fleet) -> bool:
    """Whether a transaction is open in the checkpoint topic."""
    where = [TopicPartition(fleet.checkpoints, number) for number in range(PARTITIONS)]
    admin = fleet.broker.admin()
    return admin.end_offsets(where, Isolation.COMMITTED) != admin.end_offsets(where)


def kill_in_a_flush(fleet: Fleet, process: Process, proxy: FrameProxy) -> None:
    """The process behind the proxy dies between the last record of a flush and its commit."""
    mine = f"{fleet.namespace}.worker.".encode()  # not that of its forwarder or scheduler
    held = proxy.hold(END_TXN, lambda frame: mine in frame)
    # It could send the commit again on a new connection.
    proxy.refusing = True
    eventually(lambda: held.caught, 30, process.tail)
    process.kill()
    proxy.close()
    assert is_open(fleet)


def start_behind(fleet: Fleet, slot: str, proxy: FrameProxy) -> Process:
    process = fleet.start(slot, bootstrap=proxy.bootstrap)
    fleet.until_owned()
    return process


def test_take_over_is_bounded(fleet: Fleet, proxy: FrameProxy) -> None:
    first = start_behind(fleet, "a", proxy)
    fleet.start_ready("b")
    eventually(lambda: set(fleet.owners().values()) == {"a", "b"}, 30, fleet.describe)
    mine = {number for number, slot in fleet.owners().items() if slot == "a"}
    ids = [fleet.append("walk", {"items": 1000, "pause": 0.004}).id for _ in range(12)]
    fleet.flush()
    fleet.until_noted(200)
    kill_in_a_flush(fleet, first, proxy)
    killed = first.killed_at or 0.0
    eventually(lambda: set(fleet.owners().values()) == {"b"}, 30, fleet.describe)
    moved = {job_id for job_id in ids if fleet.number_of(job_id) in mine}
    assert moved
    survivor = fleet.worker("b")

    def resumed() -> bool:
        lines = fleet.ledger("item")
        return moved <= {line["job"] for line in lines if line["pid"] == survivor.pid}

    eventually(resumed, 30, fleet.describe)
    took = time.monotonic() - killed
    # The session of 3 s, the rebalance, 2 s until the wait for the pending offsets is given up, 1 s to end it.
    assert took < TRANSACTION_TIMEOUT / 2, f"{took:.1f} s"
    restores = [
        line["seconds"]
        for line in survivor.events("numbers.restored")
        if any(int(name.rpartition("-")[2]) in mine for name in line["numbers"].split(","))
    ]
    assert min(restores) < 6.0
    assert {line["slot"] for line in survivor.events("restore.dead_slot")} == {"a"}
    fleet.finish(ids)
    fleet.check_ends()
    fleet.settle()


def test_restart_in_the_dead_slot_ends_its_predecessors_transaction(fleet: Fleet, proxy: FrameProxy) -> None:
    # Longer than the test: nobody else could be given the numbers.
    fleet.settings["worker.session_timeout"] = "30s"
    first = start_behind(fleet, "a", proxy)
    ids = [fleet.append("walk", {"items": 800, "pause": 0.004}).id for _ in range(8)]
    fleet.flush()
    fleet.until_noted(200)
    kill_in_a_flush(fleet, first, proxy)
    second = fleet.start("a")
    eventually(lambda: any(line["pid"] == second.pid for line in fleet.ledger("item")), 20, fleet.describe)
    took = time.monotonic() - (first.killed_at or 0.0)
    assert took < TRANSACTION_TIMEOUT / 2, f"{took:.1f} s"
    # Its own producer did that; a slot never shoots itself.
    assert not second.events("restore.dead_slot")
    fleet.finish(ids)
    fleet.check_ends()
    fleet.settle()


def test_healthy_slot_is_never_shot_nor_its_own(fleet: Fleet, proxy: FrameProxy) -> None:
    first = start_behind(fleet, "a", proxy)
    healthy = fleet.start_ready("b", "c")
    eventually(lambda: set(fleet.owners().values()) == {"a", "b", "c"}, 30, fleet.describe)
    ids = [fleet.append("walk", {"items": 1200, "pause": 0.004}).id for _ in range(16)]
    fleet.flush()
    fleet.until_noted(300)
    kill_in_a_flush(fleet, first, proxy)
    eventually(lambda: set(fleet.owners().values()) == {"b", "c"}, 40, fleet.describe)
    # One more that joins while the others work takes numbers over from the living.
    fleet.start_ready("d")
    healthy.append(fleet.worker("d"))
    fleet.finish(ids)
    for process in healthy:
        assert {line["slot"] for line in process.events("restore.dead_slot")} <= {"a"}
        fenced = [line for line in process.events("flush.failed") if line["error_code"] != "stale_membership"]
        assert not fenced, process.tail()
        assert process.alive
    fleet.check_ends()
    fleet.settle()
