"""A cluster that cannot be reached: which address is named, and when whoever enqueues gives up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor import App, Context
from processor.errors import BrokerUnavailable, EnqueueUnconfirmed
from processor.wire.settings_sources import load_settings
from tests.proxy import FrameProxy


@pytest.fixture
def dead() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def app_at(bootstrap: str, **others: str) -> App:
    # Whoever waits for more than the time of the enqueue itself waits longer than a test may take.
    patient = {"client.enqueue_timeout": "3s", "client.close_timeout": "1h", "kafka.request_timeout": "250s"}
    settings = {**patient, "kafka.bootstrap": bootstrap, **{name.replace("__", "."): v for name, v in others.items()}}
    app = App("nowhere", settings=load_settings(settings, env={}))

    @app.job("noop")
    def noop(ctx: Context) -> None: ...

    return app


@pytest.mark.parametrize("delay", [None, "1m"])
def test_an_enqueue_without_a_broker_gives_up_and_names_the_address(dead: int, delay: str | None) -> None:
    app = app_at(f"127.0.0.1:{dead}")
    with pytest.raises((EnqueueUnconfirmed, BrokerUnavailable), match=rf"127\.0\.0\.1:{dead} .*: Connection refused"):
        app.enqueue("noop", delay=delay)
    # It was told: nobody waits for it again.
    app.close()


def test_an_enqueue_names_the_address_that_the_broker_advertises(proxy: FrameProxy, dead: int) -> None:
    proxy.advertise(dead)
    app = app_at(proxy.bootstrap)
    with pytest.raises(EnqueueUnconfirmed, match=rf"{proxy.bootstrap} names the broker 127\.0\.0\.1:{dead}, which"):
        app.enqueue("noop")
    app.close()


def test_commands_name_the_address_that_the_broker_advertises(proxy: FrameProxy, dead: int) -> None:
    """Doctor, `topics apply` and the worker's start all ask through the admin client."""
    proxy.advertise(dead)
    app = app_at(proxy.bootstrap, kafka__request_timeout="3s")
    with pytest.raises(BrokerUnavailable, match=rf"names the broker 127\.0\.0\.1:{dead}, which cannot") as away:
        app.broker().admin().topics(["nowhere.jobs.default"])
    assert f"advertised.listeners: 127.0.0.1:{dead}" in away.value.hint
    app.close()


@pytest.mark.parametrize(
    "command",
    [("doctor", "--app"), ("topics", "apply", "--app"), ("worker", "--no-supervise")],
    ids=lambda words: words[0],
)
def test_what_somebody_types_names_the_address_that_the_broker_advertises(
    proxy: FrameProxy, dead: int, tmp_path: Path, command: tuple[str, ...]
) -> None:
    proxy.advertise(dead)
    (tmp_path / "jobs.py").write_text(
        'from processor import App\napp = App("nowhere")\n\n@app.job("noop")\ndef noop(ctx): ...\n'
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PROCESSOR_KAFKA__BOOTSTRAP": proxy.bootstrap,
        "PROCESSOR_KAFKA__REQUEST_TIMEOUT": "2s",
        "PROCESSOR_WORKER__STATE_DIR": str(tmp_path / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "processor", *command, "jobs.py:app"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert f"names the broker 127.0.0.1:{dead}, which cannot be reached" in told
    assert f"advertised.listeners: 127.0.0.1:{dead}" in told
