"""Commands that need an extra say so when it is not installed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from processor.errors import ExtraMissing

Command = Callable[..., Any]


def needs_sql(extra: str, purpose: str) -> Callable[[Command], Command]:
    """Of a command that needs SQLAlchemy: say that `purpose` needs `extra`, and how to install it."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                import sqlalchemy  # noqa: F401  (only asked for)
            except ModuleNotFoundError as error:
                raise ExtraMissing(extra, purpose) from error
            return command(*args, **kwargs)

        return run

    return decorate
