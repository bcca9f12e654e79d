"""The pytest plugin: a fixture `bed`, there as soon as the package is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from processor.testing import Testbed


@pytest.fixture
def bed() -> Iterator[Testbed]:
    """A `processor.testing.Testbed`: jobs run on a log in memory, in virtual time, and workers crash on request."""
    from processor.testing import (
        Testbed,  # only now: pytest loads plugins for every run, also for those without jobs
    )

    with Testbed() as made:
        yield made
