"""However a program ends, what it enqueued without waiting is sent, or named on stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.admin.reading import partitions_of, read_to_end
from processor.app import App
from processor.wire.codec import decode_job
from tests.conftest import Kafka
from tests.integration import exits_app
from tests.proxy import FrameProxy

COUNT = 20
HASTY = {"PROCESSOR_KAFKA__REQUEST_TIMEOUT": "1s", "PROCESSOR_CLIENT__CLOSE_TIMEOUT": "2s"}


@pytest.fixture
def app(kafka: Kafka, unique: str) -> Iterator[App]:
    app = exits_app.build(kafka.bootstrap, unique)
    needed = (f"{unique}.jobs.default", f"{unique}.status")
    app.broker().admin().create_topics([spec for spec in app.topic_plan() if spec.name in needed])
    yield app
    app.close()


Done = subprocess.CompletedProcess[str]


def run(app: App, bootstrap: str, how: str, folder: Path, **env: str) -> tuple[Done, list[str]]:
    """Run a program to its end; how it ended, and the ids of the jobs whose enqueue had returned."""
    notes = folder / "ids"
    command = [
        sys.executable,
        "-m",
        "tests.integration.exits_app",
        bootstrap,
        app.namespace,
        how,
        str(COUNT),
        str(notes),
    ]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=100)
    return done, notes.read_text("utf-8").split()


def arrived(app: App) -> set[str]:
    places = partitions_of(app.broker(), [f"{app.namespace}.jobs.default"])
    return {decode_job(record.value() or b"").id for record in read_to_end(app.broker(), places)}


@pytest.mark.parametrize("how", [how for how in exits_app.WAYS if how not in ("told", "interrupted")])
def test_what_was_enqueued_is_sent_at_exit(app: App, kafka: Kafka, how: str, tmp_path: Path) -> None:
    done, noted = run(app, kafka.bootstrap, how, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "not confirmed" not in done.stderr
    assert len(noted) >= COUNT
    assert set(noted) - arrived(app) == set()


@pytest.mark.parametrize("how", ["plain", "multiprocessing-fork", "hook-before-ours", "interrupted"])
def test_what_cannot_be_sent_is_named_at_exit(app: App, kafka: Kafka, how: str, tmp_path: Path) -> None:
    host, port = kafka.bootstrap.split(",")[0].rsplit(":", 1)
    with FrameProxy((host, int(port))) as proxy:
        proxy.refusing = True
        done, noted = run(app, proxy.bootstrap, how, tmp_path, **HASTY)

    assert f"enqueued jobs of {app.namespace} were not confirmed" in done.stderr
    assert [job_id for job_id in noted if job_id not in done.stderr] == []


def test_what_is_left_when_somebody_interrupts_the_exit_is_named(app: App, kafka: Kafka, tmp_path: Path) -> None:
    host, port = kafka.bootstrap.split(",")[0].rsplit(":", 1)
    env = os.environ | HASTY | {"PROCESSOR_CLIENT__CLOSE_TIMEOUT": "100s"}
    with FrameProxy((host, int(port))) as proxy:
        proxy.refusing = True
        command = [sys.executable, "-m", "tests.integration.exits_app", proxy.bootstrap, app.namespace, "told", "20"]
        process = subprocess.Popen(
            [*command, str(tmp_path / "ids")], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ending\n"
        # The first may come before it is our turn.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
        _, told = process.communicate()

    assert "processor: interrupted\n" in told
    noted = (tmp_path / "ids").read_text("utf-8").split()
    assert len(noted) == 20
    assert [job_id for job_id in noted if job_id not in told] == []


WAITS = """
import asyncio, sys
from processor import App, Context
from processor.wire.settings_sources import load_settings

app = App(sys.argv[2], settings=load_settings({"kafka.bootstrap": sys.argv[1]}, env={}))
app.queue("default", partitions=1)

@app.job("noop")
def noop(ctx: Context) -> None: ...

async def main():
    handles = [await noop.aenqueue() for _ in range(6)]
    waits = [asyncio.ensure_future(handle.aresult()) for handle in handles]
    done, _ = await asyncio.wait(waits, timeout=0.5)
    assert not done
    await noop.aenqueue()
    waits[0].cancel()
    await asyncio.wait(waits[:1])
    print("over", flush=True)

asyncio.run(main())
"""


def test_a_program_that_gives_up_waiting_ends(app: App, kafka: Kafka) -> None:
    """Nobody runs these jobs: the waits would go on for ever."""
    command = [sys.executable, "-c", WAITS, kafka.bootstrap, app.namespace]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
