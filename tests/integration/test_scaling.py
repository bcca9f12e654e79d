"""Workers come and go under load: nothing runs twice, nothing stays behind."""

from __future__ import annotations

import pytest

from processor.job import Lane
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import PARTITIONS
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def load(fleet: Fleet, jobs: int, items: int) -> list[str]:
    """Long walks, enough for every number to have some."""
    ids = [fleet.append("walk", {"items": items, "pause": 0.005}).id for _ in range(jobs)]
    fleet.flush()
    return ids


def test_rolling_restart_under_load_redoes_nothing(fleet: Fleet) -> None:
    fleet.start_ready("a", "b", "c")
    ids = load(fleet, 12, 1500)
    for slot in ("a", "b", "c"):
        fleet.until_noted(300)
        worker = fleet.worker(slot)
        worker.terminate()
        assert worker.wait() == 0, worker.tail()
        fleet.start_ready(slot)
    fleet.finish(ids)
    assert fleet.redone() == 0
    fleet.check_ends()
    fleet.settle()


def test_restart_in_the_same_slot_is_no_rebalance_for_the_others(fleet: Fleet) -> None:
    fleet.settings["worker.session_timeout"] = "15s"
    a, b, c = fleet.start_ready("a", "b", "c")
    # A member is ready before the rebalance of its own joining has given it anything: count only after that.
    eventually(lambda: all(p.events("numbers.assigned") for p in (a, b, c)), 30, fleet.describe)
    ids = load(fleet, 12, 1200)
    fleet.until_noted(300)
    fleet.until_owned()
    others = [(p, len(p.events("numbers.assigned")), len(p.events("numbers.revoked"))) for p in (b, c)]
    owned = fleet.owners()
    a.hang_up()
    assert a.wait() == 0, a.tail()
    again = fleet.start("a")
    eventually(lambda: again.events("worker.ready"), 30, fleet.describe)
    fleet.finish(ids)
    for process, assigned, revoked in others:
        assert len(process.events("numbers.assigned")) == assigned, process.tail()
        assert len(process.events("numbers.revoked")) == revoked, process.tail()
    assert fleet.owners() == owned
    assert fleet.redone() == 0
    fleet.check_ends()


def test_scaling_out_and_in_redoes_nothing(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    ids = load(fleet, 12, 1500)
    fleet.until_noted(500)
    fleet.start_ready("c")
    eventually(lambda: set(fleet.owners().values()) == {"a", "b", "c"}, 30, fleet.describe)
    fleet.until_noted(500)
    third = fleet.worker("c")
    third.terminate()
    assert third.wait() == 0, third.tail()
    eventually(lambda: set(fleet.owners().values()) == {"a", "b"} and len(fleet.owners()) == PARTITIONS, 30)
    fleet.finish(ids)
    assert fleet.redone() == 0
    fleet.check_ends()
    fleet.settle()


def test_worker_that_stops_hands_over_long_before_its_session_is_over(fleet: Fleet) -> None:
    # A static member that only closes would keep its numbers for two minutes here.
    fleet.settings["worker.session_timeout"] = "120s"
    first, _ = fleet.start_ready("a", "b")
    ids = load(fleet, 12, 800)
    fleet.until_noted(300)
    first.terminate()
    assert first.wait() == 0, first.tail()
    fleet.finish(ids, 40)
    assert set(fleet.owners().values()) == {"b"}
    assert fleet.redone() == 0
    fleet.check_ends()


def test_revoke_flush_commits_under_cooperative_sticky(fleet: Fleet) -> None:
    (first,) = fleet.start_ready("a")
    ids = load(fleet, 12, 800)
    fleet.until_noted(300)
    (second,) = fleet.start_ready("b")
    eventually(lambda: "b" in fleet.owners().values(), 30, fleet.describe)
    taken = second.events("numbers.restored")
    # The first one's last flush committed: its successor finds the numbers released, with everything that was reached.
    assert not any("unclean" in line for line in taken), taken
    assert first.events("numbers.revoked")
    fleet.finish(ids)
    assert fleet.redone() == 0
    fleet.check_ends()


def test_all_lanes_of_a_number_have_one_owner(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    eventually(lambda: set(fleet.owners().values()) == {"a", "b"}, 30, fleet.describe)
    where: dict[str, int] = {}
    for number in range(PARTITIONS):
        for lane in (Lane.NORMAL, Lane.DUE):
            for index in range(5):
                job_id = fleet.id_for(number, f"{lane}-{index}")
                where[fleet.append("strict", {"amount": 1}, job_id=job_id, lane=lane).id] = number
    fleet.flush()
    fleet.finish(where)
    pids = {fleet.worker(slot).pid: slot for slot in ("a", "b")}
    owners = fleet.owners()
    ran = {line["job"]: pids[line["pid"]] for line in fleet.ledger("start")}
    assert ran == {job_id: owners[number] for job_id, number in where.items()}
    fleet.check_ends()
    fleet.settle()
