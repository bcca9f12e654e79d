"""Jobs that outlive every timer, their lane record and the group's offsets."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from processor.context.values import decode_cursor
from processor.states import State
from processor.wire.codec import decode_checkpoint
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import PARTITIONS
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def _saved_row(fleet: Fleet, job_id: str) -> int:
    """The last row of the loop that the log knows as done."""
    values = [record.value() for record in fleet.records(fleet.checkpoints) if record.key() == job_id.encode()]
    loops = decode_checkpoint(values[-1] or b"").loops or {}
    return int(decode_cursor(loops["rows"].cursor))


def test_job_longer_than_the_poll_interval_finishes_once_without_a_rebalance(fleet: Fleet) -> None:
    # The interval may not be shorter than the session.
    fleet.settings["kafka.client.max_poll_interval_ms"] = "3000"
    fleet.settings["worker.session_timeout"] = "2500ms"
    a, b = fleet.start_ready("a", "b")
    eventually(lambda: set(fleet.owners().values()) == {"a", "b"}, 30, fleet.describe)
    spoken = [(p, len(p.events("numbers.assigned")), len(p.events("numbers.revoked"))) for p in (a, b)]
    job = fleet.append("sleep", {"seconds": 18.0})
    fleet.flush()
    assert fleet.end_of(job.id).state is State.SUCCEEDED
    assert len(fleet.ledger("start")) == 1
    for process, assigned, revoked in spoken:
        assert len(process.events("numbers.assigned")) == assigned, process.tail()
        assert len(process.events("numbers.revoked")) == revoked, process.tail()
        assert not process.events("numbers.lost")
    fleet.check_ends()
    fleet.settle()


def test_promoted_job_whose_lane_record_was_deleted_resumes_after_a_kill(fleet: Fleet) -> None:
    fleet.settings["worker.promote_after"] = "500ms"
    fleet.start_ready("a")
    job = fleet.append("walk", {"items": 1500, "pause": 0.01})
    fleet.flush()
    number = fleet.number_of(job.id)
    lane = fleet.lane(number=number)
    # Promoted: its offset is committed though it still runs.
    eventually(lambda: lane not in fleet.lag() and f"{job.id}#job" in fleet.live_keys(), 20, fleet.describe)
    end = fleet.broker.admin().end_offsets([lane])[lane]
    fleet.broker.admin().delete_records({lane: end})
    assert fleet.broker.admin().begin_offsets([lane])[lane] == end
    fleet.until_noted(100)
    fleet.worker("a").kill()
    reached = max(line["item"] for line in fleet.ledger("item"))
    saved = _saved_row(fleet, job.id)
    assert saved > 0
    fleet.start("b")
    assert fleet.end_of(job.id).state is State.SUCCEEDED
    starts = fleet.ledger("start")
    assert len(starts) == 2
    again = [line["item"] for line in fleet.ledger("item") if line["pid"] == fleet.worker("b").pid]
    # Its last transaction may have been committed after its death.
    assert saved < again[0] <= reached + 1
    fleet.check_ends()
    fleet.settle()


def test_expired_offsets_are_not_a_first_start(fleet: Fleet) -> None:
    fleet.settings["worker.promote_after"] = "300ms"
    (first,) = fleet.start_ready("a")
    # Some that end before and leave nothing, and some that are live.
    short = [fleet.append("strict", {"amount": 1}).id for _ in range(8)]
    long = [fleet.append("walk", {"items": 800, "pause": 0.01}).id for _ in range(8)]
    fleet.flush()
    fleet.finish(short)
    eventually(lambda: {f"{job_id}#job" for job_id in long} <= fleet.live_keys(), 20, fleet.describe)
    fleet.until_noted(300)
    first.terminate()
    assert first.wait() == 0, first.tail()
    reached = {job_id: _reached(fleet, job_id) for job_id in long}
    forget_offsets(fleet)
    (second,) = fleet.start_ready("b")
    alarms = second.events("restore.offsets_missing")
    # Every number has been claimed before, so each has a mark that says so, whatever has run there.
    assert {line["number"] for line in alarms} == set(range(PARTITIONS))
    assert all(line["level"] == "error" for line in alarms)
    fleet.finish(long)
    for job_id in long:
        again = [x["item"] for x in fleet.ledger("item") if x["job"] == job_id and x["pid"] == second.pid]
        assert again[0] == reached[job_id] + 1
    fleet.settle()
    # The marks say what had ended, so none of it is run or told again.
    fleet.check_ends()


def _reached(fleet: Fleet, job_id: str) -> int:
    return max(int(line["item"]) for line in fleet.ledger("item") if line["job"] == job_id)


def forget_offsets(fleet: Fleet) -> None:
    """As a broker does when no member was there for `offsets.retention.minutes`."""
    admin = AdminClient({"bootstrap.servers": fleet.bootstrap})
    eventually(lambda: not fleet.broker.admin().members(fleet.group), 20)
    admin.delete_consumer_groups([fleet.group])[fleet.group].result(20)
    assert all(entry.offset is None for entry in fleet.committed().values())
