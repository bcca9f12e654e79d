"""A worker that stands still for longer than its session and then goes on as if nothing had happened."""

from __future__ import annotations

from collections import defaultdict

import pytest

from processor.core.checkpoint import KeyKind, parse_key
from processor.states import State
from processor.wire.codec import decode_checkpoint
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import PARTITIONS
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def test_nothing_a_zombie_does_is_kept(fleet: Fleet) -> None:
    fleet.settings["worker.session_timeout"] = "2s"
    (zombie,) = fleet.start_ready("a")
    # Long ones with progress, and short ones of which some have ended in memory when the process stands still.
    ids = [fleet.append("walk", {"items": 1500, "pause": 0.004}).id for _ in range(12)]
    ids += [fleet.append("steps", {"count": 6, "pause": 0.1}).id for _ in range(100)]
    fleet.flush()
    fleet.until_noted(200)
    zombie.freeze()
    fleet.start("b")
    eventually(lambda: list(fleet.owners().values()) == ["b"] * PARTITIONS, 40, fleet.describe)
    fleet.until_noted(200)
    before = {status.id for status in fleet.statuses() if status.worker == "a" and status.state is State.SUCCEEDED}
    zombie.thaw()
    eventually(lambda: zombie.events("numbers.lost"), 20, fleet.describe)
    fleet.finish(ids)
    fleet.check_ends()
    ended = fleet.ends()
    # It may have come back as a member: then it owns numbers again, and may end jobs, in a newer epoch.
    assert before <= {job_id for job_id, _ in ended}
    assert epochs_grow(fleet)
    for job_id in ids[:12]:
        assert ended[job_id, 1][0].result == b'{"total":%d}' % sum(range(1501))
    fleet.settle()
    assert zombie.alive


def epochs_grow(fleet: Fleet) -> bool:
    """Per checkpoint partition no record of an older epoch lies behind one of a newer."""
    highest: dict[int, int] = defaultdict(int)
    for record in fleet.records(fleet.checkpoints):
        value, key = record.value(), record.key()
        if value is None or key is None or parse_key(key).kind is not KeyKind.PROGRESS:
            continue
        epoch, number = decode_checkpoint(value).epoch, record.partition() or 0
        assert epoch >= highest[number], f"epoch {epoch} after {highest[number]} in {number} at {record.offset()}"
        highest[number] = epoch
    return bool(highest)


def test_zombie_whose_slot_was_taken_ends_itself(fleet: Fleet) -> None:
    # Still a member when the successor joins in its name. Had its session ended first, it would join anew, and the
    # successor would be the one that is fenced.
    fleet.settings["worker.session_timeout"] = "20s"
    (zombie,) = fleet.start_ready("a")
    ids = [fleet.append("walk", {"items": 1000, "pause": 0.004}).id for _ in range(8)]
    fleet.flush()
    fleet.until_noted(100)
    zombie.freeze()
    # As on another host: the lock of the slot is no hindrance there.
    fleet.settings["worker.state_dir"] = str(fleet.folder / "elsewhere")
    successor = fleet.start("a")
    eventually(lambda: successor.events("worker.ready"), 40, fleet.describe)
    fleet.until_noted(100)
    zombie.thaw()
    assert zombie.wait(30) == 3, zombie.tail()
    (refusal,) = zombie.events("worker.refused")
    assert refusal["code"] == "member_fenced"
    assert "another process runs with this instance id" in refusal["hint"]
    fleet.finish(ids)
    fleet.check_ends()
    assert epochs_grow(fleet)
    fleet.settle()
