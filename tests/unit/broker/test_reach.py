"""Which address is named when a cluster cannot be reached."""

from __future__ import annotations

import time

import pytest

from processor.broker import reach


@pytest.fixture(autouse=True)
def _nothing_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_met", {})


def test_what_is_not_known_is_not_told() -> None:
    assert reach.trouble("kafka:9092") == "no Kafka broker at kafka:9092 answered in time"
    reach.met("kafka:9092", "something else broke")
    assert reach.unreachable("kafka:9092") is None


def test_a_configured_address_is_told_with_the_reason() -> None:
    reach.met(
        "kafka:9092",
        "kafka:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)",
    )
    assert reach.trouble("kafka:9092") == "no Kafka broker at kafka:9092 answered in time: Connection refused"
    assert reach.unreachable("other:9092") is None


def test_an_advertised_address_is_the_one_to_look_at() -> None:
    reach.met(
        "kafka:9092", "inside:29092/1: Failed to resolve 'inside:29092': Name or service not known (after 3ms in X)"
    )
    reach.met("kafka:9092", "kafka:9092/bootstrap: Disconnected (after 3000ms in state UP)")
    told = reach.trouble("kafka:9092")
    assert told.startswith(
        "Kafka at kafka:9092 names the broker inside:29092, which cannot be reached: Failed to resolve"
    )
    assert "advertised.listeners: inside:29092" in reach.advice("kafka:9092")


def test_a_nearer_end_counts() -> None:
    assert reach.until() > time.monotonic() + 1e6
    with reach.within(100):
        outer = reach.until()
        with reach.within(1000):
            assert reach.until() == outer
        with reach.within(1):
            assert reach.until() < outer
        assert reach.until() == outer
