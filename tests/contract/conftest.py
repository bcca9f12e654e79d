"""Every scenario runs on every broker, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.contract.harness import Harness, KafkaHarness, MemoryHarness
from tests.contract.scene import Scene

if TYPE_CHECKING:
    from tests.conftest import Kafka


def _harness(request: pytest.FixtureRequest) -> Harness:
    if request.param == "memory":
        return MemoryHarness()
    kafka: Kafka = request.getfixturevalue("kafka")
    return KafkaHarness(kafka.bootstrap)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """A cluster under test."""
    harness = _harness(request)
    yield harness
    harness.close()


@pytest.fixture
def scene(harness: Harness, unique: str) -> Iterator[Scene]:
    """A cluster with names of this test's own; closes what the test opened."""
    scene = Scene(harness, unique)
    yield scene
    scene.close()
