"""Schedules on a real Kafka: each instant is fired once, also when the leader is killed, at an instant or between."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest

from processor.admin.orders import Operator
from processor.admin.schedules import add_schedule, pause_schedule, schedule_named
from processor.broker.dev import DevBroker
from processor.core.schedules import CLI
from processor.errors import BrokerUnavailable, RetriableBrokerError
from processor.job import Job
from processor.job_ids import made_at
from processor.schedules import Timing
from processor.wire.groups import scheduler_group, slot_of
from processor.wire.records import ScheduleFired
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE
from tests.waiting import eventually

WHO = Operator(by="test@host")


def add(fleet: Fleet, name: str, job_type: str, payload: object, **timing: Any) -> None:
    """Add a schedule by hand."""
    now = WHO.clock.now_ms()
    job = Job("probe", job_type, 1, QUEUE, json.dumps(payload).encode(), now)
    record = Timing(**timing).record(name, job, now_ms=now, by=WHO.by, source=CLI)
    add_schedule(fleet.broker, fleet.namespace, record, WHO)


def leader(fleet: Fleet) -> str:
    """The slot that leads now."""

    def found() -> list[str]:
        members = fleet.broker.admin().members(scheduler_group(fleet.namespace))
        return [slot_of(member.instance_id or "") for member in members if member.partitions]

    return str(eventually(found, 60, fleet.describe)[0])


def fired(fleet: Fleet, name: str) -> ScheduleFired | None:
    def asked() -> list[ScheduleFired | None]:
        # A broker that has just come back refuses many a question for a moment.
        with contextlib.suppress(RetriableBrokerError, BrokerUnavailable):
            return [schedule_named(fleet.broker, fleet.namespace, name).fired]
        return []

    return eventually(asked, 60, fleet.describe)[0]


def until_fired(fleet: Fleet, name: str, count: int, timeout: float = 120.0) -> ScheduleFired:
    """Wait until so many jobs were started by the clock."""

    def enough() -> ScheduleFired | None:
        now = fired(fleet, name)
        return now if now is not None and now.fired >= count else None

    found = eventually(enough, timeout, lambda: f"{fired(fleet, name)} {fleet.describe()}")
    assert found is not None
    return found


def kill_leader(fleet: Fleet, *, at_instant: bool) -> str:
    """SIGKILL whoever leads; its slot."""
    slot = leader(fleet)
    if at_instant:
        eventually(lambda: time.time() % 1.0 < 0.03, 30, "an instant")
    fleet.worker(slot).kill()
    return slot


def check_instants(fleet: Fleet, name: str, count: int) -> None:
    """From the first instant to the last there is one job each, and each ran once to its end."""
    pause_schedule(fleet.broker, fleet.namespace, name, WHO)
    seen: list[tuple[ScheduleFired, set[str]]] = []

    def all_ended() -> bool:
        # One after the other: the leader may fire once more before it hears of the pause.
        now = fired(fleet, name)
        ended = {job_id for job_id, _ in fleet.ends()}
        assert now is not None
        seen.append((now, ended))
        return now.fired == len(ended)

    eventually(all_ended, 60, lambda: f"{len(seen[-1][1])} of {seen[-1][0].fired} {fleet.describe()}")
    last, ids = seen[-1]
    assert last.fired >= count
    found = sorted((made_at(job_id) or 0) // 1000 for job_id in ids)
    assert found == list(range(found[0], found[0] + len(found)))
    assert made_at(last.job_id) == last.instant == found[-1] * 1000
    assert ids <= {line["job"] for line in fleet.ledger("leaf")}
    fleet.check_ends(told_twice=True)


def test_every_second_over_two_kills_of_the_leader(fleet: Fleet) -> None:
    fleet.start_ready("a", "b", "c")
    add(fleet, "tick", "leaf", {"count": 1}, every="1s", overlap="queue")
    until_fired(fleet, "tick", 4)
    first = kill_leader(fleet, at_instant=True)
    until_fired(fleet, "tick", 10)
    second = kill_leader(fleet, at_instant=False)
    assert second != first
    until_fired(fleet, "tick", 18)
    check_instants(fleet, "tick", 18)


@pytest.mark.slow
def test_a_frozen_leader_that_wakes_up_fires_nothing(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    add(fleet, "tick", "leaf", {"count": 1}, every="1s", overlap="queue")
    until_fired(fleet, "tick", 3)
    frozen = fleet.worker(leader(fleet))
    frozen.freeze()
    before = fired(fleet, "tick")
    assert before is not None
    until_fired(fleet, "tick", before.fired + 8)
    frozen.thaw()
    until_fired(fleet, "tick", before.fired + 12)
    check_instants(fleet, "tick", before.fired + 12)


@pytest.mark.slow
def test_what_code_declares_is_fired_also_after_a_deploy(fleet: Fleet) -> None:
    declared = {"JOBS_SCHEDULE": "1s"}
    fleet.start_ready("a", "b", env=declared)
    first = until_fired(fleet, "tick", 3)
    plan = schedule_named(fleet.broker, fleet.namespace, "tick").plan
    assert (plan.source, plan.every, plan.type) == ("code", 1_000, "leaf")
    for slot in ("a", "b"):
        fleet.worker(slot).terminate()
        fleet.worker(slot).wait()
        fleet.start(slot, env=declared)
    until_fired(fleet, "tick", first.fired + 5)
    assert schedule_named(fleet.broker, fleet.namespace, "tick").plan == plan, "nothing has changed"
    check_instants(fleet, "tick", first.fired + 5)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_second_for_two_minutes_over_two_kills_of_the_leader(fleet: Fleet) -> None:
    fleet.start_ready("a", "b", "c")
    add(fleet, "tick", "leaf", {"count": 1}, every="1s", overlap="queue")
    until_fired(fleet, "tick", 40)
    slot = kill_leader(fleet, at_instant=True)
    fleet.start(slot)
    until_fired(fleet, "tick", 80)
    slot = kill_leader(fleet, at_instant=True)
    fleet.start(slot)
    until_fired(fleet, "tick", 120)
    check_instants(fleet, "tick", 120)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_instants_of_a_broker_outage_are_fired_once_when_it_is_back(own_fleet: Fleet, own_broker: DevBroker) -> None:
    own_fleet.start_ready("a", "b")
    add(own_fleet, "tick", "leaf", {"count": 1}, every="1s", overlap="queue")
    before = until_fired(own_fleet, "tick", 3)

    own_broker.kill()
    eventually(lambda: time.time() * 1000 > before.instant + 12_000, 60, "instants that nobody fires")
    own_broker.restart()
    own_fleet.reconnect()

    until_fired(own_fleet, "tick", before.fired + 20)
    check_instants(own_fleet, "tick", before.fired + 20)
    assert all(process.alive for process in own_fleet.processes)


def test_skip_waits_for_the_end_of_a_run_over_a_change_of_leader(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    add(fleet, "walk", "gated", {"key": "run"}, every="1s", overlap="skip")
    started = until_fired(fleet, "walk", 1)
    eventually(lambda: (now := fired(fleet, "walk")) is not None and now.skipped >= 2, 60, fleet.describe)
    fleet.worker(leader(fleet)).terminate()
    skipped = fired(fleet, "walk")
    assert skipped is not None
    eventually(
        lambda: (now := fired(fleet, "walk")) is not None and now.skipped >= skipped.skipped + 3, 60, fleet.describe
    )
    now = fired(fleet, "walk")
    assert now is not None
    assert (now.fired, now.job_id) == (1, started.job_id)
    (fleet.folder / "gate-run").touch()
    until_fired(fleet, "walk", 3)
