"""The root command: quick, complete, and described on a page that equals it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
HEAVY = ("confluent_kafka", "pydantic", "fastavro", "rich", "prometheus_client", "processor.app", "processor.broker")

SCRIPT = """
import sys
from processor.cli.main import root
try:
    root({args!r}, prog_name="processor")
except SystemExit as end:
    assert end.code in (0, None), end.code
print("heavy:", *[name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize("args", [["--help"], ["job", "--help"], ["checkpoint", "list", "--help"], ["doctor", "-h"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(args=args, heavy=HEAVY)], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "heavy:"
    assert "Usage: processor" in run.stdout


def test_the_page_of_the_commands_is_up_to_date() -> None:
    # In a process of its own: click keeps the help option of a command that another test ran without the root.
    script = "from processor.cli.reference_cli import render_command_line_markdown as page; print(page(), end='')"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (DOCS / "command-line.md").read_text("utf-8") == run.stdout, "run: python -m processor.cli.reference_cli"
