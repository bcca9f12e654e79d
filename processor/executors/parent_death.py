"""Processes that must not outlive the one that started them: workers their supervisor, child processes their worker."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, lifeline: int | None = None) -> None:
    """Let this process end with the thread that started it; end now if that is over already.

    On Linux the kernel sees to it, whatever this process is doing. Elsewhere a thread waits for the end of `lifeline`.

    Args:
        parent: process id of the one who started this one. A death before the request would go unheard.
        lifeline: a pipe whose writing end only the parent holds; None if something else watches it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    elif lifeline is not None:
        threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)
