"""The README and the pages of docs/ run: their Python works, their commands and options exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from processor.cli.main import root
from processor.testing import Testbed
from tests.loading import load_file

TOP = Path(__file__).resolve().parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md")), *sorted((TOP / "examples").glob("*/README.md"))]


def commands(page: Path, program: str) -> list[str]:
    """Lines of code, and code within sentences, that call `program`."""
    text = page.read_text("utf-8")
    lines = re.findall(rf"^    ({program} .*)$", text, re.MULTILINE)
    return lines + re.findall(rf"`({program} [^`]*)`", text)


def test_first_job_of_the_readme_runs(tmp_path: Path) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (TOP / "README.md").read_text("utf-8"), re.DOTALL)
    path = tmp_path / "jobs.py"
    path.write_text(block, "utf-8")
    module = load_file(path, "readme_jobs")
    with Testbed() as bed:
        job = bed.enqueue(module.import_rows, module.Import(rows=500))
        bed.crash_worker(at="rows", after=200)
        bed.drain()
        assert bed.result(job) == 1500
        assert bed.runs(job, "look up") == 1


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (TOP / "Makefile").read_text("utf-8")
    targets = [line.split()[1] for line in commands(TOP / "README.md", "make")]
    assert {"demo", "test"} <= set(targets)
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def documented() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for line in commands(page, "processor"):
            yield f"{page.parent.name}/{page.name}", line


@pytest.mark.parametrize(("page", "line"), list(documented()))
def test_documented_commands_exist(page: str, line: str) -> None:
    words = shlex.split(line.partition("#")[0])[1:]
    command: click.Command = root
    context = click.Context(root, info_name="processor")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{page}: {line!r}: there is no command {name}"
        command = found
        context = click.Context(command, parent=context, info_name=name)
    known = {
        option for parameter in command.get_params(context) for option in parameter.opts + parameter.secondary_opts
    }
    assert [word for word in words if word.startswith("-") and word not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
