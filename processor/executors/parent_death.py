"""Processes that must not outlive the one that started them: workers their supervisor, child processes their worker,
and what a handler starts its child process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY = 0.2
"""Seconds between two looks whether the parent is there, where no kernel tells."""
_TOLD = signal.SIGUSR2
"""How the kernel tells a group's last will that its process has ended."""


def die_with_parent(parent: int, lifeline: int | None = None) -> None:
    """Let this process end with the thread that started it; end now if that is over already.

    On Linux the kernel sees to it, whatever this process is doing. Elsewhere a thread waits for the end of `lifeline`.

    Args:
        parent: process id of the one who started this one. A death before the request would go unheard.
        lifeline: a pipe whose writing end only the parent holds; None if something else watches it.
    """
    if sys.platform == "linux":
        _tell_of_parents_end(signal.SIGKILL)
    elif lifeline is not None:
        threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def take_group_along(channel: int) -> None:
    """See that the process group that this process leads ends with it, however it ends. Call it before any thread.

    The kernel ends one process with its parent, not what that one has started: an `ffmpeg` of a killed child process
    would work on beside the resumed job. So a small process of the same group waits for the end of this one.

    Args:
        channel: a descriptor that the small process must not keep open: its other end waits for this one's end.
    """
    leader = os.getpid()
    with suppress(OSError):  # no process to be had: the worker still ends the group when it ends the child
        if os.fork() == 0:
            try:
                _last_will(leader, channel)
            finally:
                os._exit(1)


def _last_will(leader: int, channel: int) -> None:
    os.close(channel)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, [_TOLD])
        _tell_of_parents_end(_TOLD)
        while os.getppid() == leader:
            signal.sigwait([_TOLD])
    else:
        while os.getppid() == leader:
            time.sleep(_LOOK_EVERY)
    os.killpg(leader, signal.SIGKILL)


def _tell_of_parents_end(number: signal.Signals) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)
