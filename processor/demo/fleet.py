"""The worker processes: one supervisor with two workers, started by the same command that a user types.

They are told everything by a `processor.toml` of their own folder. Settings in the environment are kept from them: a
bootstrap exported for production must not be able to send a demonstration there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from processor.demo.jobs import MODULE
from processor.errors import ProcessorError
from processor.wire.settings_sources import PREFIX

INSTANCE = "demo"
_STOP_SECONDS = 20.0


class FleetFailed(ProcessorError):
    """The workers did not start, or ended by themselves."""

    code = "demo_workers"


class Fleet:
    """Two workers under one supervisor, alive from `start` to `stop`."""

    def __init__(self, folder: Path, *, workers: int = 2) -> None:
        self._folder = folder
        self._workers = workers
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._frozen: set[int] = set()
        self.log_path = folder / "workers.log"

    def start(self) -> None:
        """Start them. They join the group by themselves, some seconds later."""
        # A session of its own: Ctrl-C in the terminal is the demo's to handle, it stops the workers in good order.
        with self.log_path.open("ab") as output:
            self._supervisor = subprocess.Popen(
                tied_command(self.command()[1:]),
                cwd=self._folder,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def command(self) -> list[str]:
        """What a user would type in the folder."""
        return ["processor", "worker", f"{MODULE}:app", "--processes", str(self._workers), "--instance", INSTANCE]

    def check(self) -> None:
        """Raise `FleetFailed` if the supervisor has ended."""
        if self._supervisor is not None and self._supervisor.poll() is not None:
            raise FleetFailed(
                f"the workers ended with exit code {self._supervisor.returncode}",
                hint=f"their last words: {self._last_words()}",
            )

    def kill(self, process: int) -> None:
        """End a worker as a crash would."""
        os.kill(process, signal.SIGKILL)

    def freeze(self, process: int) -> None:
        """Stop a worker in the middle of whatever it does."""
        self._frozen.add(process)
        os.kill(process, signal.SIGSTOP)

    def wake(self, process: int) -> None:
        """Let a frozen worker go on."""
        self._frozen.discard(process)
        os.kill(process, signal.SIGCONT)

    def stop(self) -> None:
        """Wake whom we froze, stop all in good order; who does not end in time is killed."""
        for process in list(self._frozen):
            with contextlib.suppress(ProcessLookupError):
                self.wake(process)
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        with contextlib.suppress(ProcessLookupError):
            supervisor.terminate()
        try:
            supervisor.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The whole group, also when the supervisor is gone already: nobody is left behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(supervisor.pid, signal.SIGKILL)
            supervisor.wait()

    def _last_words(self) -> str:
        lines = self.log_path.read_text("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-3:]) if lines else "none"


def tied_command(arguments: Sequence[str]) -> list[str]:
    """`processor ARGUMENTS`, as a process that ends with the thread of ours that starts it, however that ends."""
    return [sys.executable, "-c", _LAUNCHER, str(os.getpid()), *arguments]


def clean_environment() -> dict[str, str]:
    """The environment without settings of the package."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def wait_until_frozen(seconds: float = 0.2) -> None:
    """SIGSTOP acts a moment after it was sent, and nothing portable tells when."""
    time.sleep(seconds)


# Tied to its starter before it does anything else.
_LAUNCHER = """
import sys
from processor.executors.parent_death import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
from processor.cli.main import main
main()
"""
