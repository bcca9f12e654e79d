"""`processor checkpoint`, on an app bound to the memory broker."""

from __future__ import annotations

from processor.cli.checkpoint import checkpoint
from processor.states import State
from processor.wire.records import CheckpointRecord
from tests.unit.cli.shop import AT, Shop


def test_a_list_shows_unfinished_jobs_with_their_loops(shop: Shop) -> None:
    assert shop.run(checkpoint, "list").stderr == "no unfinished job has saved anything\n"
    shop.saved("j1")
    shop.status("j1", State.RUNNING)
    shop.saved("j2", promoted=True)
    end = CheckpointRecord("j3", 1, 0, 2, 9, AT, "shop.jobs.bulk", 4, 1, final=b"x")
    shop.write("shop.checkpoints.bulk", "j3", end, 1)
    lines = shop.run(checkpoint, "list", "-q", "bulk").stdout.splitlines()
    assert lines[0].split() == ["ID", "TYPE", "QUEUE", "STATE", "LOOPS", "STEPS", "AGE", "SIZE"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["j1", "import.file", "bulk", "running"],
        ["j2", "import.file", "bulk", "running"],
    ]
    assert "rows: 501 of 1000, at 501" in lines[1]
    found = shop.json(checkpoint, "list")
    assert found[0]["loops"] == {"rows": {"cursor": "501", "items": 501, "total": 1000, "exhausted": False}}
    assert [row["promoted"] for row in found] == [False, True]


def test_show_has_cursor_state_loops_steps_home_and_version(shop: Shop) -> None:
    shop.saved("j1")
    found = shop.json(checkpoint, "show", "j1")
    assert found["home"] == {"topic": "shop.jobs.bulk", "offset": 17}
    assert found["version"] == {"life": 1, "hop": 0, "epoch": 2, "sequence": 7}
    assert (found["state"], found["number"], found["ended"]) == ('{"good": 3}', 1, False)
    assert found["steps"] == [{"step": "head", "phase": "finished", "result": "7", "error": None}]
    text = shop.run(checkpoint, "show", "j1", "-q", "bulk").stdout
    assert "home     shop.jobs.bulk, partition 1, offset 17" in text
    assert "version  life 1 hop 0 epoch 2 sequence 7" in text
    assert "rows    501   1000     501  no" in text
    assert "head  finished  7" in text


def test_show_of_a_promoted_job_and_of_none(shop: Shop) -> None:
    shop.saved("j1", promoted=True)
    assert "in the checkpoint topic (promoted)" in shop.run(checkpoint, "show", "j1").stdout
    shop.status("j2", State.SUCCEEDED)
    result = shop.run(checkpoint, "show", "j2")
    assert (result.exit_code, "it is succeeded" in result.stderr) == (1, True)
    assert shop.run(checkpoint, "show", "j3").exit_code == 1
