"""`python -m tests.mutants`: break each rule in turn, in a copy. Exit code 1 if the test that bears its name sleeps."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.rules import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent.parent
WHERE = ("tests/unit/engine", "tests/unit/context", "tests/unit/admin", "tests/unit/testing")
"""Where the tests stand that bear the rules' names."""
LIMIT = 300.0
"""Seconds; a mutant that hangs is noticed."""


def main() -> int:
    """Run the wanted mutants, all if none are named."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; all mutants if none is given")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    wanted = parser.parse_args()
    chosen = [m for m in MUTANTS if not wanted.names or any(part in m.name for part in wanted.names)]
    if wanted.list:
        sys.stdout.writelines(f"{mutant.name}: {mutant.tests}\n" for mutant in chosen)
        return 0
    whole = Mutant("nothing is broken", "", (), " or ".join(mutant.tests for mutant in chosen))
    if _noticed(whole):
        sys.stdout.write("the tests fail although nothing is broken\n")
        return 1
    slept = [mutant.name for mutant in chosen if not _noticed(mutant)]
    sys.stdout.write(f"{len(chosen) - len(slept)} of {len(chosen)} broken rules were noticed\n")
    return int(bool(slept))


def _noticed(mutant: Mutant) -> bool:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="processor-mutant-") as folder:
        copy = Path(folder)
        for name in ("processor", "schemas", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant.changes:
            _break(copy / "processor" / mutant.file, mutant)
        failed, said = _run(copy, mutant)
    seconds = time.monotonic() - began
    word = ("noticed" if failed else "SLEPT") if mutant.changes else ("FAILED" if failed else "well")
    sys.stdout.write(f"{word:7}  {seconds:4.0f} s  {mutant.name}: {said}\n")
    sys.stdout.flush()
    return failed


def _break(path: Path, mutant: Mutant) -> None:
    text = path.read_text("utf-8")
    for before, after in mutant.changes:
        if before not in text:
            raise SystemExit(f"mutant {mutant.name!r}: {mutant.file} no longer holds {before!r}: carry the rule over")
        text = text.replace(before, after)
    path.write_text(text, "utf-8")


def _run(copy: Path, mutant: Mutant) -> tuple[bool, str]:
    """Whether a named test failed, and pytest's last words."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *WHERE, "-k", mutant.tests]
    try:
        run = subprocess.run(
            command,
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True, f"it hung for {LIMIT:.0f} s"
    said = next((line for line in reversed(run.stdout.splitlines()) if " in " in line), run.stderr[-200:])
    if run.returncode not in (0, 1):
        raise SystemExit(f"mutant {mutant.name!r}: the tests did not run: {run.stdout[-2000:]}{run.stderr[-500:]}")
    return run.returncode == 1, said.strip("= ")


if __name__ == "__main__":
    sys.exit(main())
