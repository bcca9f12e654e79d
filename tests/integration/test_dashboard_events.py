"""Events of a running job over HTTP, from a real dashboard, and what becomes of the stream when that stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.integration import jobs_app
from tests.integration.fleet import Fleet

pytestmark = pytest.mark.timeout(240)


def read(lines: Iterator[str]) -> tuple[str, dict[str, object]]:
    """The next event: its name and data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: "):
            return name, json.loads(line.removeprefix("data: "))
    return "", {}


def test_a_running_job_tells_its_progress_and_a_dashboard_that_stops_ends_the_stream(fleet: Fleet) -> None:
    fleet.start_ready("a")
    command = [sys.executable, "-m", "processor", "dashboard", "--app", f"{jobs_app.__file__}:app", "--no-login"]
    where = [
        "--bootstrap",
        fleet.bootstrap,
        "--port",
        "0",
        "--database",
        f"sqlite:///{fleet.folder}/p.sqlite",
        "--json",
    ]
    with subprocess.Popen(
        [*command, *where], cwd=fleet.folder, env=fleet.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        job = fleet.append("walk", {"items": 100_000, "pause": 0.05})
        fleet.flush()
        with httpx.stream("GET", f"{url}api/v1/jobs/{job.id}/events", timeout=60) as answer:
            lines = answer.iter_lines()
            seen: list[float] = []
            while len(set(seen)) < 2:
                name, data = read(lines)
                assert name == "status"
                if data["done"] is not None:
                    assert (data["state"], data["total"]) == ("running", 100_000)
                    seen.append(float(str(data["done"])))
            assert seen == sorted(seen)
            process.terminate()
            # The stream ends by itself, and nothing is left to be cut off.
            for _ in lines:
                pass
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -15), errors
    assert "Traceback" not in errors
    assert "cancel" not in errors.lower(), errors
