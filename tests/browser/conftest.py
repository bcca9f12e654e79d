"""A browser and two worlds to look at. It needs Debian's chromium and the dependency group `browser`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import Looker, chromium, looking


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium. Not longer than a module: its driver occupies the event loop of this thread."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def looker(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looker]:
    """Looks at the pages of a shop after half an hour, and of one in which nothing has happened."""
    with looking(browser, tmp_path_factory.mktemp("looking")) as made:
        yield made
