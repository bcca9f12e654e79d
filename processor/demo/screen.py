"""What the demo says while it goes on, on stderr: numbered chapters, sentences, a bar per queue.

With rich on a terminal the bars stay at the bottom while the story scrolls above them; elsewhere a plain line with all
of them is printed every few seconds.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY = 5.0
_WIDTH = 100


class Bar(Protocol):
    """How far one thing is."""

    @property
    def done(self) -> int: ...


class Screen:
    """Chapters and bars. Use it from one thread; `close` in any case."""

    def __init__(self) -> None:
        self._chapter = 0
        self._began = time.monotonic()
        self._live = _rich_progress() if sys.stderr.isatty() and find_spec("rich") else None
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._last_line = 0.0
        self._last_text = ""

    def chapter(self, title: str) -> None:
        """Begin the next chapter."""
        self._chapter += 1
        self._print(f"\n{self._chapter}. {title}", bold=True)

    def say(self, text: str) -> None:
        """What happens now, in plain words."""
        self._print(textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   "))

    def event(self, text: str) -> None:
        """Something that just happened, with its moment."""
        moment = f"{time.monotonic() - self._began:5.1f} s"
        indent = " " * (len(moment) + 5)
        self._print(
            textwrap.fill(f"   {moment}  {text}", _WIDTH, subsequent_indent=indent, drop_whitespace=True),
            colour="yellow",
        )

    def bars(self, totals: Mapping[str, int]) -> None:
        """Show these bars from now on."""
        self._totals = dict(totals)
        if self._live is not None:
            self._tasks = {name: self._live.add_task(name, total=total) for name, total in totals.items()}
            self._live.start()

    def show(self, done: Mapping[str, int]) -> None:
        """How far each bar is now."""
        if self._live is not None:
            for name, count in done.items():
                self._live.update(self._tasks[name], completed=count)
            return
        now = time.monotonic()
        text = "   ".join(f"{name} {count:,}/{self._totals[name]:,}" for name, count in done.items())
        if now - self._last_line >= _LINE_EVERY and text != self._last_text:
            self._last_line, self._last_text = now, text
            click.echo(f"   {now - self._began:5.1f} s  {text}", err=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def _print(self, text: str, *, bold: bool = False, colour: str | None = None) -> None:
        if self._live is None:
            click.secho(text, err=True, bold=bold, fg=colour)
            return
        style = " ".join(word for word in ("bold" if bold else "", colour or "") if word)
        self._live.console.print(text, style=style or None, highlight=False, markup=False, soft_wrap=True)


def _rich_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("   {task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
