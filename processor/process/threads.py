"""Threads that the user's module starts while it is imported: a fork keeps none of them."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from processor import events

log = events.logger(__name__)

_TASKS = Path("/proc/self/task")


def warn_of_threads(ours: threading.Thread | None = None) -> None:
    """Name the threads that are alive beside the main one. Call it before the first fork.

    Workers are forked from the process that has imported the module. There these threads are gone, and what they held
    (locks, connections) stays as it was: the client that needs them waits for ever. Without a fork they live on, so the
    same module would work with `--no-supervise` and not without: it is told in both.

    Args:
        ours: a thread of the worker itself.
    """
    names = [thread.name for thread in threading.enumerate() if thread not in (threading.main_thread(), ours)]
    names += _native()
    if names:
        log.warning(
            "threads.before_fork",
            extra={
                "threads": ", ".join(sorted(set(names))),
                "hint": "workers are forked without them: start threads, clients and pools under @app.on_start",
            },
        )


def _native() -> list[str]:
    """Names of threads that are not Python's, as far as they have one of their own: those of a Kafka client, of gRPC.

    Where nobody has named them (the pool of a numerical library, which looks after forks by itself) they bear that of
    the process.
    """
    known = {thread.native_id for thread in threading.enumerate()} | {os.getpid()}
    names = []
    with suppress(OSError):
        own = (_TASKS / str(os.getpid()) / "comm").read_text().strip()
        for task in _TASKS.iterdir():
            if int(task.name) not in known:
                with suppress(OSError):  # it has just ended
                    names.append((task / "comm").read_text().strip())
        names = [name for name in names if name != own]
    return names
