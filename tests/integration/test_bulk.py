"""A bulk action whose dashboard is killed half-way: another one goes on, and each job is done once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import httpx
import pytest

from processor import admin
from processor.states import State
from processor.wire.codec import decode_audit
from tests.integration import jobs_app
from tests.integration.fleet import Fleet
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)
FAILED, UNPAID = 500, 57
UNPAID_NOW = "error:ConnectionError state:dead"


class Dashboard:
    """A process of its own, with a projection of its own."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        target = ["--app", f"{jobs_app.__file__}:app", "--bootstrap", fleet.bootstrap, "--json"]
        where = ["--no-login", "--port", "0", "--database", f"sqlite:///{fleet.folder}/{name}.sqlite"]
        env = {**fleet.env(), "PROCESSOR_DASHBOARD__BULK_PAGE": "2"}
        with (fleet.folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "processor", "dashboard", *target, *where],
                cwd=fleet.folder, env=env, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        self.client = httpx.Client(base_url=json.loads(self.process.stdout.readline())["url"], timeout=60)

    def get(self, path: str, **params: Any) -> Any:
        """An answer of the API; None: it does not know that (yet)."""
        answer = self.client.get(f"/api/v1/{path}", params=params)
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    def count(self, q: str) -> int:
        """Jobs of a filter."""
        return int(self.get("jobs", q=q, count=True)["count"])

    def post(self, path: str, body: object) -> Any:
        """Have something done."""
        answer = self.client.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def close(self, *, kill: bool = False) -> None:
        """End it."""
        (self.process.kill if kill else self.process.terminate)()
        self.process.communicate(timeout=60)
        self.client.close()


def redriven(fleet: Fleet, bulk: str) -> Counter[str]:
    """Audit lines of the bulk, by job."""
    records = admin.tail(fleet.broker, [f"{fleet.namespace}.audit"], from_start=True)
    found = [decode_audit(record.value() or b"") for record in records]
    assert {audit.reason for audit in found} <= {"the bank is back"}, found
    return Counter(audit.job_id for audit in found if audit.bulk == bulk and audit.action == "redrive")


def test_a_bulk_goes_on_in_another_dashboard_when_its_own_is_killed(fleet: Fleet) -> None:
    fleet.start_ready("a")
    others = [fleet.append("order", {"order_id": n, "amount": -1}).id for n in range(FAILED - UNPAID)]
    unpaid = [fleet.append("order", {"order_id": 3000 + n, "amount": 0}).id for n in range(UNPAID)]
    fleet.flush()
    fleet.finish([*others, *unpaid], 120)
    first = Dashboard(fleet, "first")
    try:
        eventually(lambda: first.count("state:dead") == FAILED, 60, "all projected")
        eventually(lambda: first.count(UNPAID_NOW) == UNPAID, 60, "with their errors")
        plan = first.post("bulk", {"action": "redrive", "q": UNPAID_NOW, "dry_run": True})
        assert plan["jobs"] == UNPAID
        late = [fleet.append("order", {"order_id": 5000 + n, "amount": 0}).id for n in range(5)]
        fleet.flush()
        fleet.finish(late, 60)
        (fleet.folder / "gate-bank").touch()
        wish = {"plan": plan["plan"], "reason": "the bank is back"}
        bulk = first.post("bulk", wish)["id"]
        eventually(lambda: redriven(fleet, bulk).total() >= UNPAID // 4, 60, "a quarter is done")
    finally:
        first.close(kill=True)
    half = redriven(fleet, bulk).total()
    assert UNPAID // 4 <= half < UNPAID, "killed half-way"
    second = Dashboard(fleet, "second")
    try:
        eventually(lambda: second.get(f"bulk/{bulk}"), 60, "the bulk is projected")
        assert second.post("bulk", wish)["id"] == bulk
        eventually(lambda: second.get(f"bulk/{bulk}")["state"] == State.SUCCEEDED, 90, "it goes on")
        eventually(lambda: second.get(f"bulk/{bulk}")["done"] == UNPAID, 60, "all of it is projected")
        standing = second.get(f"bulk/{bulk}")
    finally:
        second.close()
    assert standing["tally"] == {"done": UNPAID, "skipped": 0, "refused": 0, "changed": 0, "examples": []}
    assert redriven(fleet, bulk) == Counter(unpaid), "each once"
    eventually(lambda: {job for job, life in fleet.ends() if life == 2} == set(unpaid), 60, fleet.describe)
    assert {job for job, life in fleet.ends() if life > 2} == {bulk}, "a key's lives are counted by the clock"
