"""The time limits of a job: what they are counted from, and which of them wins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from processor.core.deadlines import FURTHEST, Exceeded, ends_at, exceeded, expired, kill_date
from processor.errors import DefinitionError
from processor.job import Job
from processor.policies import JobOptions

NOW = 1_767_225_600_000
MOMENT = datetime.fromtimestamp(NOW / 1000, UTC)
JOB = Job("j", "t", 1, "q", b"", NOW)


@pytest.mark.parametrize(
    ("after", "at", "killed"),
    [
        (None, None, None),
        ("90s", None, NOW + 90_000),
        (timedelta(hours=1), None, NOW + 3_600_000),
        (None, MOMENT + timedelta(minutes=1), NOW + 60_000),
        (0.001, None, NOW + 1),
    ],
)
def test_a_kill_date_is_a_moment(after: Any, at: datetime | None, killed: int | None) -> None:
    assert kill_date(after, at, NOW) == killed


@pytest.mark.parametrize(
    ("after", "at", "told"),
    [
        ("1h", MOMENT + timedelta(hours=1), "both"),
        (0, None, "come already"),
        (None, MOMENT, "come already"),
        (None, MOMENT - timedelta(days=1), "come already"),
        ("a while", None, "no length of time"),
        (-1, None, "no length of time"),
        (None, datetime(2027, 1, 1), "no moment with a zone"),  # noqa: DTZ001  (that is the point)
        (None, "2027-01-01", "no moment with a zone"),
        (FURTHEST, None, "100 years"),
    ],
)
def test_what_is_no_kill_date_is_refused(after: Any, at: Any, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        kill_date(after, at, NOW)


@pytest.mark.parametrize(
    ("timeout", "kill_at", "ran", "ends"),
    [
        (None, None, 5.0, None),
        (None, NOW + 1, 5.0, NOW + 1),
        (60.0, None, 5.0, NOW + 55_000),
        (60.0, NOW + 1_000, 5.0, NOW + 1_000),
        (60.0, NOW + 90_000, 5.0, NOW + 55_000),
    ],
)
def test_an_attempt_ends_at_its_timeout_or_the_kill_date(
    timeout: float | None, kill_at: int | None, ran: float, ends: int | None
) -> None:
    job = JOB._replace(kill_at=kill_at)
    assert ends_at(JobOptions(attempt_timeout=timeout), job, ran=ran, now_ms=NOW) == ends


ALL = JobOptions(attempt_timeout=60.0, stall_timeout=10.0)


@pytest.mark.parametrize(
    ("kill_at", "ran", "silent", "kind"),
    [
        (None, 59.9, 9.9, None),
        (None, 60.0, 9.9, "timeout"),
        (None, 30.0, 10.0, "stall"),
        (None, 60.0, 60.0, "timeout"),
        (NOW, 60.0, 60.0, "killed"),
        (NOW + 1, 1.0, 1.0, None),
    ],
)
def test_the_most_final_limit_wins(kill_at: int | None, ran: float, silent: float, kind: str | None) -> None:
    found: Exceeded | None = exceeded(ALL, JOB._replace(kill_at=kill_at), ran=ran, silent=silent, now_ms=NOW)
    assert (None if found is None else found.kind) == kind


@pytest.mark.parametrize(
    ("job", "late", "expires"),
    [
        (JOB, 5_000, False),
        (JOB, 5_001, True),
        (JOB._replace(due_at=NOW + 60_000), 65_000, False),
        (JOB._replace(due_at=NOW + 60_000), 65_001, True),
        (JOB._replace(attempt=1), 90_000, False),
        (JOB._replace(deaths=1), 90_000, False),
    ],
)
def test_a_job_expires_counted_from_when_it_was_due_unless_it_has_begun(job: Job, late: int, expires: bool) -> None:
    assert bool(expired(JobOptions(queue_timeout=5.0), job, NOW + late)) is expires
    assert expired(JobOptions(), job, NOW + late) is None
