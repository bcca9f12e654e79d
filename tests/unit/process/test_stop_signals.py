"""A stop before there is a worker is a stop, whatever becomes of the exception that tells of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import os, signal
from processor.process.stop_signals import StopSignals

signals = StopSignals()
with signals.outlives_c_code():
    try:
        {before}
        for _ in range(1000):
            pass
    except BaseException:
        pass
    raise TypeError("expected configuration property name as type unicode string")  # as a C library does
"""


@pytest.mark.parametrize(
    ("before", "code", "says"),
    [("os.kill(os.getpid(), signal.SIGTERM)", 0, ""), ("pass", 1, "TypeError: expected configuration")],
)
def test_a_stop_that_a_library_turns_into_another_error_is_a_stop(before: str, code: int, says: str) -> None:
    script = START.replace("{before}", before)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert bool(done.stderr) == bool(says)
