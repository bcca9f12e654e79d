"""One process of the local Kafka: its folder, its settings, its life from the first format to the last signal.

A node counts as running exactly while somebody holds `node.lock` in its folder. The Java process inherits the locked
file from its starter, so the lock ends with that process, however it ends: a pid file alone would name a stranger after
a reboot.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from processor.errors import DevBrokerError

_POLL_S = 0.05
_LOCK_PATIENCE_S = 2.0
_LOG_LINES = 12
_API_VERSIONS_REQUEST = struct.pack(">ihhih", 12, 18, 0, 1, 2) + b"xx"

# The exec wrapper asks the kernel to kill the broker with its starter (PR_SET_PDEATHSIG = 1), then becomes Java. A
# preexec_fn would run Python code between fork and exec, which can deadlock in a process with threads.
_DIE_WITH_STARTER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the starter is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

# The kernel's signal comes when the *thread* that forked ends, so one thread that lives as long as we do forks all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dev-broker-spawner")

# Of background brokers: a Popen object that goes away before its process complains.
_left_running: list[subprocess.Popen[bytes]] = []

_LOG4J = """<Configuration status="ERROR">
  <Appenders>
    <RollingFile name="file" fileName="{folder}/server.log" filePattern="{folder}/server.%i.log">
      <PatternLayout pattern="[%d] %p %m (%c)%n"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
"""


class DevBrokerFailed(DevBrokerError):
    """The broker did not start or stopped answering; the message ends with the last lines of its log."""

    code = "dev_broker_failed"


class PortTaken(DevBrokerFailed):
    """Another program listens on a port that the broker needs."""

    code = "dev_broker_port"


@dataclass(frozen=True, slots=True, kw_only=True)
class JavaCommand:
    """How to run a Java class with Kafka on the class path."""

    java: Path
    classpath: Sequence[Path]
    heap_mb: int

    def argv(self, node_folder: Path, main_class: str, *arguments: str) -> list[str]:
        """The whole command line. SerialGC: on 2 cores as fast as G1 to start and less memory; the JIT stays whole."""
        return [
            str(self.java),
            f"-Xms{min(128, self.heap_mb)}m",
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={node_folder / 'log4j2.xml'}",
            "-cp",
            os.pathsep.join(str(path) for path in self.classpath),
            main_class,
            *arguments,
        ]


class DevNode:
    """One broker (and controller) process and its folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, whoever started it."""
        if not self.is_running():
            return None
        try:
            return int((self.folder / "pid").read_text("ascii"))
        except (FileNotFoundError, ValueError):
            return None  # between the fork and the line that writes it

    def is_running(self) -> bool:
        """Whether its process lives (a stopped or paused one that still exists counts)."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        path = self.folder / "node.lock"
        if not path.exists():
            return False
        with path.open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        if self._child is not None:
            # It let go of its lock, so it is about to be gone.
            self._child.wait()
            self._child = None
        return False

    def prepare(self, command: JavaCommand, cluster_id: str, properties: Mapping[str, str]) -> None:
        """Write its settings; format its storage if that was never done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "server.properties"
        settings.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), "utf-8")
        (self.folder / "log4j2.xml").write_text(_LOG4J.format(folder=self.folder), "utf-8")
        if (self.folder / "log" / "meta.properties").exists():
            return
        argv = command.argv(
            self.folder, "kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config", str(settings)
        )
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n".join(_telling(f"{done.stdout}\n{done.stderr}".splitlines()))
            raise DevBrokerFailed(
                f"Kafka could not format its storage:\n{said}", hint=f"its settings are in {settings}"
            )

    def spawn(self, command: JavaCommand, *, detached: bool) -> None:
        """Start the process. Not detached, it dies with this Python process, even by SIGKILL (on Linux)."""
        argv = command.argv(self.folder, "kafka.Kafka", str(self.folder / "server.properties"))
        if not detached and sys.platform == "linux":
            argv = [sys.executable, "-I", "-S", "-c", _DIE_WITH_STARTER, str(os.getpid()), *argv]
        with self._lock() as lock, (self.folder / "console.log").open("wb") as console:
            self._child = _spawner.submit(_popen, argv, lock.fileno(), console).result()
            (self.folder / "pid").write_text(str(self._child.pid), "ascii")
        if detached:
            _left_running.append(self._child)

    def wait_until_ready(self, deadline: float) -> None:
        """Return when it answers a request: a KRaft broker does so only once the controller has let it in."""
        while not self.answers():
            if not self.is_running():
                raise self._failure("stopped while it started")
            if time.monotonic() > deadline:
                raise self._failure("did not answer in time")
            time.sleep(_POLL_S)

    def answers(self) -> bool:
        """Whether it answers an ApiVersions request on its client listener."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(_API_VERSIONS_REQUEST)
                return len(connection.recv(4)) > 0
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal; one that has just ended needs none."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, number)

    def freeze(self, deadline: float) -> None:
        """Stop its process (SIGSTOP) and return when no thread runs any more: the signal alone returns before."""
        self.signal(signal.SIGSTOP)
        while self.is_running() and not self._is_frozen():
            if time.monotonic() > deadline:
                raise DevBrokerFailed(f"the broker on port {self.port} does not pause", hint="is it being debugged?")
            time.sleep(_POLL_S)

    def _is_frozen(self) -> bool:
        tasks = Path(f"/proc/{self.pid}/task")
        # Only Linux tells; elsewhere the signal has to do. The state follows the name, which is in parentheses.
        states = [(task / "stat").read_text().rpartition(") ")[2][0] for task in tasks.glob("*")]
        return all(state in "Tt" for state in states)

    def wait_until_gone(self, deadline: float) -> bool:
        """Wait for its end; False if it still lives at the deadline."""
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _lock(self) -> IO[str]:
        handle = (self.folder / "node.lock").open("a+")
        patience = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Somebody who only asks whether it runs holds the lock for a moment.
                if time.monotonic() > patience:
                    handle.close()
                    raise DevBrokerFailed(
                        f"a broker already runs on {self.folder} (pid {self.pid})",
                        hint="stop it, or choose another data folder",
                    ) from None
                time.sleep(_POLL_S)
            else:
                return handle

    def _failure(self, what: str) -> DevBrokerFailed:
        lines = self._last_lines()
        text = f"the broker on port {self.port} {what}; its last log lines:\n" + "\n".join(lines)
        if any("Address already in use" in line for line in lines):
            return PortTaken(text, hint="choose another port, or stop the program that listens there")
        return DevBrokerFailed(text, hint=f"the whole log is in {self.folder / 'server.log'}")

    def _last_lines(self) -> list[str]:
        lines: list[str] = []
        for name in ("console.log", "server.log"):
            path = self.folder / name
            if path.exists():
                lines += path.read_text("utf-8", "replace").splitlines()[-200:]
        return _telling(lines)


def _telling(lines: Sequence[str]) -> list[str]:
    """What went wrong, without the frames of its stack; the log file has those."""
    telling = [line for line in lines if not line.startswith(("\tat ", "WARNING:")) and line.strip()]
    alarming = [line for line in telling if " ERROR " in line or "xception" in line or " FATAL " in line]
    return (alarming or telling)[-_LOG_LINES:]


def _popen(argv: Sequence[str], lock: int, console: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console, pass_fds=[lock], start_new_session=True
    )
