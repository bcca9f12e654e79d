"""The projection of a real log: killed anywhere, it neither loses nor doubles, and one built anew is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from processor import admin
from processor.ops import tables
from processor.ops.filters import parse
from processor.ops.queries import Queries
from processor.ops.store import Store
from tests.integration import jobs_app
from tests.integration.fleet import Fleet
from tests.unit.ops.dump import dump
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)
MANY = 12_000
BAD = 300


def command(fleet: Fleet, database: str, *args: str) -> subprocess.Popen[str]:
    """Start `processor projection`."""
    target = ["--app", f"{jobs_app.__file__}:app", "--bootstrap", fleet.bootstrap, "--database", database]
    return subprocess.Popen(
        [sys.executable, "-m", "processor", "projection", *args, *target],
        cwd=fleet.folder,
        env=fleet.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(fleet: Fleet, database: str, *args: str) -> str:
    """What it prints."""
    process = command(fleet, database, *args)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, f"{args} ended with {process.returncode}\n{out}\n{err}"
    return out


def held(store: Store) -> int:
    """Jobs that the projection holds."""
    try:
        with store.engine.connect() as sql:
            return int(sql.execute(select(func.count()).select_from(tables.jobs)).scalar_one())
    except OperationalError:
        return 0


def reached(store: Store, goal: int) -> bool:
    return held(store) >= goal


def eventful(fleet: Fleet) -> None:
    """Jobs that fail and are sent back, and many that wait."""
    fleet.start_ready("a")
    path = fleet.folder / "rows.txt"
    path.write_text("".join(f"{row}\n" for row in range(1, 31)))
    bad = [fleet.append("rows", {"path": str(path), "bad": 20, "rows": 30}).id for _ in range(BAD)]
    flaky = [fleet.append("flaky", {"items": 5, "at": 3, "times": 1}).id for _ in range(100)]
    fleet.flush()
    fleet.finish([*bad, *flaky], 120)
    eventually(lambda: len(fleet.dead_letters()) == BAD, 30, fleet.describe)
    (fleet.folder / "gate-fixed").touch()
    target = ["--app", f"{jobs_app.__file__}:app", "--bootstrap", fleet.bootstrap]
    redrive = [sys.executable, "-m", "processor", "dlq", "redrive", "--all-open", "--yes", "--reason", "fixed"]
    subprocess.run([*redrive, *target], cwd=fleet.folder, env=fleet.env(), check=True, capture_output=True)
    eventually(lambda: sum(life == 2 for _, life in fleet.ends()) == BAD, 90, fleet.describe)
    for number in range(MANY):
        fleet.append("strict", {"amount": number + 1})
    fleet.flush()


def test_killed_anywhere_it_neither_loses_nor_doubles(fleet: Fleet, tmp_path: Path) -> None:
    eventful(fleet)
    database, other = f"sqlite:///{tmp_path}/grown.sqlite", f"sqlite:///{tmp_path}/anew.sqlite"
    grown, anew = Store(database, fleet.namespace), Store(other, fleet.namespace)
    kills = []
    for goal in (1, MANY // 8, MANY // 4, MANY // 2):
        process = command(fleet, database, "run")
        eventually(partial(reached, grown, goal), 90, lambda: f"{held(grown)} held")
        process.kill()
        process.communicate()
        kills.append(held(grown))
    assert kills == sorted(kills), "what was written stays written"
    total = MANY + BAD + 100
    fleet.finish([row["id"] for row in Queries(grown).jobs(parse("", 0), limit=1).rows], 60)
    eventually(lambda: sum(len(ends) for ends in fleet.ends().values()) == total + BAD, 120, fleet.describe)
    run(fleet, database, "run", "--once")
    run(fleet, other, "rebuild")
    assert kills[0] < total, "it was killed in the middle"
    assert dump(grown) == dump(anew)
    queries = Queries(grown)
    assert queries.states() == {"succeeded": total}
    counts = {name: len(rows) for name, rows in dump(grown).items()}
    assert counts["jobs"] == counts["bodies"] == total
    assert counts["letters"] == BAD
    assert counts["audit"] == sum(1 for _ in admin.tail(fleet.broker, [f"{fleet.namespace}.audit"], from_start=True))
    assert {row["state"] for row in queries.letters().rows} == {"redriven"}
    shown = json.loads(run(fleet, database, "show", "--json"))
    assert (shown["behind"], shown["jobs"]) == (0, {"succeeded": total})
    assert len(json.loads(run(fleet, database, "find", "type:rows", "state:succeeded", "--json"))) == 50
    grown.close()
    anew.close()
