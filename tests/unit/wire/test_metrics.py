"""Metrics: declared once, bounded, cheap."""

from __future__ import annotations

import pytest

from processor.wire.metrics import CATALOGUE, MAX_LABEL_VALUES, OTHER, Kind, MetricUnknown, Registry


def test_names_follow_the_rules() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert metric.help.endswith("."), metric.name
        assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total"), metric.name
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
        if metric.unit:
            assert metric.unit in metric.name, metric.name
        assert not {"id", "job", "key", "offset", "error"} & set(metric.labels), metric.name


def test_children_are_made_once_and_rendered() -> None:
    registry = Registry()
    registry.counter("jobs_finished_total", "bulk", "import", "succeeded").inc()
    same = registry.counter("jobs_finished_total", "bulk", "import", "succeeded")
    assert same is registry.counter("jobs_finished_total", "bulk", "import", "succeeded")
    same.inc(2)
    registry.gauge("slots").set(100)
    registry.histogram("job_run_seconds", "bulk", "import").observe(0.2)
    text = registry.render().decode()
    assert 'processor_jobs_finished_total{outcome="succeeded",queue="bulk",type="import"} 3.0' in text
    assert "processor_slots 100.0" in text
    assert 'processor_job_run_seconds_bucket{le="0.25",queue="bulk",type="import"} 1.0' in text


def test_series_of_closed_lists_exist_from_the_start() -> None:
    text = Registry().render().decode()
    assert 'processor_flushes_total{result="fenced"} 0.0' in text
    assert 'processor_rebalances_total{event="lost"} 0.0' in text
    assert 'processor_producer_rebuilds_total{cause="abort"} 0.0' in text


def test_registries_do_not_share_anything() -> None:
    one, other = Registry(), Registry()
    one.counter("flushes_total", "committed").inc()
    assert 'processor_flushes_total{result="committed"} 0.0' in other.render().decode()


def test_a_flood_of_job_types_stays_bounded() -> None:
    registry = Registry()
    for number in range(5000):
        registry.counter("jobs_started_total", "bulk", f"type-{number}").inc()
    lines = [
        line for line in registry.render().decode().splitlines() if line.startswith("processor_jobs_started_total{")
    ]
    assert len(lines) == MAX_LABEL_VALUES + 1
    assert f'processor_jobs_started_total{{queue="bulk",type="{OTHER}"}} {5000 - MAX_LABEL_VALUES}.0' in lines


def test_a_queue_that_moved_away_is_forgotten() -> None:
    registry = Registry()
    registry.gauge("numbers_owned", "bulk").set(3)
    registry.forget("numbers_owned", ("bulk",))
    registry.forget("numbers_owned", ("bulk",))
    assert "processor_numbers_owned{" not in registry.render().decode()


@pytest.mark.parametrize(("name", "labels"), [("nonsense", ()), ("slots", ("x",)), ("flushes_total", ())])
def test_what_is_not_in_the_catalogue_is_a_mistake(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(MetricUnknown, match=name):
        Registry().counter(name, *labels)
