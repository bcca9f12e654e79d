"""`processor queue` and the orders of `processor job`, on an app bound to the memory broker."""

from __future__ import annotations

import pytest

from processor.cli.job import job
from processor.cli.queue import queue
from processor.states import State
from tests.unit.cli.shop import Shop


def test_a_list_shows_what_waits_who_serves_and_what_rests(shop: Shop) -> None:
    shop.write("shop.jobs.bulk", "j1", b"whatever", 1)
    paused = shop.run(queue, "pause", "bulk", "--reason", "the bank is closed")
    assert paused.stdout == "queue bulk rests; processor queue resume bulk lets it go on\n"
    assert shop.run(queue, "pause", "--type", "mail").exit_code == 0
    lines = shop.run(queue, "list").stdout.splitlines()
    assert lines[0].split() == ["QUEUE", "NORMAL", "DUE", "PARTITIONS", "WORKERS", "UNOWNED", "PAUSED"]
    assert lines[1].split()[:6] == ["bulk", "1", "0", "2", "0", "2"]
    assert "the bank is closed (by " in lines[1]
    assert lines[2].split()[0] == "default"
    assert lines[3].startswith("job type mail is paused: by ")
    (bulk, _) = shop.json(queue, "list")
    assert (bulk["waiting"], bulk["workers"]) == ({"normal": 1, "due": 0}, [])
    assert shop.run(queue, "resume", "bulk").stdout == "queue bulk goes on\n"
    assert shop.run(queue, "resume", "--type", "mail").stdout == "job type mail goes on\n"
    refused = shop.run(queue, "resume", "bulk")
    assert (refused.exit_code, "queue bulk is not paused" in refused.stderr) == (1, True)


def test_lag_shows_each_partition(shop: Shop) -> None:
    shop.write("shop.jobs.bulk", "j1", b"whatever", 1)
    rows = shop.json(queue, "lag", "bulk")
    assert {(row["lane"], row["number"]): row["waiting"] for row in rows} == {
        ("normal", 0): 0,
        ("normal", 1): 1,
        ("due", 0): 0,
        ("due", 1): 0,
    }
    missing = shop.run(queue, "lag", "bluk")
    assert (missing.exit_code, "there are: bulk" in missing.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["pause"], "name a queue, or a job type"),
        (["pause", "bulk", "--type", "mail"], "name a queue, or a job type"),
        (["pause", "bluk"], "has no topics"),
        (["pause", "Not a queue"], "not allowed"),
        (["seek", "bulk", "middle"], "no place in a lane"),
        (["seek", "bulk", "end", "--number", "9"], "no partition 9"),
        (["seek", "bulk", "end"], "give --yes"),
        (["seek", "bulk", "99", "--number", "1"], "holds offsets 0 to 1, not 99"),
    ],
)
def test_what_cannot_be_is_explained(shop: Shop, args: list[str], said: str) -> None:
    shop.write("shop.jobs.bulk", "j1", b"whatever", 1)
    result = shop.run(queue, *args)
    assert result.exit_code in (1, 2)
    assert said in result.stderr


def test_seek_shows_what_it_would_do_and_does_it(shop: Shop) -> None:
    shop.write("shop.jobs.bulk", "j1", b"whatever", 1)
    looked = shop.run(queue, "seek", "bulk", "end", "--dry-run")
    assert looked.stdout.splitlines()[2].split() == ["shop.jobs.bulk", "1", "-", "1", "0"]
    assert sum(row["waiting"] for row in shop.json(queue, "lag", "bulk")) == 1
    done = shop.run(queue, "seek", "bulk", "end", "--number", "1", "--yes", "--reason", "sent by hand")
    assert (done.exit_code, done.stderr) == (0, "1 partition of queue bulk set\n")
    assert sum(row["waiting"] for row in shop.json(queue, "lag", "bulk")) == 0
    assert shop.json(queue, "seek", "bulk", "begin", "--number", "1", "--dry-run")[0]["before"] == 1


def test_jobs_are_cancelled_and_what_has_ended_is_named(shop: Shop) -> None:
    shop.status("j1", State.RUNNING)
    shop.status("j2", State.SUCCEEDED)
    looked = shop.run(job, "cancel", "j1", "j2", "j3", "--dry-run")
    assert looked.stdout == "j1  running\nj2  succeeded\nj3  no status\n"
    result = shop.run(job, "cancel", "j1", "j2", "j3", "--reason", "wrong customer")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "j1  is being cancelled: it was running",
        "j2  refused",
        "j3  is being cancelled: it has no status yet: it ends as soon as its turn comes, if there is such a job",
    ]
    assert "job j2 has ended already: succeeded" in result.stderr


def test_only_what_waits_can_be_told_to_go_on(shop: Shop) -> None:
    shop.status("j1", State.IN_DOUBT)
    shop.status("j2", State.DEAD)
    assert shop.run(job, "retry", "j1").stdout == "j1  goes on: it was in_doubt, and goes on\n"
    dead = shop.run(job, "retry", "j2")
    assert (dead.exit_code, "processor dlq redrive j2" in dead.stderr) == (1, True)
    assert shop.run(job, "retry", "j9").exit_code == 1


def test_a_handle_cancels_and_says_when_it_was_too_late(shop: Shop) -> None:
    shop.status("j1", State.RUNNING)
    shop.status("j2", State.SUCCEEDED)
    assert shop.app.handle("j1").cancel("no longer wanted")
    assert not shop.app.handle("j2").cancel()
