"""One id in two lanes of a queue, on a real Kafka."""

from __future__ import annotations

import pytest

from processor.job import Lane
from tests.integration.fleet import Fleet
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)


def test_one_id_in_two_lanes_buries_no_live_progress(fleet: Fleet) -> None:
    """After each crash either record may be read first: the other one completes as a copy, and what was saved stays."""
    fleet.start_ready("a")
    walk = {"items": 900, "pause": 0.01}
    job = fleet.append("walk", walk)
    fleet.flush()
    fleet.until_noted(50)
    fleet.append("walk", walk, job_id=job.id, lane=Lane.DUE)
    fleet.flush()
    for _ in range(3):
        fleet.until_noted(60)
        fleet.worker("a").kill()
        fleet.start_ready("a")
    fleet.finish([job.id])
    starts = [line["cursor"] for line in fleet.ledger("start")]
    assert starts.count(0) == 1, "begun once; the others went on where it stopped"
    assert len(starts) >= 3
    assert {line["item"] for line in fleet.ledger("item")} == set(range(1, 901))
    eventually(lambda: not fleet.live(), 20, fleet.describe)
    fleet.check_ends()
    fleet.settle()
