"""Each closed list stands once in the code; what is ordered by it or written about it covers it whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from processor.alert_kinds import AlertKind
from processor.core.idempotency import LANES
from processor.dead_reasons import DeadReason
from processor.engine.fetching import READ_ORDER
from processor.job import Lane
from processor.wire.settings import AlertRule
from processor.wire.topics import LANE_ORDER

ROOT = Path(__file__).parents[3]


def _documented(page: str, heading: str) -> set[str]:
    """Names in the first column of the table of a page that begins with `heading`."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    names: set[str] = set()
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        names.update(re.findall(r"`([a-z_]+)`", line.split("|")[1]))
    return names


def test_every_order_of_the_lanes_has_every_lane() -> None:
    for order in (LANE_ORDER, READ_ORDER, [lane for lane in LANES if lane is not None]):
        assert sorted(order) == sorted(Lane)


def test_every_reason_of_a_dead_letter_is_documented() -> None:
    assert _documented("dead-letters.md", "a letter's reason") == set(DeadReason)


def test_every_kind_of_alert_is_documented() -> None:
    assert _documented("alerts.md", "kind") == set(AlertKind) - {AlertKind.TEST}


@pytest.mark.parametrize("kind", ["crash_lop", "dead", "kill*d_", ""])
def test_a_rule_for_a_kind_that_does_not_exist_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="no alert is of the kind"):
        AlertRule.model_validate({"name": "ops", "to": ["https://example.org"], "kinds": [kind]})


@pytest.mark.parametrize("kind", ["*", "kill*", "crash_loop", "critical_dead"])
def test_a_rule_may_have_patterns(kind: str) -> None:
    assert AlertRule.model_validate({"name": "ops", "to": ["https://example.org"], "kinds": [kind]}).kinds == (kind,)
