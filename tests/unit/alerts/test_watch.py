"""Limits of queues are told once each time they are passed."""

from __future__ import annotations

from processor.alerts.watch import Limits, Seen
from processor.wire.settings import AlertsSettings

NOW = 1_767_225_600_000


def limits(**values: object) -> Limits:
    return Limits(AlertsSettings.model_validate(values))


def test_a_backlog_is_told_once_each_time_it_grows_too_large() -> None:
    watch = limits(backlog=10)
    assert watch.passed({"q": Seen(10, None), "r": Seen(0, None)}, NOW) == []
    (alert,) = watch.passed({"q": Seen(11, None), "r": Seen(0, None)}, NOW)
    assert (alert.kind, alert.queue, alert.subject) == ("backlog", "q", "queue:q")
    assert watch.passed({"q": Seen(99, None)}, NOW) == []
    assert watch.passed({"q": Seen(3, None)}, NOW) == []
    assert len(watch.passed({"q": Seen(12, None), "r": Seen(50, None)}, NOW)) == 2


def test_the_oldest_job_is_told_by_its_age() -> None:
    watch = limits(oldest="5m")
    assert watch.passed({"q": Seen(1, NOW - 300_000)}, NOW) == []
    (alert,) = watch.passed({"q": Seen(1, NOW - 301_000)}, NOW)
    assert (alert.kind, alert.text) == ("waits_long", "the oldest job of queue q waits for 5m1s")


def test_without_limits_nothing_is_told() -> None:
    assert limits().passed({"q": Seen(10**9, 0)}, NOW) == []
