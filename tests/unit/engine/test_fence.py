"""What a flush presents to its group, and when one that failed is tried again."""

from __future__ import annotations

from processor.broker.base import Membership
from processor.engine.fence import STALE_WAIT, Fence
from processor.engine.pace import Pace
from processor.errors import AbortRequired, ProducerFatal, StaleMembership


def test_nothing_is_presented_before_the_group_has_spoken_and_after_it_was_lost() -> None:
    fence = Fence("g")
    assert fence.snapshot(0.0) is None
    fence.heard(Membership("first"))
    assert fence.snapshot(0.0) == Membership("first")
    fence.heard(None)
    assert fence.snapshot(0.0) is None


def test_a_refused_snapshot_waits_for_the_next_callback() -> None:
    fence = Fence("g")
    fence.heard(Membership("first"))
    fence.froze()
    fence.refused(10.0)
    assert fence.snapshot(10.0 + STALE_WAIT / 2) is None
    fence.heard(Membership("second"))
    assert fence.snapshot(10.0 + STALE_WAIT / 2) == Membership("second")


def test_a_callback_that_came_while_the_batch_was_on_its_way_is_enough() -> None:
    fence = Fence("g")
    fence.heard(Membership("first"))
    fence.froze()
    fence.heard(Membership("second"))
    fence.refused(10.0)
    assert fence.snapshot(10.0) == Membership("second")


def test_a_group_that_says_nothing_is_tried_again_after_a_while() -> None:
    fence = Fence("g")
    fence.heard(Membership("first"))
    fence.froze()
    fence.refused(10.0)
    assert fence.snapshot(10.0 + STALE_WAIT) == Membership("first")


def test_the_pace_is_slower_each_time_and_forgets_after_a_success() -> None:
    pace = Pace(membership_proof=1.0)
    waits = []
    for place in range(12):
        now = 100.0 * place
        pace.ended(AbortRequired("again"), now)
        waits.append(next(w / 100 for w in range(1000) if pace.allows(now + w / 100)))
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.04, 2.0)
    pace.ended(None, 5000.0)
    pace.ended(AbortRequired("again"), 5000.0)
    assert pace.allows(5000.041)


def test_a_lost_producer_waits_for_the_proof_of_membership_and_a_stale_group_holds_nobody_up() -> None:
    pace = Pace(membership_proof=1.0)
    pace.ended(ProducerFatal("fenced"), 10.0)
    assert not pace.allows(10.9)
    assert pace.allows(11.0)
    pace.ended(StaleMembership("refused"), 20.0)
    assert pace.allows(20.0)
