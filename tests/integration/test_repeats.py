"""A caller who repeats an enqueue that was not confirmed, on a real Kafka: its job runs once."""

from __future__ import annotations

from collections import Counter

import pytest

from processor.broker.base import OutRecord
from processor.wire.codec import encode
from processor.wire.headers import routing_headers
from tests.integration.fleet import Fleet

pytestmark = pytest.mark.timeout(240)


def test_a_repeat_after_a_restart_runs_once(fleet: Fleet) -> None:
    (first,) = fleet.start_ready("a")
    jobs = [fleet.append("walk", {"items": 1}) for _ in range(20)]
    fleet.flush()
    fleet.finish(job.id for job in jobs)
    first.terminate()
    assert first.wait() == 0
    for job in jobs:
        headers = routing_headers(job, derived=True)
        repeat = encode(job._replace(enqueued_at=job.enqueued_at + 5_000))  # made anew, with the id of the first
        fleet.put(OutRecord(fleet.lane().topic, job.id.encode(), repeat, headers))
    after = fleet.append("walk", {"items": 1})
    fleet.flush()
    (second,) = fleet.start_ready("a")
    fleet.finish([after.id])
    fleet.settle()
    runs = Counter(str(line["job"]) for line in fleet.ledger("item"))
    assert runs == Counter([job.id for job in jobs] + [after.id])
    assert len(second.events("job.repeat_dropped")) == len(jobs)
