"""The unit and the program of docs/services.md, as systemd and supervisord read them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from processor import App
from processor.admin import apply_topics, saved_progress
from processor.broker.kafka import KafkaBroker, KafkaConfig
from tests.conftest import Kafka
from tests.waiting import eventually

TOP = Path(__file__).parents[2]
PROGRAM = "/opt/shop/bin/processor"

JOBS = """
import os, time
from pathlib import Path
from processor import App, Context

app = App("{namespace}")
app.queue("default", partitions=1)
DONE = Path(__file__).with_name("done")

@app.job("walk")
def walk(ctx: Context) -> int:
    for item in ctx.each("items", lambda after: range((after or 0) + 1, 100_001), cursor=lambda i: i, every="0s"):
        with DONE.open("a") as file:
            file.write(f"{item} {os.getppid()}\\n")
        time.sleep(0.01)
    return item
"""


def block(chapter: str) -> str:
    """The first block of a chapter of the page, without its indentation."""
    page = (TOP / "docs" / "services.md").read_text("utf-8")
    [text] = re.findall(rf"^## {chapter}\n\n((?:    .*\n|\n)+)", page, re.MULTILINE)
    return textwrap.dedent(text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_amiss_in_the_unit(tmp_path: Path) -> None:
    unit = block("systemd")
    assert PROGRAM in unit
    path = tmp_path / "shop-worker.service"
    # The one thing that the check asks of this machine: that there is such a program.
    path.write_text(unit.replace(PROGRAM, sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if path.name in line] == []
    path.write_text(unit.replace(PROGRAM, sys.executable).replace("KillMode=", "KilMode="))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "KilMode" in done.stderr, "it would have said so"


class Supervisord:
    """A supervisord of this folder's own, with the program of the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.log = folder / "supervisord.log"
        here = f"{sys.executable} -m processor worker jobs.py:app"
        theirs = f"{PROGRAM} worker shop.jobs:app"
        program = block("supervisord")
        assert theirs in program
        program = program.replace(theirs, here).replace("directory=/opt/shop", f"directory={folder}")
        program = program.replace("user=shop\n", "").replace("--processes 4", "--processes 2")
        self._config = folder / "supervisord.conf"
        self._config.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={self.log}\npidfile={folder}/supervisord.pid\nuser=root\n"
            f"[unix_http_server]\nfile={folder}/socket\n"
            f"[supervisorctl]\nserverurl=unix://{folder}/socket\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
            f"{program}stderr_logfile={folder}/worker.log\n"
        )
        if os.getuid() != 0:
            self._config.write_text(self._config.read_text().replace("user=root\n", ""))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config)]
        with (self._folder / "supervisord.out").open("w") as out:
            self._process = subprocess.Popen(command, env=os.environ | settings, stdout=out, stderr=out)

    def control(self, *words: str) -> str:
        """What `supervisorctl` says."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self._config), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False).stdout

    def end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    def described(self) -> str:
        logs = (self._folder / name for name in ("supervisord.log", "supervisord.out", "worker.log"))
        return "\n".join(path.read_text("utf-8") for path in logs if path.exists())


@pytest.fixture
def app(kafka: Kafka, unique: str, tmp_path: Path) -> Iterator[App]:
    (tmp_path / "jobs.py").write_text(JOBS.replace("{namespace}", unique))
    app = App(unique, broker=KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)))
    app.queue("default", partitions=1)
    apply_topics(app.broker(), app.topic_plan())
    yield app
    app.close()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("supervisor") is None, reason="needs supervisor")
def test_supervisord_stops_and_restarts_a_worker_in_good_order(app: App, kafka: Kafka, tmp_path: Path) -> None:
    supervisord = Supervisord(tmp_path)
    supervisord.start(
        PYTHONPATH=str(TOP),
        PROCESSOR_KAFKA__BOOTSTRAP=kafka.bootstrap,
        PROCESSOR_WORKER__STATE_DIR=str(tmp_path / "state"),
    )

    def done() -> list[list[str]]:
        path = tmp_path / "done"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    try:
        handle = app.enqueue("walk", queue="default")
        eventually(lambda: len(done()) > 10, 60.0, supervisord.described)
        first = done()[-1][1]

        assert "shop-worker: stopped" in supervisord.control("restart", "shop-worker")
        eventually(lambda: done()[-1][1] != first, 60.0, supervisord.described)
        assert "shop-worker: stopped" in supervisord.control("stop", "shop-worker")

        assert supervisord.log.read_text().count("stopped: shop-worker (exit status 0)") == 2, supervisord.described()
        items = [int(item) for item, _ in done()]
        assert items == list(range(1, len(items) + 1)), "nothing is done twice"
        found = saved_progress(app.broker(), app.namespace, "default", handle.id)
        assert found is not None
        assert found.progress is not None
        assert found.progress.loops is not None
        assert found.progress.loops["items"].items == len(items)
    finally:
        supervisord.end()
