"""`processor replay`, on an app bound to the memory broker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processor.admin.replay import run as running
from processor.broker.base import TopicPartition
from processor.cli.dlq import dlq
from processor.cli.job import job
from processor.cli.replay import replay
from processor.job import Job
from processor.states import State
from processor.wire.codec import decode_audit, decode_job
from tests.unit.cli.shop import AT, Shop

HERE = ("-q", "bulk", "--all")


def lying(shop: Shop, topic: str = "shop.jobs.bulk") -> list[Job]:
    return [decode_job(record.value() or b"") for record in shop.broker.records(topic)]


def fill(shop: Shop, jobs: int) -> None:
    for number in range(jobs):
        name = f"j{number}"
        payload = json.dumps({"url": "a", "customer": number % 3}).encode()
        shop.write("shop.jobs.bulk", name, Job(name, "import.file", 1, "bulk", payload, AT + number))
        shop.status(name, State.DEAD if number % 5 == 0 else State.SUCCEEDED)


def test_a_plan_counts_and_names_what_is_gone(shop: Shop) -> None:
    fill(shop, 20)
    shop.broker.admin().delete_records({TopicPartition("shop.jobs.bulk", 0): 3})
    result = shop.run(replay, "plan", *HERE)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["QUEUE", "TYPE", "STATE", "JOBS"]
    counted = {tuple(line.split()[:3]): int(line.split()[3]) for line in lines[1:]}
    assert set(counted) == {("bulk", "import.file", "dead"), ("bulk", "import.file", "succeeded")}
    assert sum(counted.values()) == 17
    assert (
        "warning: gone: bulk, lane normal, partition 0: up to 3 records from offset 0 on; it begins at 3"
        in result.stderr
    )
    assert "finished jobs are kept for topics.replay_time" in result.stderr
    assert "17 jobs would go into the same queue, as new jobs, from the start; nothing was sent" in result.stderr
    facts = shop.json(replay, "plan", *HERE)
    assert (facts["jobs"], facts["sent"], facts["left"], facts["done"]) == (17, 0, 17, False)
    (row,) = facts["gone"]
    assert (row["number"], row["asked"], row["begins"], row["records"]) == (0, 0, 3, 3)
    assert sum(each["jobs"] for each in facts["counts"]) == 17
    assert shop.broker.records("shop.audit") == []


def test_a_run_sends_what_the_filters_mean_and_is_done(shop: Shop) -> None:
    fill(shop, 20)
    chosen = ("run", *HERE, "--state", "dead", "--where", "customer=0", "--reason", "the fix is out", "--yes")
    dry = shop.run(replay, *chosen, "--dry-run")
    assert "2 jobs would go" in dry.stderr
    assert len(lying(shop)) == 20
    result = shop.run(replay, *chosen)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("2 jobs replayed: replay ")
    name = result.stdout.split()[-1]
    new = [one for one in lying(shop) if one.redriven_from]
    assert {one.redriven_from for one in new} == {"shop/bulk/j0@1", "shop/bulk/j15@1"}
    shown = shop.run(job, "show", new[0].id).stdout
    assert "replayed from shop/bulk/" in shown
    assert ": the fix is out" in shown
    again = shop.run(replay, *chosen)
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, f"0 jobs replayed, 2 earlier: replay {name}")
    assert f"replay {name} was done by" in again.stderr
    assert "give it a --name" in again.stderr
    assert len(lying(shop)) == 22
    assert shop.json(replay, *chosen, "--name", "once-more") == {
        "name": "once-more",
        "sent": 2,
        "before": 0,
        "gone": 0,
        "refused": [],
    }
    rows = shop.json(replay, "list")
    assert [(row["name"], row["sent"], row["done"], row["reason"]) for row in rows] == [
        (name, 2, True, "the fix is out"),
        ("once-more", 2, True, "the fix is out"),
    ]
    assert "once-more" in shop.run(replay, "list").stdout


def test_ctrl_c_says_where_it_stands_and_it_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(shop, 20)
    monkeypatch.setattr(running, "BATCH", 4)
    write, batches = running._Sender._send, iter(range(10))

    def stopped(sender: running._Sender, items: list[Any]) -> None:
        if next(batches) == 2:
            raise KeyboardInterrupt
        write(sender, items)

    with monkeypatch.context() as patch:
        patch.setattr(running._Sender, "_send", stopped)
        result = shop.run(replay, "run", *HERE, "--yes")
    assert result.exit_code == 130
    assert "stopped: 8 of 20 jobs of replay " in result.stderr
    assert "12 are not; the same command goes on with them, and sends none twice" in result.stderr
    facts = shop.json(replay, "plan", *HERE)
    assert (facts["sent"], facts["left"]) == (8, 12)
    assert "and has sent 8; it goes on with what was meant then" in shop.run(replay, "plan", *HERE).stderr
    shop.write("shop.jobs.bulk", "late", Job("late", "import.file", 1, "bulk", b"{}", AT))
    assert "12 jobs replayed, 8 earlier" in shop.run(replay, "run", *HERE, "--yes").stdout
    assert "was done by" in shop.run(replay, "plan", *HERE).stderr
    assert len(lying(shop)) == 41


def test_what_is_refused_is_named_and_the_exit_code_tells(shop: Shop) -> None:
    fill(shop, 2)
    big = json.dumps({"url": "x" * 100_000}).encode()
    shop.write("shop.jobs.bulk", "big", Job("big", "import.file", 1, "bulk", big, AT))
    shop.broker.admin().set_topic_config("shop.jobs.default", {"max.message.bytes": "50000"})
    result = shop.run(replay, "run", *HERE, "--to-queue", "default", "--yes")
    assert result.exit_code == 1
    assert "warning: bulk/big: " in result.stderr
    assert "1 jobs could not be sent" in result.stderr
    assert len(lying(shop, "shop.jobs.default")) == 2


def test_the_letter_of_a_replayed_job_says_so(shop: Shop) -> None:
    one = Job("j1", "import.file", 1, "bulk", b'{"url":"a"}', AT)
    shop.write("shop.jobs.bulk", "j1", one)
    shop.died("j1")
    shop.letter("j1")
    assert shop.run(replay, "run", "j1", "--same-ids", "--reason", "fixed", "--yes").exit_code == 0
    assert "replayed by " in shop.run(dlq, "show", "j1").stdout
    refused = shop.run(dlq, "redrive", "j1", "--yes")
    assert refused.exit_code == 1
    assert "was replayed already by " in refused.stderr
    shop.letter("j2", job=one._replace(id="j2", redriven_from="shop/bulk/j0@1"))
    assert "replayed from  shop/bulk/j0@1" in shop.run(dlq, "show", "j2").stdout


def test_ids_that_are_not_there_are_named(shop: Shop) -> None:
    fill(shop, 2)
    result = shop.run(replay, "run", "j1", "j9", "--yes")
    assert "no lane holds a record of j9" in result.stderr
    assert result.stdout.splitlines()[-1].startswith("1 job replayed")
    nothing = shop.run(replay, "run", "j9", "--yes")
    assert (nothing.exit_code, "no job is meant" in nothing.stderr) == (0, True)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["-q", "bulk"], 2, "which part of the history?"),
        (["--all"], 2, "which queues?"),
        (["-q", "gone", "--all"], 2, "there are: bulk, default"),
        (["-q", "bulk", "--all", "--where", "x"], 2, "write PATH=VALUE"),
        (["-q", "bulk", "--all", "--state", "finished"], 2, "'finished' is not one of"),
        (["-q", "bulk", "--all", "--name", "No Name"], 2, "replay name 'No Name' is not allowed"),
        (["-q", "bulk", "--all", "--to-namespace", "elsewhere"], 4, "elsewhere.audit: no such topic"),
        ([""], 2, "an empty id means no job"),
    ],
)
def test_what_makes_no_sense_is_refused(shop: Shop, args: list[str], code: int, said: str) -> None:
    fill(shop, 1)
    for command in ("plan", "run"):
        result = shop.run(replay, command, *args)
        assert result.exit_code == code, result.stderr
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_nobody_is_asked_where_nobody_is(shop: Shop) -> None:
    fill(shop, 1)
    result = shop.run(replay, "run", *HERE)
    assert (result.exit_code, "say --yes" in result.stderr) == (2, True)
    assert shop.run(replay, "run", *HERE, "--rate", "0").exit_code == 2
    assert [decode_audit(r.value() or b"") for r in shop.broker.records("shop.audit")] == []
