"""The small tail that the house style asks for: a breach is a review question, and this is where it is asked."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2] / "processor"
MODULE_LINES = 400
FUNCTION_LINES = 60
ATTRIBUTES = 20
"""Of one class, with what it inherits. Values (named tuples, frozen dataclasses, groups of settings) have one line each
for their fields and nobody writes to them: they do not count.
"""
HIDDEN = 0.5
"""Of a thousand lines, those with a `type: ignore`."""
SIBLINGS = 12
"""Modules of its own package that a module imports at most."""


@cache
def modules() -> Mapping[str, ast.Module]:
    """The package's modules by their names below `processor`; a package is named as itself."""
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
        found[name] = ast.parse(path.read_text())
    return found


@cache
def imported(name: str) -> set[str]:
    """The package's modules that a module names in its imports, also those for the type checker alone."""
    found: set[str] = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "processor":
            base = (node.module or "").removeprefix("processor").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}" if base else alias.name
                found.add(inner if inner in modules() else base)
    return found - {name, ""}


def knots(graph: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """The sets of nodes that reach each other."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting.extend(graph.get(node, ()))
        reach[start] = seen
    found: list[set[str]] = []
    for node, seen in reach.items():
        if node in seen and not any(node in knot for knot in found):
            found.append({node} | {other for other in seen if node in reach.get(other, ())})
    return found


def is_value(node: ast.ClassDef) -> bool:
    """Whether nobody writes to what is made of it."""
    bases = {ast.unparse(base).split("[")[0] for base in node.bases}
    frozen = any("frozen=True" in ast.unparse(decorator) for decorator in node.decorator_list)
    return frozen or bool(bases & {"NamedTuple", "StrEnum", "Enum", "Group", "Protocol"})


def own_attributes(node: ast.ClassDef) -> Iterator[str]:
    """What an instance is given: slots, fields, defaults in the class, what a method sets on its first argument."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if "ClassVar" not in ast.unparse(statement.annotation):
                yield statement.target.id
        elif isinstance(statement, ast.Assign):
            yield from (t.id for t in statement.targets if isinstance(t, ast.Name) and t.id != "__slots__")
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.args.args:
            me = statement.args.args[0].arg
            for inner in ast.walk(statement):
                if not (isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)):
                    continue
                if isinstance(inner.value, ast.Name) and inner.value.id == me:
                    yield inner.attr


def test_no_module_is_longer_than_400_lines() -> None:
    sizes = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in ROOT.rglob("*.py")}
    assert sizes, ROOT
    assert {str(path): lines for path, lines in sizes.items() if lines > MODULE_LINES} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long: dict[str, int] = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert long == {}


def test_no_class_has_more_than_20_attributes() -> None:
    classes = {
        node.name: (f"{module}.{node.name}", node)
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }

    def attributes(node: ast.ClassDef) -> set[str]:
        found = set(own_attributes(node))
        for base in node.bases:
            known = classes.get(ast.unparse(base).split("[")[0])
            if known is not None and known[1] is not node:
                found |= attributes(known[1])
        return found

    counts = {name: len(attributes(node)) for name, node in classes.values() if not is_value(node)}
    assert {name: count for name, count in counts.items() if count > ATTRIBUTES} == {}


def test_no_module_imports_more_than_12_siblings() -> None:
    wide: dict[str, int] = {}
    for name in modules():
        package = name.rpartition(".")[0]
        prefix = f"{package}." if package else ""
        names = (other for other in imported(name) if other.startswith(prefix))
        siblings = {other.removeprefix(prefix).split(".")[0] for other in names if other != package}
        if not prefix:  # packages are floors of the house, and no siblings
            siblings = {sibling for sibling in siblings if (ROOT / f"{sibling}.py").exists()}
        if len(siblings) > SIBLINGS:
            wide[name] = len(siblings)
    assert wide == {}


def test_no_modules_import_each_other() -> None:
    # Also not for the type checker alone.
    assert knots({name: imported(name) for name in modules()}) == []


def test_few_lines_are_hidden_from_the_type_checker() -> None:
    lines = [line for path in ROOT.rglob("*.py") for line in path.read_text().splitlines()]
    hidden = [line for line in lines if "# type: ignore" in line]
    assert len(hidden) < HIDDEN * len(lines) / 1000, hidden


def test_knots_are_found() -> None:
    assert knots({"a": ["b"], "b": ["c"], "c": []}) == []
    assert knots({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": []}) == [{"a", "b", "c"}]
    assert knots({"a": ["a"]}) == [{"a"}]
