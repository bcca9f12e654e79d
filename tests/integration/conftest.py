"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processor.broker.dev import TEST_PROPERTIES, DevBroker, DevBrokerConfig
from tests.conftest import Kafka
from tests.integration.fleet import Fleet
from tests.proxy import FrameProxy


@pytest.fixture
def empty_fleet(kafka: Kafka, unique: str, tmp_path: Path) -> Iterator[Fleet]:
    """Workers of a namespace of this test's own, without topics."""
    fleet = Fleet(kafka.bootstrap, unique, tmp_path)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(empty_fleet: Fleet) -> Fleet:
    """Workers of a namespace of this test's own."""
    empty_fleet.create_topics()
    return empty_fleet


@pytest.fixture(scope="module")
def own_broker(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """A broker that nobody else needs: it may be stopped. `kafka` only marks the test as one that needs a Kafka."""
    with DevBroker(DevBrokerConfig(data_dir=tmp_path_factory.mktemp("own"), properties=TEST_PROPERTIES)) as broker:
        yield broker


@pytest.fixture
def own_fleet(own_broker: DevBroker, unique: str, tmp_path: Path) -> Iterator[Fleet]:
    """Workers on that broker."""
    fleet = Fleet(own_broker.bootstrap, unique, tmp_path)
    # As users have it: on a busy machine a broker that comes back may take longer than a short session to be heard.
    fleet.settings["worker.session_timeout"] = "10s"
    try:
        fleet.create_topics()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def make_proxy(kafka: Kafka) -> Iterator[Callable[[], FrameProxy]]:
    """Proxies to the broker, one for each worker that needs one."""
    host, port = kafka.bootstrap.split(",")[0].rsplit(":", 1)
    made: list[FrameProxy] = []

    def make() -> FrameProxy:
        made.append(FrameProxy((host, int(port))))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def proxy(make_proxy: Callable[[], FrameProxy]) -> FrameProxy:
    """One of them."""
    return make_proxy()
