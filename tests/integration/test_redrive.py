"""Dead letters and their way back: real workers, a real Kafka, the command that operators type."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from processor import admin
from processor.admin.dead_letters import list_letters
from processor.job import Job, Lane
from processor.states import State
from processor.wire.codec import decode_audit, decode_job
from tests.integration import jobs_app
from tests.integration.fleet import Fleet
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)
MANY = 500


def command(fleet: Fleet, *args: str) -> subprocess.Popen[str]:
    """Start `processor dlq`."""
    target = ["--app", f"{jobs_app.__file__}:app", "--bootstrap", fleet.bootstrap]
    return subprocess.Popen(
        [sys.executable, "-m", "processor", "dlq", *args, *target],
        cwd=fleet.folder,
        env=fleet.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(fleet: Fleet, *args: str, code: int = 0) -> str:
    """What it prints; it ends with this exit code."""
    process = command(fleet, *args)
    out, err = process.communicate(timeout=90)
    assert process.returncode == code, f"{args} ended with {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out


def table(fleet: Fleet, rows: int) -> Path:
    """A file with so many rows."""
    path = fleet.folder / f"{rows}.txt"
    path.write_text("".join(f"{row}\n" for row in range(1, rows + 1)))
    return path


def audited(fleet: Fleet) -> int:
    records = admin.tail(fleet.broker, [f"{fleet.namespace}.audit"], from_start=True)
    return sum(decode_audit(record.value() or b"").action == "redrive" for record in records)


def until_audited(fleet: Fleet, count: int) -> None:
    eventually(lambda: audited(fleet) >= count, 60, fleet.describe)


def open_gate(fleet: Fleet, name: str) -> None:
    (fleet.folder / f"gate-{name}").touch()


def due(fleet: Fleet, life: int) -> list[Job]:
    records = admin.tail(fleet.broker, [fleet.lane(Lane.DUE).topic], from_start=True)
    return [job for job in (decode_job(record.value() or b"") for record in records) if job.life == life]


def test_a_job_that_failed_late_is_redriven_and_goes_on_from_its_row(fleet: Fleet) -> None:
    fleet.start_ready("a")
    path = table(fleet, 1_000_000)
    job = fleet.append("rows", {"path": str(path), "bad": 950_000, "rows": 1_000_000})
    fleet.flush()
    letter = fleet.dead_letter("exhausted", 120.0)
    assert fleet.end_of(job.id).state is State.DEAD
    assert "row 950000 has no amount" in run(fleet, "list")
    shown = run(fleet, "show", job.id)
    assert "lines: 949999 of 1000000" in shown
    assert shown.count("ValueError: row 950000 has no amount") >= len(letter.failures or [])
    tried = len(fleet.ledger("reads"))
    open_gate(fleet, "fixed")
    assert run(fleet, "redrive", job.id, "--yes", "--reason", "row 950000 is repaired") == "1 letter redriven\n"
    eventually(lambda: (job.id, 2) in fleet.ends(), 40, fleet.describe)
    (end,) = fleet.ends()[job.id, 2]
    assert (end.state, end.result) == (State.SUCCEEDED, b"1000000")
    again = [line["after"] for line in fleet.ledger("reads")[tried:]]
    assert again == [949_999], "no finished row is read again"
    assert "redriven already" in command(fleet, "redrive", job.id, "--yes").communicate(timeout=60)[1]
    fleet.check_ends()
    fleet.settle()


def test_a_redrive_killed_again_and_again_sends_each_letter_once(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    path = table(fleet, 30)
    ids = [fleet.append("rows", {"path": str(path), "bad": 20, "rows": 30}).id for _ in range(MANY)]
    fleet.flush()
    fleet.finish(ids, 90)
    eventually(lambda: len(fleet.dead_letters()) == MANY, 20, fleet.describe)
    open_gate(fleet, "fixed")
    tried = len(fleet.ledger("reads"))
    kills = []
    for done in (1, 150):
        process = command(fleet, "redrive", "--all-open", "--yes", "--rate", "50")
        until_audited(fleet, done)
        process.kill()
        process.communicate()
        kills.append(audited(fleet))
    assert 0 < kills[0] <= kills[1] < MANY, "killed in the middle"
    left = json.loads(run(fleet, "redrive", "--all-open", "--yes", "--json"))
    assert left == {"done": MANY - kills[1], "skipped": 0, "refused": []}
    assert audited(fleet) == MANY
    eventually(lambda: sum(life == 2 for _, life in fleet.ends()) == MANY, 90, fleet.describe)
    assert Counter(job.id for job in due(fleet, 2)) == Counter(ids)
    assert {end.state for (_, life), ends in fleet.ends().items() if life == 2 for end in ends} == {State.SUCCEEDED}
    again = fleet.ledger("reads")[tried:]
    assert Counter(line["job"] for line in again) == Counter(ids), "each ran once"
    assert {line["after"] for line in again} == {19}
    assert {row.state for row in list_letters(fleet.broker, fleet.namespace)} == {"redriven"}
    fleet.check_ends()
    fleet.settle()


def test_two_operators_at_once_send_each_letter_once(fleet: Fleet) -> None:
    fleet.start_ready("a")
    ids = [fleet.append("strict", {"amount": 0}).id for _ in range(MANY)]
    fleet.flush()
    fleet.finish(ids, 60)
    eventually(lambda: len(fleet.dead_letters()) == MANY, 20, fleet.describe)
    chosen = ["redrive", "--since", "1h", "--dead-reason", "bad_payload", "--yes"]
    # So slow that the second has begun before it is done, however long that one takes to start.
    first = command(fleet, *chosen, "--rate", "5")
    until_audited(fleet, 1)
    second = command(fleet, *chosen)
    said = [process.communicate(timeout=90)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (1, 0), said
    assert "another redrive or discard of this namespace has begun" in said[0]
    sent = Counter(job.id for job in due(fleet, 2))
    assert set(sent) >= set(ids)
    assert set(sent.values()) == {1}
