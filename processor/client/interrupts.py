"""Ctrl-C in a program that waits for the log or for a job: one line says what was waited for, instead of our frames.

The exception stays a `KeyboardInterrupt`, and Python ends the program as ever. Only where nobody has set an
`excepthook`, and only once an interrupt has come, ours prints the one line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


@contextmanager
def told_in_one_line(text: str) -> Iterator[None]:
    """An interrupt of what is done here says `text`.

    Raises:
        KeyboardInterrupt: it came.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:
            interrupt.args = (f"interrupted: {text}",)
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = _print
        raise


def _print(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if kind is KeyboardInterrupt and error.args:
        sys.stderr.write(f"{error.args[0]}\n")
    else:
        sys.__excepthook__(kind, error, traceback)
