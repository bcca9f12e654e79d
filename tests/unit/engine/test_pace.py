"""When a flush may be tried again: at once where nothing is to be waited for, else later each time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.engine.pace import Pace
from processor.errors import BrokerError, ProducerFatal, RetriableBrokerError, StaleMembership

PROOF = 3.0


def wait_after(failures: int, error: BrokerError) -> float:
    """Seconds until the next try is allowed, to a millisecond."""
    pace = Pace(PROOF)
    for _ in range(failures):
        pace.ended(error, 100.0)
    return next(ms / 1000 for ms in range(10_000) if pace.allows(100.0 + ms / 1000))


def test_the_first_flush_may_go_at_once() -> None:
    assert Pace(PROOF).allows(0.0)


def test_a_lost_producer_waits_until_the_consumer_had_time_to_hear() -> None:
    assert wait_after(1, ProducerFatal("gone")) == PROOF
    assert wait_after(5, ProducerFatal("gone")) == PROOF


def test_a_refused_membership_waits_for_nothing() -> None:
    assert wait_after(9, StaleMembership("moved")) == 0.0


@pytest.mark.parametrize("failures", range(1, 20))
def test_anything_else_waits_longer_each_time_and_two_seconds_at_most(failures: int) -> None:
    waits = [wait_after(count, RetriableBrokerError("busy")) for count in (failures, failures + 1)]
    assert 0.02 <= waits[0] <= waits[1] <= 2.0


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(1, 30))
def test_a_success_forgets_what_was(failures: int) -> None:
    pace = Pace(PROOF)
    for _ in range(failures):
        pace.ended(RetriableBrokerError("busy"), 100.0)
    pace.ended(None, 200.0)
    pace.ended(RetriableBrokerError("busy"), 300.0)
    assert pace.allows(300.0 + 0.05), "as after the first"
