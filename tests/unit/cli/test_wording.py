"""How numbers are written for people."""

from __future__ import annotations

import pytest

from processor import texts
from processor.cli import wording
from processor.job import LoopProgress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0.9, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")],
)
def test_spans_keep_two_digits_of_meaning(seconds: float, text: str) -> None:
    assert wording.span(seconds) == text


def test_progress_sizes_and_counts() -> None:
    assert wording.age(None, 5) == "-"
    assert wording.progress(None, 5) == "-"
    assert wording.progress(2.5, None) == "2.5"
    assert wording.progress(12, 10) == "12 of 10 (100 %)"
    assert [wording.size(count) for count in (5, 3500, 5 * 2**20, 2**40)] == ["5 B", "3.4 KiB", "5.0 MiB", "1024.0 GiB"]
    assert [texts.count(amount, "job") for amount in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert texts.count(12_000, "job") == "12,000 jobs"


def test_loops_on_one_line() -> None:
    rows = LoopProgress("501", 501, 1000, False)
    assert wording.loops({"rows": rows}) == "rows: 501 of 1000, at 501"
    assert wording.loops({"a": LoopProgress(None, 0, None, False), "b": rows._replace(exhausted=True)}, '"x"') == (
        'a: 0, not begun; b: 501 of 1000, finished; cursor "x"'
    )
    assert wording.loops(None) == "-"
