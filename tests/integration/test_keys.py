"""Jobs of one key run one at a time, whatever lane they lie in and whoever owns their number."""

from __future__ import annotations

from collections import defaultdict

import pytest

from processor.job import Lane
from tests.integration.fleet import Fleet, Line
from tests.integration.jobs_app import PARTITIONS
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def overlaps(fleet: Fleet) -> list[str]:
    """Runs of one key that were beside each other. A run that did not end was over when its process was."""
    dead = {process.pid: process.killed_at for process in fleet.processes if process.killed_at is not None}
    running: dict[str, Line] = {}
    found = []
    for line in sorted((line for line in fleet.ledger() if "key" in line), key=lambda line: line["at"]):
        before = running.get(line["key"])
        if line["what"] == "end":
            if before is not None and before["job"] == line["job"] and before["pid"] == line["pid"]:
                del running[line["key"]]
            continue
        if before is not None and before["pid"] not in dead:
            found.append(f"{line['job']} beside {before['job']} of {line['key']}")
        running[line["key"]] = line
    return found


def test_jobs_of_one_key_in_two_lanes_never_run_beside_each_other(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    eventually(lambda: set(fleet.owners().values()) == {"a", "b"}, 30, fleet.describe)
    keys = [f"key-{index}" for index in range(12)]
    ids = []
    for _ in range(15):
        for key in keys:
            payload = {"key": key, "seconds": 0.05}
            ids += [fleet.append("keyed", payload, key=key, lane=lane).id for lane in (Lane.NORMAL, Lane.DUE)]
    fleet.flush()
    fleet.until_noted(60, "end")
    fleet.worker("a").kill()
    fleet.start_ready("c")
    fleet.until_noted(30, "end")
    fleet.start_ready("a")
    fleet.finish(ids)
    assert overlaps(fleet) == []
    first_end: dict[str, list[str]] = defaultdict(list)
    for line in fleet.ledger("end"):
        if line["job"] not in first_end[line["key"]]:
            first_end[line["key"]].append(line["job"])
    for index, key in enumerate(keys):
        mine = ids[2 * index :: 2 * len(keys)]
        normal = [job_id for job_id in first_end[key] if job_id in set(mine)]
        assert normal == mine, f"{key}: the normal lane's order"
    fleet.check_ends(told_twice=True)
    fleet.settle()


def test_blocked_key_blocks_no_other_key(fleet: Fleet) -> None:
    # So few may be held in memory that nearly all of those behind the blocked key are kept as their place only.
    fleet.settings["worker.inflight_max_records"] = "200"
    fleet.start_ready("a")
    blocked = "blocked"
    number = fleet.number_of(blocked)
    others = [key for index in range(200) if fleet.number_of(key := f"free-{index}") == number][:10]
    ids = [fleet.append("gated", {"key": blocked}, key=blocked).id]
    for _ in range(30):
        ids += [fleet.append("keyed", {"key": blocked}, key=blocked).id for _ in range(100)]
        fleet.append("keyed", {"key": others[0]}, key=others[0])
    free = [fleet.append("keyed", {"key": key}, key=key).id for key in others]
    elsewhere = [fleet.append("strict", {"amount": 1}, job_id=fleet.id_for(n, "e")).id for n in range(PARTITIONS)]
    fleet.flush()
    fleet.finish([*free, *elsewhere])
    assert [line["job"] for line in fleet.ledger() if line.get("key") == blocked] == ids[:1]
    (fleet.folder / f"gate-{blocked}").touch()
    fleet.finish(ids)
    assert [line["job"] for line in fleet.ledger("start") if line.get("key") == blocked] == ids
    assert overlaps(fleet) == []
    fleet.check_ends()
    fleet.settle()


def test_held_back_jobs_outlive_their_worker(fleet: Fleet) -> None:
    fleet.settings["worker.inflight_max_records"] = "200"
    fleet.start_ready("a")
    key = "blocked"
    ids = [fleet.append("gated", {"key": key}, key=key).id]
    ids += [fleet.append("keyed", {"key": key}, key=key).id for _ in range(600)]
    fleet.flush()
    eventually(lambda: fleet.ledger("start"), 30, fleet.describe)
    fleet.worker("a").kill()
    (fleet.folder / f"gate-{key}").touch()
    fleet.start("b")
    fleet.finish(ids)
    ran = [line["job"] for line in fleet.ledger("end")]
    assert ran == ids
    fleet.check_ends()
    fleet.settle()
