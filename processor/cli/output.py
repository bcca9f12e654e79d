"""How commands speak: results on stdout (a table, or JSON), progress and errors on stderr, exit codes from errors.

    @group.command()
    @output_options
    def command(out: Output, ...):
        out.table([Column("queue"), Column("lag", right=True)], rows)

Colours and boxes only on a terminal and only if rich is installed; `NO_COLOR` is honoured. A pipe gets plain aligned
columns, `--json` one document per command (one line per record for commands that go on for ever).
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import click

from processor.errors import ProcessorError
from processor.wire.durations import moment as moment

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
_STYLES = {"good": "green", "warn": "yellow", "bad": "red", "dim": "bright_black", "": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table."""

    name: str
    """Title, and key of the row's value."""
    right: bool = False
    """Align to the right: numbers."""
    whole: bool = False
    """Never folded on a narrow terminal: ids, so that they can be copied."""
    style: Callable[[Any], str] | None = None
    """`good`, `warn`, `bad`, `dim` or nothing, told from the value."""


class Ticker(Protocol):
    """Progress of a long work."""

    def __call__(self, steps: int = 1) -> None: ...


class Output:
    """Where one command's results go."""

    def __init__(self, *, as_json: bool = False, debug: bool = False) -> None:
        self.as_json = as_json
        self.debug = debug

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads stdout."""
        return sys.stdout.isatty() and not self.as_json

    # -- results ---------------------------------------------------------------------------------------------------

    def table(self, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, empty: str = "nothing") -> None:
        """Rows as a table, or as a JSON list with every key of each row."""
        listed = list(rows)
        if self.as_json:
            self._json(listed)
        elif not listed:
            self.note(empty)
        elif self.is_terminal and _has_rich():
            _rich_table(columns, listed)
        else:
            self._plain_table(columns, listed)

    def facts(self, values: Mapping[str, Any]) -> None:
        """One thing with its properties, one per line; or a JSON object."""
        if self.as_json:
            self._json(values)
            return
        width = max((len(name) for name in values), default=0)
        for name, value in values.items():
            shown = ("\n" + " " * (width + 2)).join(show_lines(value))
            click.echo(f"{click.style(name.ljust(width), dim=True)}  {shown}", color=self._colour())

    def record(self, value: Mapping[str, Any], line: str) -> None:
        """One of many results that come one by one: a line, or one JSON object per line."""
        click.echo(json.dumps(value, default=_plain, ensure_ascii=False) if self.as_json else line)
        # A reader at the other end of a pipe wants each at once.
        sys.stdout.flush()

    def line(self, text: str, style: str = "") -> None:
        """A sentence among the results; left out of JSON."""
        if not self.as_json:
            click.secho(text, fg=_STYLES[style], color=self._colour())

    # -- beside the results ----------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A remark on stderr."""
        click.echo(text, err=True)

    def warning(self, text: str) -> None:
        """Something to look at, on stderr."""
        click.echo(f"{click.style('warning:', fg='yellow')} {text}", err=True, color=_colours(sys.stderr))

    def error(self, error: ProcessorError) -> None:
        """An error with its hint, on stderr."""
        colour = _colours(sys.stderr)
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True, color=colour)
        if error.hint:
            click.echo(f"{click.style('hint:', fg='cyan')} {error.hint}", err=True, color=colour)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Ticker]:
        """A bar on stderr while work goes on; a plain line at its start and end where stderr is no terminal."""
        if sys.stderr.isatty() and _has_rich():
            with _rich_progress(label, total) as tick:
                yield tick
            return
        done = 0

        def count(steps: int = 1) -> None:
            nonlocal done
            done += steps

        self.note(f"{label} ...")
        yield count
        self.note(f"{label}: {done}{f' of {total}' if total is not None else ''}")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn errors of ours into their message and exit code; with --debug they keep their traceback."""
        try:
            yield
        except ProcessorError as error:
            if self.debug:
                raise
            self.error(error)
            sys.exit(error.exit_code)
        except KeyboardInterrupt as interrupt:
            self.note(str(interrupt) or "interrupted")
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader has seen enough (`| head`). Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _colour(self) -> bool:
        return _colours(sys.stdout)

    def _json(self, value: Any) -> None:
        click.echo(json.dumps(value, default=_plain, ensure_ascii=False, indent=2))

    def _plain_table(self, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
        lines = [[column.name.upper() for column in columns]]
        lines += [[show(row.get(column.name)) for column in columns] for row in rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
        for line in lines:
            cells = [
                cell.rjust(width) if column.right else cell.ljust(width)
                for cell, width, column in zip(line, widths, columns, strict=True)
            ]
            click.echo("  ".join(cells).rstrip())


def output_options(command: Callable[Concatenate[Output, P], R]) -> Callable[P, R]:
    """Give a command `--json` and `--debug`, an `Output` as its first argument, and errors without tracebacks."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option("--debug", is_flag=True, envvar="PROCESSOR_DEBUG", help="Show the traceback of an error.")
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        out = Output(as_json=bool(kwargs.pop("as_json")), debug=bool(kwargs.pop("debug")))
        with out.errors():
            return command(out, *args, **kwargs)
        raise AssertionError("errors() exits or raises")

    return run


def show(value: Any) -> str:
    """A value in a table's cell, on one line; control characters are escaped, so no job can drive a terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def show_lines(value: Any) -> list[str]:
    """The same where there is room for more than one line. Whoever prints them indents all but the first."""
    if not isinstance(value, str):
        return [show(value)]
    return [show(line) for line in value.replace("\r\n", "\n").split("\n")]


def _plain(value: Any) -> Any:
    """What `json` does not know by itself."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def _colours(stream: Any) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


def _has_rich() -> bool:
    from importlib.util import find_spec

    return find_spec("rich") is not None


def _rich_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.whole,
        )
    for row in rows:
        cells = []
        for column in columns:
            value = row.get(column.name)
            style = _STYLES[column.style(value)] if column.style else None
            cells.append(Text(show(value), style=style or ""))
        table.add_row(*cells)
    Console(no_color=not _colours(sys.stdout), highlight=False).print(table)


@contextmanager
def _rich_progress(label: str, total: int | None) -> Iterator[Ticker]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)

        def tick(steps: int = 1) -> None:
            bar.advance(task, steps)

        yield tick
