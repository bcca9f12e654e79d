"""The history of queues runs again: real workers, a real Kafka, the command that operators type."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from processor import admin
from processor.admin.replay import replays_of
from processor.job import Job, Lane
from processor.states import State
from processor.wire.codec import decode_job
from tests.conftest import Kafka
from tests.integration import jobs_app
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import QUEUE
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def other(kafka: Kafka, unique: str, tmp_path: Path) -> Iterator[Fleet]:
    """Another namespace, with the same queues and workers of its own."""
    folder = tmp_path / "other"
    folder.mkdir()
    made = Fleet(kafka.bootstrap, f"{unique[:50]}-other", folder)
    try:
        made.create_topics()
        yield made
    finally:
        made.close()


def command(fleet: Fleet, *args: str) -> subprocess.Popen[str]:
    """Start `processor replay`."""
    target = ["--app", f"{jobs_app.__file__}:app", "--bootstrap", fleet.bootstrap]
    return subprocess.Popen(
        [sys.executable, "-m", "processor", "replay", *args, *target],
        cwd=fleet.folder,
        env=fleet.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(fleet: Fleet, *args: str) -> Any:
    """What it prints as JSON; it succeeds."""
    process = command(fleet, *args, "--json")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, f"{args} ended with {process.returncode}\n{out}\n{err}"
    return json.loads(out)


def sent(into: Fleet) -> int:
    """How many jobs the audit topic names as replayed."""
    return sum(len(replay.sent) for replay in replays_of(into.broker, into.namespace).replays.values())


def lying(fleet: Fleet, lane: Lane = Lane.NORMAL) -> list[Job]:
    records = admin.tail(fleet.broker, [fleet.lane(lane).topic], from_start=True)
    return [decode_job(record.value() or b"") for record in records]


def moment(after: int) -> str:
    """A moment after these milliseconds, and before those of whatever is enqueued from now on."""
    now = eventually(lambda: (ms := time.time_ns() // 1_000_000) > after and ms)
    return datetime.fromtimestamp(now / 1000, UTC).isoformat(timespec="milliseconds")


def history(fleet: Fleet, amount: int) -> tuple[list[Job], list[str]]:
    """Jobs of three stretches of time. Of those in the middle, `amount` are leaves of kind 3, half as many are not.

    Returns:
        All jobs, and the options that mean the `amount`.
    """
    jobs = [fleet.append("leaf", {"count": 3}) for _ in range(amount // 2)]
    since = moment(jobs[-1].enqueued_at)
    for number in range(amount):
        jobs.append(fleet.append("leaf", {"count": 3}, key=f"k{number % 7}" if number % 2 else None))
        if number % 4 == 0:
            jobs.append(fleet.append("leaf", {"count": 4}))
        if number % 4 == 1:
            jobs.append(fleet.append("steps", {"count": 3}))
    until = moment(jobs[-1].enqueued_at)
    jobs += [fleet.append("leaf", {"count": 3}) for _ in range(amount // 2)]
    fleet.flush()
    return jobs, ["-q", QUEUE, "--since", since, "--until", until, "--type", "leaf", "--where", "count=3"]


def counted(jobs: list[Job], options: list[str]) -> list[str]:
    """The ids that the options mean, by a plain count."""
    since, until = (datetime.fromisoformat(options[place]).timestamp() * 1000 for place in (3, 5))
    return [
        job.id
        for job in jobs
        if job.type == "leaf"
        and json.loads(job.payload)["count"] == 3
        and round(since) <= job.enqueued_at < round(until)
    ]


@pytest.mark.parametrize(
    ("amount", "killed"), [(2_000, 200), pytest.param(50_000, 25_000, marks=pytest.mark.slow)], ids=["2000", "50000"]
)
def test_a_replay_into_another_namespace_equals_a_plain_count(
    fleet: Fleet, other: Fleet, amount: int, killed: int
) -> None:
    jobs, options = history(fleet, amount)
    expected = counted(jobs, options)
    assert len(expected) == amount
    into = [*options, "--to-namespace", other.namespace]
    plan = run(fleet, "plan", *into)
    assert (plan["jobs"], plan["left"], plan["gone"]) == (amount, amount, [])
    assert plan["counts"] == [{"queue": QUEUE, "type": "leaf", "state": "queued", "jobs": amount}]
    kills = []
    # So slow that it takes 40 s in all: a machine under load must be in time to kill it in the middle.
    for done in (1, killed):
        process = command(fleet, "run", *into, "--yes", "--rate", str(amount // 40))
        eventually(lambda least=done: sent(other) >= least, 120, other.describe)  # type: ignore[misc]  # a default binds it
        process.kill()
        process.communicate()
        kills.append(sent(other))
    assert 0 < kills[0] < kills[1] < amount, "killed in the middle"
    outcome = run(fleet, "run", *into, "--yes")
    assert outcome["before"] >= kills[1]
    assert (outcome["before"] + outcome["sent"], outcome["gone"], outcome["refused"]) == (amount, 0, [])
    new = lying(other)
    assert Counter((job.redriven_from or "").split("/")[2] for job in new) == Counter(f"{one}@1" for one in expected)
    assert len({job.id for job in new}) == amount
    for key in (f"k{number}" for number in range(7)):
        old_order = [job.id for job in jobs if job.key == key]
        assert [(job.redriven_from or "")[:-2].split("/")[2] for job in new if job.key == key] == old_order
    again = run(fleet, "run", *into, "--yes")
    assert (again["sent"], again["before"]) == (0, amount)
    assert len(lying(other)) == amount
    if amount == 2_000:
        other.start_ready("a")
        other.finish([job.id for job in new], 120)
        assert Counter(line["job"] for line in other.ledger("leaf")) == Counter(job.id for job in new), "each ran once"
        other.check_ends()


def test_ended_jobs_run_again_under_their_own_ids_while_workers_work(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    ids = [fleet.append("leaf", {"count": number}).id for number in range(600)]
    fleet.flush()
    fleet.finish(ids, 90)
    options = ["-q", QUEUE, "--all", "--state", "succeeded", "--same-ids"]
    process = command(fleet, "run", *options, "--yes", "--rate", "20")
    eventually(lambda: sent(fleet) >= 1, 60, fleet.describe)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "the same command goes on with them, and sends none twice" in said
    assert 0 < sent(fleet) < 600
    process = command(fleet, "run", *options, "--yes", "--rate", "20")
    before = sent(fleet)
    eventually(lambda: sent(fleet) > before, 60, fleet.describe)
    process.kill()
    process.communicate()
    outcome = run(fleet, "run", *options, "--yes")
    assert outcome["before"] + outcome["sent"] == 600
    eventually(lambda: sum(life == 2 for _, life in fleet.ends()) == 600, 90, fleet.describe)
    assert Counter(line["job"] for line in fleet.ledger("leaf")) == Counter(ids + ids), "twice each, once per life"
    again = run(fleet, "run", *options, "--yes", "--name", "third-time")
    assert again["sent"] == 600
    eventually(lambda: sum(life == 3 for _, life in fleet.ends()) == 600, 90, fleet.describe)
    assert Counter(line["job"] for line in fleet.ledger("leaf")) == Counter(ids * 3)
    fleet.check_ends()
    fleet.settle()


def test_under_the_same_ids_another_namespace_runs_each_job_once_within_its_window(fleet: Fleet, other: Fleet) -> None:
    ids = [fleet.append("leaf", {"count": number}).id for number in range(200)]
    fleet.flush()
    other.start_ready("a")
    into = ["-q", QUEUE, "--all", "--to-namespace", other.namespace, "--same-ids", "--yes"]
    assert run(fleet, "run", *into)["sent"] == 200
    other.finish(ids, 90)
    assert run(fleet, "run", *into, "--name", "once-more")["sent"] == 200
    marker = other.append("leaf", {"count": 0}).id
    other.flush()
    other.finish([marker], 60)
    eventually(lambda: not other.lag(), 60, other.describe)
    assert Counter(line["job"] for line in other.ledger("leaf")) == Counter([*ids, marker])
    other.check_ends()


def test_a_failed_job_goes_on_from_its_checkpoint_as_a_new_job(fleet: Fleet, other: Fleet) -> None:
    path = fleet.folder / "rows.txt"
    path.write_text("".join(f"{row}\n" for row in range(1, 1_001)))
    fleet.start_ready("a")
    job = fleet.append("rows", {"path": str(path), "bad": 950, "rows": 1_000})
    fleet.flush()
    fleet.dead_letter("exhausted", 120.0)
    assert fleet.end_of(job.id).state is State.DEAD
    (other.folder / "gate-fixed").touch()
    other.start_ready("a")
    into = ["--to-namespace", other.namespace, "--from-checkpoint", "--yes"]
    assert run(fleet, "run", job.id, *into)["sent"] == 1
    (new,) = lying(other)
    end = other.end_of(new.id)
    assert (end.state, end.result) == (State.SUCCEEDED, b"1000")
    assert [line["after"] for line in other.ledger("reads")] == [949], "no finished row is read again"
    assert run(fleet, "run", job.id, "--to-namespace", other.namespace, "--yes")["sent"] == 1
    eventually(lambda: len(other.ends()) == 2, 60, other.describe)
    assert [line["after"] for line in other.ledger("reads")][1:] == [0], "without it, from the start"


def test_what_the_queue_has_deleted_is_named(fleet: Fleet) -> None:
    for number in range(200):
        fleet.append("leaf", {"count": number})
    fleet.flush()
    place = fleet.lane(number=1)
    fleet.broker.admin().delete_records({place: 20})
    plan = run(fleet, "plan", "-q", QUEUE, "--all")
    assert plan["jobs"] == 180
    (gone,) = plan["gone"]
    assert (gone["queue"], gone["lane"], gone["number"], gone["asked"]) == (QUEUE, "normal", 1, 0)
    assert (gone["begins"], gone["records"]) == (20, 20)
    assert run(fleet, "plan", "-q", QUEUE, "--from-offset", "1@15")["gone"][0]["records"] == 5
    assert run(fleet, "plan", "-q", QUEUE, "--from-offset", "1@20")["gone"] == []
    assert run(fleet, "plan", "-q", QUEUE, "--since", "1h")["gone"][0]["records"] == 20
    process = command(fleet, "plan", "-q", QUEUE, "--all")
    said = process.communicate(timeout=60)[1]
    assert f"gone: {QUEUE}, lane normal, partition 1: up to 20 records from offset 0 on; it begins at 20" in said
