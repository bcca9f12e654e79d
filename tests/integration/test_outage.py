"""All brokers away under load: the workers stay, wait, and go on. A broker of its own, which nobody else needs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from processor.broker.dev import DevBroker
from tests.integration.fleet import Fleet
from tests.waiting import eventually

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]


def load(fleet: Fleet) -> list[str]:
    """Jobs that are at work when the brokers go: some with progress, many short ones."""
    ids = [fleet.append("walk", {"items": 1500, "pause": 0.005}).id for _ in range(12)]
    ids += [fleet.append("steps", {"count": 4, "pause": 0.05}).id for _ in range(300)]
    fleet.flush()
    fleet.until_noted(300)
    return ids


def away_for(seconds: float, fleet: Fleet, back: Callable[[], object]) -> None:
    """The brokers are away for so long; no worker ends meanwhile."""
    until = time.monotonic() + seconds

    def over() -> bool:
        assert all(process.alive for process in fleet.processes), fleet.processes[0].tail()
        return time.monotonic() > until

    eventually(over, seconds + 10)
    back()


def all_is_well(fleet: Fleet, ids: list[str]) -> None:
    """The same processes have finished everything, and take more."""
    fleet.reconnect()
    fleet.finish(ids, 120)
    more = [fleet.append("strict", {"amount": 1}).id for _ in range(20)]
    fleet.flush()
    fleet.finish(more)
    dead = [process.tail() for process in fleet.processes if not process.alive]
    assert not dead, dead[0]
    fleet.check_ends(told_twice=True)
    fleet.settle()
    assert not any(process.events("number.held") for process in fleet.processes)
    # A broker that is away is no death of a job: nothing was given up.
    assert fleet.dead_letters() == []


def test_killed_broker_that_comes_back_costs_nothing(own_fleet: Fleet, own_broker: DevBroker) -> None:
    own_fleet.start_ready("a", "b")
    ids = load(own_fleet)
    own_broker.kill()
    own_broker.restart()
    all_is_well(own_fleet, ids)


def test_broker_that_hangs_longer_than_every_session_costs_nothing(own_fleet: Fleet, own_broker: DevBroker) -> None:
    own_fleet.start_ready("a", "b")
    ids = load(own_fleet)
    own_broker.pause()
    away_for(20.0, own_fleet, own_broker.resume)
    all_is_well(own_fleet, ids)


@pytest.mark.slow
def test_minute_without_a_broker_costs_nothing(own_fleet: Fleet, own_broker: DevBroker) -> None:
    own_fleet.start_ready("a", "b")
    ids = load(own_fleet)
    own_broker.kill()
    away_for(60.0, own_fleet, own_broker.restart)
    all_is_well(own_fleet, ids)
