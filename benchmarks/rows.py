"""One measured value and its bar."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table and an object of build/bench.json."""

    name: str
    value: float | None
    """None: the bench failed, and `bar` says how."""
    unit: str
    reference: float | None = None
    """The same, of the hand-written loop."""
    ratio: float | None = None
    """Value by reference."""
    bar: str
    holds: bool


def at_most(name: str, value: float, limit: float, unit: str) -> Row:
    """A value that should be small."""
    return Row(name=name, value=_short(value), unit=unit, bar=f"<= {limit:g} {unit}", holds=value <= limit)


def at_least(name: str, value: float, limit: float, unit: str) -> Row:
    """A value that should be large."""
    return Row(name=name, value=_short(value), unit=unit, bar=f">= {limit:g} {unit}", holds=value >= limit)


def beside(name: str, value: float, reference: float, share: float, unit: str) -> Row:
    """A value that should be at least this share of a reference."""
    ratio = value / reference
    return Row(
        name=name,
        value=_short(value),
        unit=unit,
        reference=_short(reference),
        ratio=round(ratio, 3),
        bar=f">= {share:g} x reference",
        holds=ratio >= share,
    )


def failed(name: str, error: BaseException) -> Row:
    """A bench that did not get to a value."""
    return Row(name=name, value=None, unit="", bar=f"failed: {error!r:.200}", holds=False)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def write(rows: Sequence[Row], path: Path) -> None:
    """All rows, as a list of objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")


def table(rows: Sequence[Row]) -> str:
    """All rows, for people."""
    lines = [("what", "value", "unit", "reference", "ratio", "bar", "holds")]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        holds = "yes" if row.holds else "NO"
        lines.append((row.name, _text(row.value), row.unit, _text(row.reference), ratio, row.bar, holds))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _short(value: float) -> float:
    """Four digits that mean something."""
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))
