"""The user's app for a command: `MODULE:APP`, found as workers and their child processes find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.errors import DefinitionError
from processor.worker.loading import load_application

if TYPE_CHECKING:
    from processor.app import App


def load_app(path: str) -> App:
    """Import the app.

    Raises:
        DefinitionError: there is none by that name; the message says what was tried.
    """
    from processor.app import App

    found = load_application(path)
    if not isinstance(found, App):
        raise DefinitionError(f"{path} is a {type(found).__name__}, not an App", hint='app = App("shop")')
    return found
