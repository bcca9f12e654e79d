"""The demo as a user runs it, with a shorter walk: real Kafka, a killed worker, a frozen one, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SHORT = """
import sys
from pathlib import Path
from processor.demo.screen import Screen
from processor.demo.story import DemoOptions, demonstrate
reckoning = demonstrate(DemoOptions(words_seconds=1, walk_seconds=4), Screen())
reckoning.write(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_the_story_ends_well_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A cluster exported for something else must not be touched, or even asked.
    monkeypatch.setenv("PROCESSOR_KAFKA__BOOTSTRAP", "production.invalid:9092")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    out = tmp_path / "out.json"
    told = subprocess.run(
        [sys.executable, "-c", _SHORT, str(out)], capture_output=True, text=True, timeout=500, check=False
    )
    assert told.returncode == 0, told.stderr
    reckoning = json.loads(out.read_text("utf-8"))
    assert reckoning["ok"], told.stderr + told.stdout
    assert (reckoning["lost"], reckoning["doubled"], reckoning["totals_equal"]) == (0, 0, True)
    assert (reckoning["retried"], reckoning["rows_imported_twice"]) == (10, 0)
    assert reckoning["takeover_seconds"] >= 5
    assert list(tmp_path.glob("processor-demo-*")) == []
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in left
