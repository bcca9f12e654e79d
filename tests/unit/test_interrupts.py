"""Ctrl-C in a program that waits is one line, and ends it as Ctrl-C ends any program."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

WAITS = """
import os, signal, sys, threading
from processor.client.interrupts import told_in_one_line

{before}
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
with told_in_one_line("job 7 goes on"):
    threading.Event().wait()
"""


def ended(before: str = "") -> subprocess.CompletedProcess[str]:
    code = WAITS.replace("{before}", before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)


def test_it_is_one_line_and_the_exit_of_any_interrupt() -> None:
    done = ended()
    assert done.stderr == "interrupted: job 7 goes on\n"
    assert done.returncode == -signal.SIGINT


@pytest.mark.parametrize("before", ["sys.excepthook = lambda *told: print('mine', told[1], file=sys.stderr)"])
def test_an_excepthook_of_the_users_stays(before: str) -> None:
    assert ended(before).stderr == "mine interrupted: job 7 goes on\n"
