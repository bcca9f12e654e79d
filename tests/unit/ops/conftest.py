"""A projection beside a testbed, in SQLite; what asks or fills it also in PostgreSQL, where there is one."""

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
from tests.postgres import NAMED, postgres
from tests.unit.ops.shop import Shop

ON_BOTH = ("test_projection", "test_tallies")
"""Modules whose tests run in both databases; where one is named (`tests.postgres.NAMED`), all do."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """In which databases a test runs."""
    if "make_store" in metafunc.fixturenames:
        both = metafunc.module.__name__.rpartition(".")[2] in ON_BOTH or NAMED in os.environ
        metafunc.parametrize("database", ["sqlite", "postgresql"] if both else ["sqlite"], indirect=True)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Address of an empty PostgreSQL database."""
    with postgres() as url:
        yield url


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a database; `{name}` in it stands for any name."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/{{name}}.sqlite"


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


@pytest.fixture
def make_store(database: str) -> Iterator[Callable[[str], Store]]:
    """Opens an empty store by a name of its own."""
    made: list[Store] = []

    def make(name: str) -> Store:
        store = Store(database.replace("{name}", name), "shop")
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
