"""A projection beside a testbed, in SQLite; in PostgreSQL as well where one is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processor.ops.projector import Projector
from processor.ops.queries import Queries
from processor.ops.search import search_of
from processor.ops.store import Store
from processor.testing import Testbed
from tests.unit.ops.shop import Shop

POSTGRES = os.environ.get("PROCESSOR_TEST_POSTGRES", "")
"""Address of a PostgreSQL database that these tests may empty; with it they run on both."""


class Desk:
    """A shop, its workers, and what operators see of it."""

    def __init__(self, bed: Testbed, shop: Shop, store: Store) -> None:
        self.bed, self.shop, self.store = bed, shop, store
        self.projector = self.project(store)
        self.queries = Queries(store)

    def project(self, store: Store) -> Projector:
        """A projector of this log into some store."""
        clock = self.bed.runtime.clock
        return Projector(self.bed.broker, store, search=search_of(self.shop.app), clock=clock)

    def look(self) -> Queries:
        """Ask, of all that is in the log now."""
        self.projector.catch_up()
        return self.queries


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRES else ["sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Store]]:
    """Opens an empty store by a name of its own."""
    made: list[Store] = []

    def make(name: str) -> Store:
        url = f"sqlite:///{tmp_path}/{name}.sqlite" if request.param == "sqlite" else POSTGRES
        store = Store(url, "shop")
        store.wipe()
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def desk(make_store: Callable[[str], Store]) -> Iterator[Desk]:
    """A shop with two workers and a projection."""
    shop = Shop()
    with Testbed(shop.app) as bed:
        desk = Desk(bed, shop, make_store("one"))
        yield desk
        desk.projector.close()
