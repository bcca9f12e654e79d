"""How ages, sizes, progress and loops are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from processor.cli.output import moment, show
from processor.texts import count as count
from processor.wire.durations import span as span

if TYPE_CHECKING:
    from processor.job import LoopProgress

STATE_STYLES = {
    "succeeded": "good",
    "running": "good",
    "retrying": "warn",
    "waiting": "warn",
    "in_doubt": "bad",
    "dead": "bad",
    "killed": "bad",
}
"""Colours of the states in tables; the others have none."""


def state_style(state: object) -> str:
    """The colour of a state."""
    return STATE_STYLES.get(str(state), "")


def age(at_ms: int | None, now_ms: int) -> str:
    """How long ago, in its largest unit: `12s`, `5m`, `3h`, `2d`. Clocks differ: the future is `0s`."""
    return "-" if at_ms is None else span((now_ms - at_ms) / 1000)


def until(at_ms: int, now_ms: int) -> str:
    """A moment ahead, and how far: `2026-11-28 18:00:00Z (in 12m)`."""
    return f"{moment(at_ms)} ({'now' if at_ms <= now_ms else f'in {span((at_ms - now_ms) / 1000)}'})"


def size(count: int) -> str:
    """Bytes, to two or three digits: `812 B`, `3.4 KiB`."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024 or unit == "GiB":
            break
    return f"{amount:.1f} {unit}"


def progress(done: float | None, total: float | None) -> str:
    """`501 of 1000 (50 %)`, `501`, or `-` if the job said nothing."""
    if done is None:
        return "-"
    if not total:
        return number(done)
    return f"{number(done)} of {number(total)} ({100 * min(1.0, max(0.0, done / total)):.0f} %)"


def number(value: float) -> str:
    """A count without a needless `.0`."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def loop(name: str, found: LoopProgress) -> str:
    """`rows: 501 of 1000, at 501` - items finished, and the cursor of the last one."""
    of = "" if found.total is None else f" of {found.total}"
    where = "finished" if found.exhausted else "not begun" if found.cursor is None else f"at {found.cursor}"
    return f"{name}: {found.items}{of}, {where}"


def loops(found: Mapping[str, LoopProgress] | None, cursor: str | None = None) -> str:
    """All loops of a job, and the cursor of `ctx.checkpoint`, on one line."""
    parts = [loop(name, progress_) for name, progress_ in (found or {}).items()]
    if cursor is not None:
        parts.append(f"cursor {cursor}")
    return "; ".join(show(part) for part in parts) or "-"
