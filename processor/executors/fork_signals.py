"""What handlers fork begins with the signals that any process begins with, and not with those of their worker."""

from __future__ import annotations

import os
import signal
import threading

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_state = threading.local()
_registered: list[bool] = []


def default_in_forks() -> None:
    """From now on a forked process can be stopped as if it were none of ours: `multiprocessing` terminates its own.

    Nor does it write to the pipe that wakes the listener of the worker: that is open in both. A signal that comes in
    the middle of the fork waits until the new process is ready for it.
    """
    if not _registered:
        _registered.append(True)
        os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_begin)


def _hold_back() -> None:
    _state.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _state.mask)


def _begin() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _let_through()
