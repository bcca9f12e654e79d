"""A scene for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.engine.scene import Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Three numbers, no worker yet."""
    made = Scene(seed=1)
    yield made
    made.close()


@pytest.fixture(params=[False, True], ids=["one queue", "two queues"])
def one_queue_and_two(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test once more while every worker has the flushes, offsets and rebalances of a second group on its hands."""
    monkeypatch.setattr(Scene, "beside", request.param)
