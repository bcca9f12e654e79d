"""What the engine's plan promises where a real Kafka has a say: offset metadata, held partitions, several queues."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from processor.admin.orders import Operator
from processor.admin.queues import plan_seek, seek
from processor.broker.base import OutRecord
from processor.job import Job, Lane
from processor.job_ids import uuid7
from processor.states import State
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.headers import routing_headers
from processor.wire.records import CheckpointRecord
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)


def test_window_that_fits_into_no_metadata_is_written(fleet: Fleet) -> None:
    """A hot key interleaved with others: each of those that is done is a range of its own, and none runs again."""
    (first,) = fleet.start_ready("a")
    hot = "hot"
    number = fleet.number_of(hot)
    free = [key for index in range(9_000) if fleet.number_of(key := f"free-{index}") == number][:1000]
    holder = fleet.append("gated", {"key": hot}, key=hot)
    others, behind = [], []
    for key in free:
        behind.append(fleet.append("keyed", {"key": hot}, key=hot).id)
        others.append(fleet.append("keyed", {"key": key}, key=key).id)
    fleet.flush()
    fleet.finish(others)
    first.terminate()
    assert first.wait() == 0, first.tail()
    (fleet.folder / f"gate-{hot}").touch()
    fleet.start_ready("b")
    fleet.finish([holder.id, *behind])
    starts = Counter(str(line["job"]) for line in fleet.ledger("start"))
    assert starts.pop(holder.id) == 2
    assert starts == Counter([*others, *behind])
    fleet.check_ends()
    fleet.settle()


def test_one_queue_never_starves_another(fleet: Fleet) -> None:
    """A slow queue has more than all that may be in flight; jobs of the other one run at once."""
    fleet.settings["worker.inflight_max_records"] = "100"
    fleet.start_ready("a", flags=("-q", "default"))
    slow = [fleet.append("sleep", {"seconds": 30.0}) for _ in range(400)]
    fleet.flush()
    eventually(lambda: len(fleet.ledger("start")) == 16, 60, fleet.describe)
    lane = topics.jobs_topic(fleet.namespace, "default", Lane.NORMAL)
    quick = []
    for _ in range(20):
        now_ms = time.time_ns() // 1_000_000
        job = Job(uuid7(now_ms), "leaf", 1, "default", b'{"count": 1}', now_ms)
        fleet.put(OutRecord(lane, job.id.encode(), encode(job), routing_headers(job), 0))
        quick.append(job.id)
    fleet.finish(quick)
    assert not fleet.ledger("end"), "not one of the slow ones has made room"
    assert all(fleet.state_of(job.id) is not State.SUCCEEDED for job in slow)


def test_history_without_a_mark_is_held_until_somebody_says_where_to_go_on(fleet: Fleet) -> None:
    """The other partitions work meanwhile, and nothing that waits in the held one is lost."""
    number, other = 1, 2
    saved = CheckpointRecord("job-x", 1, 0, 2, 7, 0, fleet.lane().topic, 17, number, cursor="5")
    fleet.put(OutRecord(fleet.checkpoints, b"job-x", encode(saved), None, number))
    worker = fleet.start("a")
    eventually(lambda: worker.events("number.held"), 60, fleet.describe)
    stuck = fleet.append("strict", {"amount": 1}, job_id=fleet.id_for(number, "stuck"))
    runs = fleet.append("strict", {"amount": 1}, job_id=fleet.id_for(other, "runs"))
    fleet.flush()
    fleet.finish([runs.id])
    assert fleet.state_of(stuck.id) is None
    worker.terminate()
    assert worker.wait() == 0, worker.tail()
    plan = plan_seek(fleet.broker, fleet.namespace, QUEUE, "begin")
    seek(fleet.broker, fleet.namespace, QUEUE, [each for each in plan if each.place.partition == number], OPERATOR)
    fleet.start_ready("b")
    fleet.finish([stuck.id])
    assert Counter(str(line["job"]) for line in fleet.ledger("start")) == {runs.id: 1, stuck.id: 1}


OPERATOR = Operator(reason="nothing has run there", by="ada@desk")
