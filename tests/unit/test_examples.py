"""The examples do what their READMEs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor.testing import Testbed
from tests.loading import load_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_first_job_greets() -> None:
    example = load_file(EXAMPLES / "first-job" / "example.py", "example_first_job")
    with Testbed() as bed:
        job = bed.enqueue(example.greet, example.Greeting(name="world", times=2))
        bed.drain()
        assert bed.result(job) == ["Hello, world!", "Hello, world!"]


def test_import_resumes_after_a_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load_file(EXAMPLES / "resume-import" / "example.py", "example_resume_import")
    orders = tmp_path / "orders.csv"
    orders.write_text("".join(f"order-{n},{-50 if n % 10 == 0 else 100}\n" for n in range(1, 301)), "utf-8")
    with Testbed() as bed:
        job = bed.enqueue(example.import_orders, example.Import(path=orders))
        bed.crash_worker(at="rows", after=150)
        bed.drain()
        assert bed.result(job) == example.Tally(orders=300, refunds=30, cents=270 * 100 - 30 * 50)
        assert bed.runs(job, "count") == 1
        assert bed.runs(job, "report") == 1
        assert bed.reprocessed(job, "rows") <= bed.checkpoint_gap("rows")
    assert capsys.readouterr().out == "report: 300 orders, 30 refunds\n"
