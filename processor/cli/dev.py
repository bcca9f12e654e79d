"""`processor dev`: a local Kafka, the topics, a worker that restarts when a file is saved, and the dashboard if it is
installed; one Ctrl-C stops all.

The worker is a process of its own, always in the same slot: a restart takes its numbers again at once, and its running
jobs go on where they were. It tells which files it has loaded: a save of one of them restarts it, no other does. While
it does not run, because a module does not import, any save below the folder of the app tries again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from processor.cli.broker import DEFAULT_PORT, FETCHED_MB, default_data_dir
from processor.cli.output import Output
from processor.cli.saves import Saves
from processor.errors import DefinitionError
from processor.process.starter import READY

if TYPE_CHECKING:
    from processor.broker.dev import DevBroker

SLOT = "dev"
_LOOK_EVERY = 0.3
SAY_EVERY = 3.0
"""Seconds after which a start that goes on is told of again."""
_STOP_SECONDS = 15.0
_BOOTSTRAP = "PROCESSOR_KAFKA__BOOTSTRAP"
_DASHBOARD = ("argon2", "fastapi", "jinja2", "sqlalchemy", "uvicorn")
"""What the dashboard needs: without them there is none."""
_FOUND_ANYWAY = {f"localhost:{DEFAULT_PORT}", f"127.0.0.1:{DEFAULT_PORT}"}
"""Where clients look unless they are told."""


@click.command()
@click.argument("app_path", metavar="MODULE:APP", envvar="PROCESSOR_APP")
@click.option("--bootstrap", metavar="HOST:PORT", help="Use this Kafka instead of a local one of our own.")
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    show_default="that of `processor broker`",
    help="Folder of the local Kafka; kept.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), help=f"Port of the local Kafka, if its folder is new. [{DEFAULT_PORT}]"
)
def dev(app_path: str, bootstrap: str | None, data_dir: Path, debug: bool, port: int | None) -> None:
    """Broker, topics and worker in one; the worker restarts when a file beside the module is saved."""
    with Output(debug=debug).errors(), contextlib.ExitStack() as stack:
        signal.signal(signal.SIGTERM, _interrupt)
        saves = Saves(source_folder(app_path))
        if bootstrap is None:
            bootstrap = stack.enter_context(_local_kafka(data_dir, port))
        _say(f"Kafka at {bootstrap}")
        _say("the worker restarts when a file that it has loaded is saved; Ctrl-C stops all")
        _say("in another terminal:")
        if bootstrap not in _FOUND_ANYWAY:
            _say(f"  export {_BOOTSTRAP}={bootstrap}")
        _say(f"  processor job list --app {app_path}")
        _say(f"  processor topics describe --app {app_path}")
        worker = DevWorker(app_path, bootstrap)
        stack.callback(worker.stop)
        dashboard = DevDashboard(app_path, bootstrap) if has_dashboard() else None
        if dashboard is None:
            _say("for the dashboard: pip install 'kafka-job-processor[dashboard]'")
        else:
            stack.callback(dashboard.stop)
        with contextlib.suppress(KeyboardInterrupt):
            run(worker, saves, dashboard)
        _say("stopping; Ctrl-C again stops at once")


class DevWorker:
    """The worker process of one app, in one slot."""

    def __init__(self, app_path: str, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        # Handlers and the app's own settings look there too, and only in these processes.
        self._environment = {**os.environ, _BOOTSTRAP: bootstrap}
        self._app_path = app_path
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        """What the worker tells (`processor.process.starter`)."""
        self._told = b""
        self._loaded: set[Path] = set()
        self._is_new = False

    @property
    def program(self) -> str:
        """What runs the module as a program, which may enqueue jobs."""
        name = self._app_path.partition(":")[0]
        return f"python {name}" if name.endswith(".py") else f"python -m {name}"

    def start(self) -> int:
        """Bring the topics to the plan, then start; the exit code of what did not work, else 0. A module that does not
        import leaves the worker stopped.
        """
        from processor.demo.fleet import tied_command

        apply = tied_command(["topics", "apply", "--app", self._app_path])
        with patiently("the topics are made"):
            code = subprocess.run(apply, env=self._environment, stdout=subprocess.DEVNULL, check=False).returncode
        if code:
            return code
        arguments = ["worker", self._app_path, "--bootstrap", self._bootstrap, "--no-supervise", "--log-jobs"]
        self._listen_to(None)
        ready, tells = os.pipe()
        os.set_blocking(ready, False)
        try:
            # A session of its own: Ctrl-C is ours, and a second signal to the worker would end it at once.
            self._process = subprocess.Popen(
                tied_command([*arguments, "--instance", SLOT, "--ready-fd", str(tells)]),
                env=self._environment,
                start_new_session=True,
                pass_fds=[tells],
            )
        finally:
            os.close(tells)
        self._listen_to(ready)
        return 0

    def is_ready(self) -> bool:
        """Whether it has become ready since this was last asked."""
        became_ready = False
        while self._pipe is not None:
            try:
                told = os.read(self._pipe, 65_536)
            except BlockingIOError:
                break
            *lines, self._told = (self._told + told).split(b"\n")
            became_ready = became_ready or READY in lines
            files = {Path(os.fsdecode(line)) for line in lines if line != READY}
            if files:
                self._loaded = files | (set() if self._is_new else self._loaded)
                self._is_new = False
            if not told:
                self._listen_to(None)
        return became_ready

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def loaded(self) -> set[Path] | None:
        """The files that it has loaded; while it starts, those of the one before. None: it does not run."""
        return None if self._process is None or not self._loaded else self._loaded

    def _listen_to(self, descriptor: int | None) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
        self._pipe, self._told, self._is_new = descriptor, b"", True

    def ended(self) -> int | None:
        """The exit code of a worker that ended by itself; None if it runs or was never started."""
        return None if self._process is None else self._process.poll()

    def restart(self) -> None:
        """End it without leaving the group, and start the same slot again."""
        self._end(signal.SIGHUP)
        if self.start():
            _say("the app cannot be started as it is; the next save tries again")

    def forget(self) -> None:
        """It has ended, and that was told."""
        self._process = None

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()


class DevDashboard:
    """The dashboard of one app, for everybody on this machine."""

    def __init__(self, app_path: str, bootstrap: str) -> None:
        self._environment = {**os.environ, _BOOTSTRAP: bootstrap}
        self._app_path = app_path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or anew with the code as it is now; it says itself where it is."""
        from processor.demo.fleet import tied_command

        self.stop()
        # Its address is the one thing that it prints: on stderr, among what is told here.
        command = tied_command(["dashboard", "--app", self._app_path, "--no-login"])
        self._process = subprocess.Popen(command, env=self._environment, stdout=sys.stderr, start_new_session=True)

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()


def has_dashboard() -> bool:
    """Whether what the dashboard needs is installed."""
    return all(importlib.util.find_spec(name) is not None for name in _DASHBOARD)


def run(worker: DevWorker, saves: Saves, dashboard: DevDashboard | None = None) -> None:
    """Restart the worker, and the dashboard, at every save, until interrupted."""
    code: int | None = worker.start()
    if code:
        _say("that keeps the app from starting: mend it, and start again")
        sys.exit(code)
    if dashboard is not None:
        _say("the dashboard, for this machine alone, tells its address when it is there")
        dashboard.start()
    starts = Patience("the worker starts")
    while True:
        time.sleep(_LOOK_EVERY)
        if worker.is_ready():
            starts.over()
            _say(f"ready: now run `{worker.program}` in another terminal")
        if not worker.runs:
            starts.over()  # its module does not load, or it has ended: that was told
        starts.look()
        code = worker.ended()
        if code is not None:
            _say(f"the worker ended with exit code {code}; the next save starts it again")
            worker.forget()
            starts.over()
        changed = saves.look(worker.loaded())
        if changed:
            _say(f"{', '.join(path.name for path in changed[:3])} saved: the worker restarts")
            worker.restart()
            starts = Patience("the worker starts")
            if dashboard is not None:
                dashboard.start()


def source_folder(app_path: str) -> Path:
    """The folder whose files make up the app: that of the file, of the module, or of the outermost package.

    Raises:
        DefinitionError: there is no such file or module.
    """
    name = app_path.partition(":")[0]
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise DefinitionError(f"no file {path.resolve()}", hint="give MODULE:APP, for example shop.jobs:app")
        return path.resolve().parent
    sys.path.insert(0, str(Path.cwd()))
    # Only the outermost package is looked for: finding an inner one would import it.
    spec = importlib.util.find_spec(name.partition(".")[0])
    if spec is None or spec.origin is None:
        raise DefinitionError(f"no module {name!r}", hint="start in the folder that holds it, or install it")
    return Path(spec.origin).resolve().parent


@contextlib.contextmanager
def _local_kafka(data_dir: Path, port: int | None) -> Iterator[str]:
    """The local Kafka of `processor broker`: one that runs already is used and left running.

    Raises:
        DefinitionError: that of the folder listens on another port.
    """
    from processor.broker.dev import DevBroker, DevBrokerConfig

    def fetched(done: int, total: int, _name: str) -> None:
        if done in (0, total):
            first = f"Kafka is fetched: {total} files, up to {FETCHED_MB} MB, this once"
            patience.goes_on("Kafka is here, and starts" if done else first, at_once=True)
        else:
            patience.goes_on(f"Kafka is fetched, {done} of {total} files")

    known = (data_dir / "cluster.json").exists()
    kafka: DevBroker = (
        DevBroker.at(data_dir)
        if known
        else DevBroker(DevBrokerConfig(data_dir=data_dir, port=port or DEFAULT_PORT), progress=fetched)
    )
    if known and port is not None and not kafka.bootstrap.endswith(f":{port}"):
        raise DefinitionError(
            f"the Kafka of {data_dir} listens on {kafka.bootstrap}", hint="leave --port, or give another folder: --data"
        )
    if kafka.is_running():
        yield kafka.bootstrap
        return
    try:
        with patiently("a local Kafka starts") as patience:
            kafka.start()
        yield kafka.bootstrap
    finally:
        kafka.stop()


class Patience:
    """Says again and again that something is still under way, so that nobody sits before a silent screen."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._began = self._said = time.monotonic()
        self._is_over = False
        _say(text)

    def look(self) -> None:
        """Say so, if it is time."""
        now = time.monotonic()
        if not self._is_over and now - self._said >= SAY_EVERY:
            self._said = now
            _say(f"{self._text}: {now - self._began:.0f} s")

    def goes_on(self, text: str, *, at_once: bool = False) -> None:
        """What is under way by now; said at once, or when it is time."""
        self._text = text
        if at_once:
            self._said = time.monotonic()
            _say(text)

    def over(self) -> None:
        """It is done."""
        self._is_over = True


@contextlib.contextmanager
def patiently(text: str) -> Iterator[Patience]:
    """What is done here may take a while, and this thread waits for it."""
    patience, over = Patience(text), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY):
            patience.look()

    looker = threading.Thread(target=look, name="patience", daemon=True)
    looker.start()
    try:
        yield patience
    finally:
        over.set()
        looker.join()


def _say(text: str) -> None:
    click.secho(f"dev: {text}", err=True, fg="cyan")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM stops like Ctrl-C."""
    raise KeyboardInterrupt
