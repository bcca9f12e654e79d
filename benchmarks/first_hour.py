"""`python -m benchmarks.first_hour`: from nothing to a first job that is done, as somebody at a terminal sees it.

A venv, the wheel with the extras of the README, the README's `jobs.py`, `processor dev` until it is ready, `python
jobs.py`: each command runs on a terminal of its own (a pty), with an empty home, empty caches and no Java on the PATH.
What it says is stamped as it appears. Told in the end: how long each took, its longest silence and what was said before
it, and each line that is yellow or a warning. Exit code 1 if a command fails or a bar does not hold. It downloads what
a new user downloads, so the figures are also those of the network.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHOLE_S, SILENT_S = 60.0, 5.0
"""The bars."""
PATIENCE = 600.0
"""Seconds after which a command that goes on is given up."""
READY = "ready: now run `python jobs.py`"
_PORT = 9092
_KEPT = re.compile(r"(?i)(https?|no|all)_proxy|.*(_CERT|_CERT_FILE|_CERT_DIR|_CA_BUNDLE)|PIP_(INDEX_URL|TRUSTED_HOST)")
"""How this machine gets at the network, which is no part of being new here."""
_YELLOW = re.compile(r"\x1b\[(?:\d+;)*(?:33|93|38;5;(?:3|11))m")
_ALARMING = re.compile(r"(?i)\b(warn(ing)?|deprecat\w*|error|traceback)\b")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


@dataclass
class Terminal:
    """A command on a pty of its own, and what it said when."""

    name: str
    process: subprocess.Popen[bytes]
    screen: int
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    pieces: list[tuple[float, str]] = field(default_factory=list)

    def read(self) -> None:
        """Take what appears, until the command has gone."""
        while True:
            with contextlib.suppress(OSError):
                if not select.select([self.screen], [], [], 0.05)[0]:
                    continue
                piece = os.read(self.screen, 65_536)
                if piece:
                    self.pieces.append((time.monotonic(), piece.decode("utf-8", "replace")))
                    continue
            self.ended = time.monotonic()
            return

    @property
    def text(self) -> str:
        return "".join(piece for _, piece in self.pieces)

    def lines(self) -> list[str]:
        """What stands on the screen in the end; of lines that were written over, the last state."""
        return [line.rstrip("\r").rsplit("\r", 1)[-1] for line in self.text.split("\n")]

    def silence(self, until: float) -> tuple[float, str]:
        """Its longest silence up to then, and the last words before it."""
        moments = [(self.began, "")] + [piece for piece in self.pieces if piece[0] <= until]
        ends = [at for at, _ in moments[1:]] + [until]
        gaps = [(end - at, words) for (at, words), end in zip(moments, ends, strict=True)]
        seconds, words = max(gaps)
        return seconds, _CONTROL.sub("", words).replace("\r", "\n").strip().rsplit("\n", 1)[-1][:90]

    def alarms(self) -> list[str]:
        """Its yellow lines, and those that tell of something wrong."""
        found = (line for line in self.lines() if _YELLOW.search(line) or _ALARMING.search(line))
        return [_CONTROL.sub("", line) for line in found]


@dataclass(frozen=True)
class Newcomer:
    """Somebody's machine: an empty folder, an empty home."""

    folder: Path
    environment: dict[str, str]

    @contextlib.contextmanager
    def types(self, *command: str, **others: str) -> Iterator[Terminal]:
        """Run a command on a terminal; at the end of the block it is interrupted, if it goes on."""
        screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        print(f"$ {' '.join(Path(word).name if '/' in word else word for word in command)}", flush=True)
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | others,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=_take_terminal,  # no threads but ours, which only reads
        )
        os.close(theirs)
        terminal = Terminal(" ".join(command), process, screen)
        reader = threading.Thread(target=terminal.read)
        reader.start()
        try:
            yield terminal
        finally:
            if process.poll() is None:
                os.write(screen, b"\x03")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join()
            os.close(screen)

    def runs(self, *command: str, **others: str) -> Terminal:
        """Run a command to its end."""
        with self.types(*command, **others) as terminal:
            terminal.process.wait(PATIENCE)
        if terminal.process.returncode:
            sys.exit(f"{terminal.text}\n{terminal.name} ended with exit code {terminal.process.returncode}")
        return terminal


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def main() -> int:
    """Go from nothing to the result of the first job; print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_hour", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the Python of the new user (default: this one)")
    parser.add_argument("--transcript", type=Path, help="write all that was said, with its times, to this file")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folder = Path(name)
        wheel = _wheel(folder / "dist")
        newcomer = _newcomer(folder)
        began = time.monotonic()
        seen = _first_job(newcomer, wanted.python, wheel)
        whole = seen[-1][1] - began
    if wanted.transcript is not None:
        wanted.transcript.write_text(_transcript(began, [terminal for terminal, _ in seen]), "utf-8")
    return _verdict(whole, seen)


def _first_job(newcomer: Newcomer, python: str, wheel: Path) -> Sequence[tuple[Terminal, float]]:
    """What the README says, command by command; each with the moment when it had done what it is for."""
    seen = []
    for command in (
        (python, "-m", "venv", "venv"),
        (f"{newcomer.folder}/venv/bin/pip", "install", f"{wheel}[broker,cli]"),
    ):
        terminal = newcomer.runs(*command)
        seen.append((terminal, terminal.ended or 0.0))
    readme = (ROOT / "README.md").read_text("utf-8")
    (newcomer.folder / "jobs.py").write_text(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0])
    port = _free_port()
    others = [] if port == _PORT else ["--port", str(port)]
    binaries = newcomer.folder / "venv" / "bin"
    with newcomer.types(str(binaries / "processor"), "dev", "jobs.py:app", *others) as dev:
        while READY not in dev.text:
            if dev.ended is not None or time.monotonic() > dev.began + PATIENCE:
                sys.exit(f"{dev.text}\n`processor dev` did not become ready")
            time.sleep(0.01)
        seen.append((dev, time.monotonic()))
        where = {} if port == _PORT else {"PROCESSOR_KAFKA__BOOTSTRAP": f"127.0.0.1:{port}"}
        program = newcomer.runs(str(binaries / "python"), "jobs.py", **where)
        seen.append((program, program.ended or 0.0))
    if program.text.strip() != "1500":
        sys.exit(f"the first job's result is not that of the README:\n{program.text}")
    return seen


def _wheel(folder: Path) -> Path:
    """What a user gets from the index, made here."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    [wheel] = folder.glob("*.whl")
    return wheel


def _newcomer(folder: Path) -> Newcomer:
    (folder / "shop").mkdir()
    (folder / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    own = {
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home" / ".cache"),
        "PATH": str(folder / "shop" / "venv" / "bin"),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    return Newcomer(folder / "shop", kept | own)


def _free_port() -> int:
    """Kafka's own, or another one where something listens there."""
    for port in (_PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise RuntimeError("no free port")


def _transcript(began: float, terminals: Sequence[Terminal]) -> str:
    """All lines with the seconds since the beginning."""
    said = []
    for terminal in terminals:
        said.append(f"{terminal.began - began:7.2f} $ {terminal.name}")
        for at, words in terminal.pieces:
            shown = _CONTROL.sub("", words).replace("\r", "\n").split("\n")
            said += [f"{at - began:7.2f}   {line}" for line in shown if line.strip()]
    return "\n".join(said) + "\n"


def _verdict(whole: float, seen: Sequence[tuple[Terminal, float]]) -> int:
    holds = whole <= WHOLE_S
    for terminal, until in seen:
        silent, before = terminal.silence(until)
        alarms = terminal.alarms()
        holds = holds and silent <= SILENT_S and not alarms
        command = " ".join(Path(word).name if "/" in word else word for word in terminal.name.split())
        print(f"{until - terminal.began:6.1f} s  {command}")
        print(f"          longest silence {silent:.1f} s, after: {before or '(the command)'}")
        for line in alarms:
            print(f"          alarming: {line}")
    bars = f"at most {WHOLE_S:.0f} s, no silence over {SILENT_S:.0f} s"
    print(f"{whole:6.1f} s  in all ({bars}): {'holds' if holds else 'does not hold'}")
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
