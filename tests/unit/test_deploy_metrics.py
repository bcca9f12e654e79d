"""Alert rules and the Grafana dashboard ask for metrics that workers have, by labels that those bear."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from processor.wire.metrics import BY_NAME, PREFIX, Kind, Metric

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
SCRAPED = {"instance", "job", "le"}
"""Labels that Prometheus adds, and that of a histogram's buckets."""


def alert_expressions() -> list[str]:
    text = re.sub(r">-\n", "", ALERTS.read_text("utf-8"))
    return re.findall(r"^ +expr: (.*?)(?=\n +(?:for|labels):)", text, re.MULTILINE | re.DOTALL)


def dashboard_expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [*asked, *(each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query")]


def metric_of(name: str) -> Metric | None:
    """The catalogue's metric of a series; None: there is none."""
    short = name.removeprefix(PREFIX)
    if short in BY_NAME:
        return BY_NAME[short] if BY_NAME[short].kind is not Kind.HISTOGRAM else None
    known = BY_NAME.get(re.sub(r"_(bucket|sum|count)$", "", short))
    return known if known is not None and known.kind is Kind.HISTOGRAM else None


def faults(expression: str) -> list[str]:
    """Series that no worker has, and labels and values that they do not bear."""
    found, borne = [], set(SCRAPED)
    for name, matchers in re.findall(rf"\b({PREFIX}\w+)(?:\{{(.*?)\}})?", expression):
        metric = metric_of(name)
        if metric is None:
            found.append(f"no metric {name}")
            continue
        borne |= set(metric.labels)
        for label, value in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            if label not in metric.labels:
                found.append(f"{name} has no label {label}")
            known = set(metric.values) if metric.labels and label == metric.labels[-1] else set()
            if known and not value.startswith("$") and not set(value.split("|")) <= known:
                found.append(f"{label} of {name} is never {value}")
    for names in re.findall(r"\bby \((.*?)\)", expression):
        found += [f"nothing there bears {label}" for label in re.split(r",\s*", names) if label not in borne]
    return found


@pytest.mark.parametrize("expression", [*alert_expressions(), *dashboard_expressions()])
def test_it_asks_for_what_there_is(expression: str) -> None:
    assert PREFIX in expression
    assert faults(expression) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "processor_jobs_ended_total",
        'processor_slots{queue="a"}',
        "sum by (reason) (processor_slots)",
        "processor_flush_seconds",
        'processor_flushes_total{result="lost"}',
    ],
)
def test_the_test_sees_what_is_wrong(wrong: str) -> None:
    assert len(faults(wrong)) == 1


def test_what_the_catalogue_says_to_page_on_pages() -> None:
    told = {PREFIX + metric.name for metric in BY_NAME.values() if "page on" in metric.help}
    assert told
    assert [name for name in sorted(told) if not any(name in each for each in alert_expressions())] == []


def test_every_rule_says_what_is_wrong_and_where_to_look() -> None:
    text = ALERTS.read_text("utf-8")
    rules = text.split("- alert: ")[1:]
    assert len(rules) == len(alert_expressions()) >= 9
    for rule in rules:
        assert re.search(r"severity: (page|ticket)", rule), rule
        assert "summary:" in rule, rule
        assert "description:" in rule, rule


def test_prometheus_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on the PATH: it comes with Prometheus")
    told = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout + told.stderr
