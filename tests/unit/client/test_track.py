"""One answer to where a job stands, whatever order its statuses have and whose clocks they tell."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.client.track import BEGINNING, LATELY_MS, MARGINS_MS, Tail, Track, supersedes
from processor.job_ids import uuid7
from processor.ops.folding import JobRow, fold_status
from processor.states import TERMINAL, State
from processor.wire.records import StatusRecord

NOW = 1_767_225_600_000
FRESH, EARLIER = (f"{at:012x}"[:8] + "-" + f"{at:012x}"[8:] + "-7000-8000-000000000001" for at in (NOW, NOW - 10))
"""Ids as `uuid7` makes them, of these moments."""
TAIL = cast("Tail", object())
"""Who reads; a track only keeps it."""


def status(state: State, at: int = NOW, life: int = 1, worker: str = "w-0") -> StatusRecord:
    return StatusRecord("j", life, "t", "q", state, at, 1, worker)


def track(job_id: str = "j", start: int = BEGINNING) -> Track:
    return Track(TAIL, job_id, 0, start, NOW)


@pytest.mark.parametrize(
    ("known", "new", "replaces"),
    [
        (None, status(State.RUNNING), True),
        (status(State.RUNNING), status(State.RETRYING), True),
        (status(State.RUNNING), status(State.SUCCEEDED), True),
        (status(State.SUCCEEDED), status(State.DEAD), False),
        (status(State.SUCCEEDED), status(State.RUNNING), False),
        (status(State.DEAD), status(State.QUEUED, life=2), True),
        (status(State.QUEUED, life=2), status(State.SUCCEEDED), False),
        (status(State.RUNNING, NOW + 5000), status(State.SUCCEEDED, NOW, worker="w-1"), True),
        (status(State.RUNNING, NOW + 5000), status(State.RETRYING, NOW, worker="w-1"), True),
        (status(State.DEAD, NOW + 5000), status(State.QUEUED, NOW, life=2), True),
    ],
)
def test_the_log_orders_statuses_and_not_the_clocks_of_workers(
    known: StatusRecord | None, new: StatusRecord, replaces: bool
) -> None:
    """Else a job taken over by a worker whose clock is behind would run for ever on the dashboard."""
    assert supersedes(new, known) is replaces


def known(asked: Track) -> StatusRecord | None:
    return asked.latest


def history_life(history: list[StatusRecord]) -> int:
    return max(record.life for record in history)


HISTORIES = st.lists(
    st.builds(status, st.sampled_from(State), st.integers(NOW - 9, NOW + 9), st.integers(1, 3)), min_size=1, max_size=12
)


@given(HISTORIES)
def test_handles_and_the_dashboard_say_the_same_of_any_history(history: list[StatusRecord]) -> None:
    asked, row = track(), JobRow(id="j")
    for offset, record in enumerate(history):
        asked.merge(record)
        fold_status(row, record, offset)
    assert asked.latest is not None
    assert (row.status.status_life, row.status.status_state, row.status.status_at) == (
        asked.latest.life,
        asked.latest.state.value,
        asked.latest.at,
    )


@given(HISTORIES)
def test_the_answer_is_the_first_end_of_the_highest_life_or_its_last_word(history: list[StatusRecord]) -> None:
    asked = track()
    for record in history:
        asked.merge(record)
    highest = [record for record in history if record.life == history_life(history)]
    ends = [record for record in highest if record.state in TERMINAL]
    assert asked.latest == (ends[0] if ends else highest[-1])
    assert asked.ended is bool(ends)


@given(HISTORIES)
def test_reading_a_stretch_again_changes_nothing(history: list[StatusRecord]) -> None:
    once, twice = track(), track()
    for record in history:
        once.merge(record)
        twice.merge(record)
    for record in history:
        twice.merge(record)
    if once.ended:
        assert twice.latest == once.latest, "an end is final"
    assert [each.latest.life for each in (once, twice) if each.latest is not None] == [history_life(history)] * 2


def test_an_end_from_before_the_key_was_free_is_no_end_of_the_job() -> None:
    asked = track("key-1")
    asked.forget_before(NOW)
    asked.merge(status(State.SUCCEEDED, NOW - 1))
    assert known(asked) is None
    asked.merge(status(State.RUNNING, NOW - 1))
    assert known(asked) is not None, "only ends are told of one job and not of the next"
    asked.merge(status(State.SUCCEEDED, NOW))
    assert asked.ended
    asked.forget_before(NOW + 1)
    assert known(asked) is None
    asked.forget_before(NOW - 50)
    asked.merge(status(State.SUCCEEDED, NOW))
    assert known(asked) is None, "the floor never sinks"


@pytest.mark.parametrize(
    ("state", "job_id", "final"),
    [
        (State.SUCCEEDED, FRESH, True),
        (State.SUCCEEDED, "order-7", False),  # an id that somebody chose may be enqueued again
        (State.DEAD, FRESH, False),  # a redrive may follow
        (State.RUNNING, FRESH, False),
    ],
)
def test_only_the_success_of_a_fresh_id_is_the_last_word(state: State, job_id: str, final: bool) -> None:
    asked = track(job_id)
    asked.merge(status(state))
    assert asked.final is final


@pytest.mark.parametrize(
    ("job_id", "start", "moments"),
    [
        (EARLIER, BEGINNING, [NOW - 10 - margin for margin in MARGINS_MS]),
        ("order-7", BEGINNING, [NOW - LATELY_MS - MARGINS_MS[-1]]),
        (FRESH, 77, []),
        ("order-7", 77, []),
    ],
)
def test_a_job_is_looked_for_further_and_further_back(job_id: str, start: int, moments: list[int]) -> None:
    asked, tried = track(job_id, start), []
    while asked.since is not None:
        tried.append(asked.since)
        assert asked.lost
        assert asked.may_have_ended_before
        asked.start = 50
        asked.widen(60)
        assert (asked.seen, asked.start) == ((50, 60), BEGINNING)
    assert tried == moments
    assert not asked.lost, "the whole partition was read"
    asked.read_to(99)
    asked.read_to(80)
    assert asked.start == max(99, start)


def test_who_was_read_to_the_end_is_not_looked_for_again() -> None:
    asked = track(uuid7(NOW))
    asked.read_to(10)
    assert (asked.since, asked.lost, asked.start) == (None, False, 10)


def test_a_floor_above_where_it_is_read_from_leaves_nothing_to_be_missed() -> None:
    asked: Any = track(uuid7(NOW))
    asked.forget_before(NOW)
    assert asked.since < NOW
    assert not asked.may_have_ended_before
