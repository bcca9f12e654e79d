"""The rules that `make mutants` breaks stand where it looks for them, and name tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mutants.rules import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_each_rule_stands_where_it_is_broken(mutant: Mutant) -> None:
    text = (ROOT / "processor" / mutant.file).read_text("utf-8")
    for before, after in mutant.changes:
        assert before in text, f"{mutant.file} no longer holds it: carry the rule over"
        assert before != after


def test_each_rule_names_tests_that_there_are() -> None:
    names = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    for mutant in MUTANTS:
        for wanted in re.findall(r"test_\w+", mutant.tests):
            assert any(name.startswith(wanted) for name in names), (mutant.name, wanted)
