"""Payloads as they are typed: JSON on the command line, in a file, or on the standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click


def payload_of(text: str | None) -> Any:
    """The JSON that was given, or None.

    Raises:
        click.BadParameter: it cannot be read, or is no JSON.
    """
    if text is None:
        return None
    source = "the payload"
    try:
        if text == "-":
            source, text = "the standard input", sys.stdin.read()
        elif text.startswith("@"):
            source, text = text[1:], Path(text[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"the payload cannot be read: {error}") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(
            f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}. "
            """In a shell, write it in single quotes: '{"url": "..."}'"""
        ) from error
    except (ValueError, RecursionError) as error:
        # A number of more digits, or brackets deeper, than Python reads.
        raise click.BadParameter(f"{source} cannot be read as JSON: {error}") from error
