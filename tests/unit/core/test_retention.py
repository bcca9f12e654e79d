"""The owner deletes what is complete and older than the replay time, nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.retention import Retention

quick = settings(max_examples=100, derandomize=True, deadline=None)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(0, 80), st.integers(0, 80), st.integers(0, 1000)
)
@quick
def test_unfinished_job_is_never_deleted_by_retention(waits: list[int], low: int, begin: int, now: int) -> None:
    times = [sum(waits[: n + 1]) for n in range(len(waits))]
    retention = Retention(replay_ms=100, grain_ms=10)
    for offset, appended_at in enumerate(times):
        if appended_at <= now:
            retention.observe(offset, appended_at)
    deletable = retention.deletable(low, begin, now)
    if deletable is None:
        return
    assert begin < deletable <= low
    assert all(now - appended_at >= 100 for appended_at in times[begin:deletable])


def test_what_is_old_and_complete_is_deleted_to_within_a_grain() -> None:
    retention = Retention(replay_ms=1000, grain_ms=10)
    for offset in range(10_000):
        retention.observe(offset, offset)
    assert retention.deletable(low=10_000, begin=0, now=9_999) == 8_990
    assert retention.deletable(low=5_000, begin=0, now=9_999) == 5_000
    assert retention.deletable(low=5_000, begin=5_000, now=9_999) is None


def test_nothing_is_deleted_before_an_age_is_known() -> None:
    retention = Retention(replay_ms=1000)
    assert retention.deletable(low=100, begin=0, now=10**9) is None


def test_after_a_restart_one_record_read_again_tells_the_age() -> None:
    retention = Retention(replay_ms=1000)
    retention.observe(100, 50_000)
    assert retention.probe(low=100, begin=0) == 50
    retention.observe(50, 20_000)
    assert retention.probe(low=100, begin=0) is None
    assert retention.deletable(low=100, begin=0, now=20_999) is None
    assert retention.deletable(low=100, begin=0, now=50_500) == 50
    assert retention.probe(low=100, begin=100) is None
