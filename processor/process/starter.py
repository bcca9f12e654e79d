"""What a worker tells whoever started it (`processor dev`), by a pipe: a line `ready`, and a line for each file of the
user's that it has loaded, as the module comes in. Modules that only a child process loads are not among them.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

READY = b"ready"
LOOK_EVERY = 0.5
"""Seconds between two looks at what is loaded."""
_OURS = str(Path(__file__).parents[1]) + os.sep
_INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Starter:
    """The other end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._told: set[str] = set()
        self._guard = threading.Lock()

    def tell_of_files(self) -> None:
        """From now on, tell which files are loaded; the user's module has been imported."""
        self._tell_new()
        threading.Thread(target=self._look, name="starter", daemon=True).start()

    def ready(self) -> None:
        """The worker serves."""
        self._write([READY])

    def _look(self) -> None:
        pause = threading.Event()
        while self._tell_new():
            pause.wait(LOOK_EVERY)

    def _tell_new(self) -> bool:
        found = set(loaded_files()) - self._told
        self._told |= found
        return self._write([os.fsencode(path) for path in sorted(found)])

    def _write(self, lines: list[bytes]) -> bool:
        """Whether somebody still listens."""
        try:
            with self._guard:
                for line in lines:
                    os.write(self._descriptor, line + b"\n")
        except OSError:
            return False
        return True


def loaded_files() -> Iterator[str]:
    """The source files of loaded modules that are neither Python's, nor installed, nor ours."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or not path.endswith(".py"):
            continue
        if not path.startswith((*_INSTALLED, _OURS)):
            yield os.path.realpath(path)
