"""How long a job may still take, by its state and what its type allows."""

from __future__ import annotations

from typing import Any

import pytest

from processor.cli.job.limits import ends_in, limits_of, told_limits
from processor.policies import JobOptions
from processor.states import TERMINAL, State

NOW = 1_767_225_600_000
NONE = {"attempt_timeout": None, "stall_timeout": None, "expires_at": None}
OPTIONS = JobOptions(attempt_timeout=90.0, stall_timeout=30.0, queue_timeout=60.0)


@pytest.mark.parametrize(
    ("kill_at", "ends_at", "left"),
    [
        (None, None, None),
        (NOW + 120_000, None, "2m"),
        (None, NOW + 5_000, "5s"),
        (NOW + 120_000, NOW + 5_000, "5s"),
        (NOW + 5_000, NOW + 120_000, "5s"),
        (NOW, None, "now"),
        (NOW - 1, NOW + 5_000, "now"),
        (0, None, "now"),
    ],
)
def test_the_nearer_end_counts(kill_at: int | None, ends_at: int | None, left: str | None) -> None:
    assert ends_in(kill_at, ends_at, NOW) == left


def facts_of(state: State, **more: Any) -> dict[str, Any]:
    return {"state": state, "attempt": 0, "at": NOW, "due_at": None, **more}


@pytest.mark.parametrize(
    ("state", "more", "limits"),
    [
        (State.RUNNING, {"attempt": 1}, {**NONE, "attempt_timeout": 90.0, "stall_timeout": 30.0}),
        (State.QUEUED, {}, {**NONE, "expires_at": NOW + 60_000}),
        (State.QUEUED, {"due_at": NOW - 1}, {**NONE, "expires_at": NOW + 60_000}),
        (State.SCHEDULED, {"due_at": NOW + 5}, {**NONE, "expires_at": NOW + 60_005}),
        (State.QUEUED, {"attempt": 1}, NONE),
        (State.RETRYING, {"attempt": 1}, NONE),
        (State.WAITING, {}, NONE),
    ],
)
def test_only_what_matters_in_its_state(state: State, more: dict[str, Any], limits: dict[str, Any]) -> None:
    assert limits_of(OPTIONS, facts_of(state, **more)) == limits


def test_no_limits_after_the_end_nor_of_an_unknown_type() -> None:
    for state in State:
        assert limits_of(None, facts_of(state)) == NONE
        if state in TERMINAL:
            assert limits_of(OPTIONS, facts_of(state)) == NONE
        assert limits_of(JobOptions(), facts_of(state)) == NONE


@pytest.mark.parametrize(
    ("limits", "ends_at", "kill_at", "told"),
    [
        ({}, None, None, {}),
        (
            {"expires_at": NOW + 120_000},
            None,
            None,
            {"expires": "2026-01-01 00:02:00Z (in 2m), unless it has begun"},
        ),
        (
            {"attempt_timeout": 90.0, "stall_timeout": 30.0},
            NOW + 60_000,
            None,
            {
                "attempt ends": "2026-01-01 00:01:00Z (in 60s): attempt_timeout 1m30s",
                "stalls": "after 30s without anything saved and without a heartbeat",
            },
        ),
        ({}, NOW, None, {"attempt ends": "2026-01-01 00:00:00Z (now)"}),
        (
            {"attempt_timeout": 90.0},
            NOW + 1000,
            NOW + 1000,
            {"kill date": "2026-01-01 00:00:01Z (in 1s)"},
        ),
        ({}, None, NOW - 5000, {"kill date": "2025-12-31 23:59:55Z (now)"}),
    ],
)
def test_the_same_for_people(
    limits: dict[str, Any], ends_at: int | None, kill_at: int | None, told: dict[str, str]
) -> None:
    assert told_limits({"limits": {**NONE, **limits}, "ends_at": ends_at, "kill_at": kill_at}, NOW) == told
