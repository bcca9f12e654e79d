"""What a command works on: the user's `App`, named `module:attribute`, and the broker it speaks to."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from processor.errors import DefinitionError

if TYPE_CHECKING:
    from processor.app import App

F = TypeVar("F", bound=Callable[..., Any])


def app_option(command: F) -> F:
    """`--app MODULE:APP`, also from PROCESSOR_APP; pass the value to `load_app`."""
    return click.option(
        "--app", "app_name", envvar="PROCESSOR_APP", metavar="MODULE:APP", help="The app, for example shop.jobs:app."
    )(command)


def load_app(name: str | None) -> App:
    """Import an app.

    Raises:
        DefinitionError: no name was given, or there is no such module, attribute or app.
    """
    from processor.app import App

    if not name:
        raise DefinitionError("which app?", hint="give --app MODULE:APP or set PROCESSOR_APP, e.g. shop.jobs:app")
    module_name, _, attribute = name.partition(":")
    # As `python -m` does: modules of the working directory can be named.
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise DefinitionError(
            f"there is no module {module_name!r}", hint="run from the folder that holds it, or install its package"
        ) from error
    found = getattr(module, attribute or "app", None)
    if isinstance(found, App):
        return found
    apps = [key for key, value in vars(module).items() if isinstance(value, App)]
    raise DefinitionError(
        f"{module_name} has no App called {attribute or 'app'!r}",
        hint=f"it has: {', '.join(f'{module_name}:{key}' for key in apps)}"
        if apps
        else "an App is made by App('name')",
    )
