"""Fixtures of every suite: a Kafka to test against, and names that collide with no other test's.

`kafka` takes, in this order: the cluster named by PROCESSOR_TEST_BOOTSTRAP; a container, if PROCESSOR_TEST_DOCKER=1;
else a local broker that the run starts for itself. All pytest-xdist workers of a run share one broker; runs at the same
time have their own.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from processor.broker.dev import TEST_PROPERTIES, DevBroker, DevBrokerConfig
from processor.broker.dev.artifacts import DEFAULT_VERSION

# Tests that a script runs in the background have SIGINT ignored, and all their children with them: Ctrl-C is one of the
# things that are tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: time limits belong to pytest-timeout. Derandomised: the same run for everybody.
hypothesis_settings.register_profile("project", deadline=None, derandomize=True)
hypothesis_settings.load_profile("project")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """A running Kafka."""

    bootstrap: str
    """For `bootstrap.servers`."""
    dev: DevBroker | None
    """The broker's remote control; None if it is not a local broker of this run."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the fixture, before `-m` decides: so `-m "not kafka"` needs no marker on any test."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kafka:
    """A Kafka with short timers. It stays up for the whole run: use `unique` for every topic and group."""
    named = os.environ.get("PROCESSOR_TEST_BOOTSTRAP")
    if named:
        return Kafka(bootstrap=named, dev=None)
    if os.environ.get("PROCESSOR_TEST_DOCKER") == "1":
        return _container(request.config)
    run_folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        run_folder = run_folder.parent
    return _shared_dev_broker(request.config, run_folder / "kafka")


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A name for this test's namespace or topics: `[a-z0-9-]{1,60}`, different in every run."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")
    return f"{slug[:40].rstrip('-')}-{uuid.uuid4().hex[:8]}".lstrip("-")


def _container(config: pytest.Config) -> Kafka:
    from testcontainers.kafka import KafkaContainer

    container = KafkaContainer().with_kraft()
    for key, value in TEST_PROPERTIES.items():
        container.with_env("KAFKA_" + key.upper().replace(".", "_"), value)
    container.start()
    config.add_cleanup(container.stop)
    return Kafka(bootstrap=container.get_bootstrap_server(), dev=None)


def _shared_dev_broker(config: pytest.Config, folder: Path) -> Kafka:
    """Join the run's broker or start it.

    Every user holds the lock `users` in shared mode, so the starter, with which the broker would die, can wait until it
    is alone. The lock ends with its process: a crashed xdist worker keeps nobody waiting. If the starter itself crashed
    the next one starts the broker again, on the same ports. The wait is a cleanup of the run and no fixture's teardown,
    where it would count against the timeout of a test.
    """
    folder.mkdir(exist_ok=True)
    users = (folder / "users").open("w")
    fcntl.flock(users, fcntl.LOCK_SH)
    with (folder / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        version = os.environ.get("PROCESSOR_TEST_KAFKA", DEFAULT_VERSION)
        broker = DevBroker(DevBrokerConfig(data_dir=folder / "data", properties=TEST_PROPERTIES, version=version))
        started = not broker.is_running()
        if started:
            broker.start()

    def leave() -> None:
        if started:
            fcntl.flock(users, fcntl.LOCK_EX)
            broker.stop(timeout_s=0)
        users.close()

    config.add_cleanup(leave)
    return Kafka(bootstrap=broker.bootstrap, dev=broker)
