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
