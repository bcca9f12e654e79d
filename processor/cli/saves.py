"""Which source files were saved since somebody looked last."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

_NOT_SOURCES = {"__pycache__", "node_modules", "site-packages", "build", "dist"}

Stamps = dict[Path, int]
"""When each file was changed, nanoseconds."""


class Saves:
    """What is saved below a folder, and what else the worker has loaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = stamps(folder)

    def look(self, loaded: set[Path] | None) -> list[Path]:
        """Of the files that were saved since the last look those that are loaded; None: all of them."""
        now = stamps(self._folder) | _stamped(loaded or ())
        # One that is looked at for the first time because it was loaded has not been saved.
        news = [path for path in self._seen.keys() | now.keys() if self._seen.get(path) != now.get(path)]
        changed = [path for path in news if path in self._seen or self._folder in path.parents]
        self._seen = now
        return sorted(path for path in changed if loaded is None or path in loaded)


def stamps(folder: Path) -> Stamps:
    """When each source file below a folder was last changed."""
    return _stamped(_sources(folder))


def _stamped(paths: Iterable[Path]) -> Stamps:
    found: Stamps = {}
    for path in paths:
        with contextlib.suppress(OSError):  # an editor replaces files; and what cannot be looked at is not ours
            found[path] = path.stat().st_mtime_ns
    return found


def _sources(folder: Path) -> Iterator[Path]:
    try:
        inside = list(folder.iterdir())
    except OSError:  # deleted meanwhile, or not ours to look at
        return
    for path in inside:
        if path.name.startswith(".") or path.name in _NOT_SOURCES:
            continue
        if path.is_dir() and not path.is_symlink() and not (path / "pyvenv.cfg").exists():
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path
