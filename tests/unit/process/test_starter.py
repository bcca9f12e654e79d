"""Which loaded files are the user's, and what a worker tells whoever started it."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import processor
from processor.cli.target import _is_ours
from processor.process.starter import Starter, loaded_files

OURS = Path(processor.__file__).parent


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/home/ana/shop/jobs.py", True),
        (f"{OURS}_jobs.py", True),
        (f"{OURS}-jobs/app.py", True),
        (f"{OURS}/app.py", False),
        (f"{sysconfig.get_path('stdlib')}/json/decoder.py", False),
        (f"{sysconfig.get_path('stdlib')}x/jobs.py", True),
        (f"{sysconfig.get_path('purelib')}/numpy/core.py", False),
        ("/home/ana/shop/fast.so", False),
        (None, False),
    ],
)
def test_which_loaded_files_are_the_users(path: str | None, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("one_of_the_users")
    module.__file__ = path
    monkeypatch.setitem(sys.modules, "one_of_the_users", module)
    assert (path is not None and os.path.realpath(path) in set(loaded_files())) is told


@pytest.mark.parametrize(
    ("file", "ours"),
    [
        (f"{OURS}/executors/loading.py", True),
        (f"{OURS}_jobs.py", False),
        ("<frozen importlib._bootstrap>", True),
        ("/home/ana/shop/jobs.py", False),
    ],
)
def test_whose_frame_it_is(file: str, ours: bool) -> None:
    assert _is_ours(file) is ours


def test_it_tells_readiness_and_goes_on_when_nobody_listens() -> None:
    reads, writes = os.pipe()
    starter = Starter(writes)
    starter.ready()
    assert os.read(reads, 100) == b"ready\n"
    assert starter._tell_new()
    told = os.read(reads, 65_536).splitlines()
    assert os.fsencode(os.path.realpath(__file__)) in told
    assert told == sorted(told)
    assert starter._tell_new(), "nothing is told twice"
    os.set_blocking(reads, False)
    with pytest.raises(BlockingIOError):
        os.read(reads, 1)
    os.close(reads)
    starter.ready()
    os.close(writes)
