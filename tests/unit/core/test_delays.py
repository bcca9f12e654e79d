"""When a job that is enqueued for later is due."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, cast

import pytest

from processor.core.delays import LONGEST, due_at, refuse_too_late
from processor.errors import DefinitionError
from processor.job import Job

NOW = 1_767_225_600_000


@pytest.mark.parametrize(
    ("delay", "wait"),
    [(None, None), (0, None), ("0s", None), (0.2, 1_000), ("1s", 1_000), ("5m", 300_000), (LONGEST, LONGEST * 1000)],
)
def test_a_delay_counts_from_now_and_less_than_a_second_is_one(delay: Any, wait: float | None) -> None:
    assert due_at(delay, None, NOW) == (None if wait is None else NOW + wait)


def test_a_moment_is_one_whatever_its_zone() -> None:
    moment = datetime.fromtimestamp(NOW / 1000 + 90, UTC)
    assert due_at(None, moment, NOW) == NOW + 90_000
    assert due_at(None, moment.astimezone(timezone(timedelta(hours=5, minutes=45))), NOW) == NOW + 90_000
    assert due_at(None, moment - timedelta(days=1), NOW) is None, "what is past starts at once"


@pytest.mark.parametrize("at", [datetime(2027, 1, 1), date(2027, 1, 1), "2027-01-01", 5])  # noqa: DTZ001  (that is the point)
def test_what_is_no_moment_with_a_zone_is_refused(at: Any) -> None:
    with pytest.raises(DefinitionError, match="no moment with a zone"):
        due_at(None, cast("datetime", at), NOW)


@pytest.mark.parametrize("delay", ["a while", -1, "-5s", float("nan"), float("inf"), LONGEST + 1, "400d"])
def test_what_is_no_delay_is_refused(delay: Any) -> None:
    with pytest.raises(DefinitionError):
        due_at(delay, None, NOW)


def test_both_are_refused() -> None:
    with pytest.raises(DefinitionError, match="both"):
        due_at("5m", datetime.now(UTC), NOW)


def test_a_job_that_would_be_killed_before_it_is_due_is_refused() -> None:
    job = Job("j", "t", 1, "q", b"", NOW, kill_at=NOW + 5_000)
    refuse_too_late(job)
    refuse_too_late(job._replace(due_at=NOW + 4_999))
    with pytest.raises(DefinitionError, match="killed before it is due"):
        refuse_too_late(job._replace(due_at=NOW + 5_000))
