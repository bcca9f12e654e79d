"""Which alerts a rule is about, and how repeats are told."""

from __future__ import annotations

import pytest

from processor.alerts.delivery import body_of, text_of
from processor.alerts.routing import EXAMPLES, concerns, folded
from processor.errors import SettingsError
from processor.wire.records import AlertRecord
from processor.wire.settings import AlertRule
from processor.wire.settings_sources import load_settings


def rule(**more: object) -> AlertRule:
    return AlertRule.model_validate({"name": "r", "to": ["https://x.example/hook"], **more})


def alert(kind: str = "killed", job_type: str = "mail.send", queue: str = "q", at: int = 5) -> AlertRecord:
    return AlertRecord(kind, "job-1", at, "w", f"at {at}", "job-1", job_type, queue)


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, True),
        ({"kinds": ["killed", "held"]}, True),
        ({"kinds": ["crash_*"]}, False),
        ({"types": ["mail.*"]}, True),
        ({"types": ["mail"]}, False),
        ({"types": ["mail.*"], "queues": ["other"]}, False),
        ({"queues": ["q"]}, True),
    ],
)
def test_which_alerts_a_rule_is_about(more: dict[str, object], wanted: bool) -> None:
    assert concerns(rule(**more), alert()) is wanted


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, True),
        ({"filters": ["Jane*"]}, True),
        ({"filters": ["other", "Jane's failures"]}, True),
        ({"filters": ["other"]}, False),
        ({"filters": ["*"], "kinds": ["filter_over"]}, False),
        ({"filters": ["*"], "queues": ["q"]}, True),
    ],
)
def test_a_rule_may_be_about_some_saved_filters(more: dict[str, object], wanted: bool) -> None:
    of_filter = alert("filter")._replace(subject="filter:Jane's failures")
    assert concerns(rule(**more), of_filter) is wanted


def test_a_rule_about_saved_filters_is_about_nothing_else() -> None:
    assert not concerns(rule(filters=["*"]), alert())


def test_alerts_of_two_saved_filters_are_told_apart() -> None:
    both = [alert("filter")._replace(subject=f"filter:{name}") for name in ("one", "two", "one")]
    assert [digest.title for digest in folded(both)] == ["filter: one (2 times)", "filter: two"]


def test_repeats_are_told_as_one_with_the_first_of_them() -> None:
    alerts = [alert(at=at) for at in (7, 3, 9)] + [alert("crash_loop")] + [alert(at=at) for at in range(20, 30)]
    killed, crashed = folded(alerts)
    assert (killed.times, killed.first_at, killed.last_at) == (13, 3, 29)
    assert [example.at for example in killed.examples] == [7, 3, 9, 20, 21]
    assert len(killed.examples) == EXAMPLES
    assert killed.title == "killed: mail.send (13 times)"
    assert crashed.title == "crash loop: mail.send"
    assert "and 8 more until 1970-01-01 00:00:00Z" in text_of([killed])
    assert b'"times": 13' in body_of([killed], "shop", "r")


@pytest.mark.parametrize(
    "text",
    [
        '[[alerts.rules]]\nname = "a"\nto = []',
        '[[alerts.rules]]\nname = "A b"\nto = ["https://x"]',
        '[[alerts.rules]]\nname = "a"\nto = ["https://x"]\ntypo = 1',
        '[[alerts.rules]]\nname = "a"\nto = ["https://x"]\nfold = "soon"',
        '[[alerts.rules]]\nname = "a"\nto = ["https://x"]\n[[alerts.rules]]\nname = "a"\nto = ["https://y"]',
    ],
)
def test_a_wrong_rule_is_refused(text: str, tmp_path: object) -> None:
    path = tmp_path / "processor.toml"  # type: ignore[operator]  # a Path
    path.write_text(text)
    with pytest.raises(SettingsError):
        load_settings({}, toml_path=path, env={})


def test_addresses_are_secret() -> None:
    assert "hook" not in repr(rule())
