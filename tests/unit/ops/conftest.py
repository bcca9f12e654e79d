"""A projection beside a testbed, in SQLite and in PostgreSQL; PostgreSQL's tests are skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from processor.ops.projector import Projector
from processor.ops.queries import Queries
from processor.ops.search import search_of
from processor.ops.store import Store
from processor.testing import Testbed
from tests.postgres import postgres, schema
from tests.unit.ops.shop import Shop

SQLITE_ALONE = ("test_oidc", "test_speed")
"""Modules whose tests need one database: who logs in asks none, and the plans read there are SQLite's."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """In which databases a test runs."""
    if "database" in metafunc.fixturenames:
        alone = metafunc.module.__name__.rpartition(".")[2] in SQLITE_ALONE
        metafunc.parametrize("database", ["sqlite"] if alone else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Address of a PostgreSQL database."""
    with postgres() as url:
        yield url


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """Which database the stores of a test are in."""
    return str(request.param)


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
def make_store(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Store]]:
    """Opens an empty store by a name of its own."""
    with ExitStack() as opened:

        def make(name: str) -> Store:
            url = f"sqlite:///{tmp_path}/{name}.sqlite"
            if database == "postgresql":
                url = opened.enter_context(schema(request.getfixturevalue("postgres_url"), name))
            return opened.enter_context(closing(Store(url, "shop")))

        yield make


@pytest.fixture
def desk(make_store: Callable[[str], Store]) -> Iterator[Desk]:
    """A shop with two workers and a projection."""
    shop = Shop()
    with Testbed(shop.app) as bed:
        desk = Desk(bed, shop, make_store("one"))
        yield desk
        desk.projector.close()
