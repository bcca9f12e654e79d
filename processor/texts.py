"""Text out of values that cannot be trusted: an exception's message, its traceback, a representation.

Whatever a value's own `__str__` or `__repr__` does (raises, returns no string, returns 50 MB, returns half a surrogate
pair), what comes out here is a plain `str` of bounded length that every encoder takes.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable

MESSAGE = 2000
"""Characters kept of a message."""
TRACEBACK = 16_000
"""Characters kept of a traceback: its end, where the error is."""
_FRAME = re.compile(r'^  (?:[| ]+)?File "([^"\n]+)", line (\d+), in (.+)$', re.MULTILINE)
_OTHERS = (os.path.dirname(__file__) + os.sep, os.path.dirname(traceback.__file__) + os.sep, "<frozen")
_CHAIN = 5
"""Exceptions of a chain of causes that are shown if the standard form is too long."""
_FRAMES = 20
"""Frames shown of each of those."""


def plain(text: str, limit: int = MESSAGE) -> str:
    """`text` as an exact `str` of at most `limit` characters that can be written as UTF-8."""
    cut = str.__getitem__(text, slice(limit))  # of an instance of a subclass, what it really holds
    try:
        cut.encode()
    except UnicodeEncodeError:
        return cut.encode("utf-8", "backslashreplace").decode()[:limit]
    return cut


def message_of(value: object, limit: int = MESSAGE) -> str:
    """`str(value)`, whatever that does."""
    return _told(str, value, limit)


def shown(value: object, limit: int = MESSAGE) -> str:
    """`repr(value)`, whatever that does."""
    return _told(repr, value, limit)


def name_of_class(cls: type) -> str:
    """`module.Class`."""
    module, name = getattr(cls, "__module__", ""), getattr(cls, "__qualname__", "")
    return plain(f"{module}.{name}", 300)


def traceback_of(error: BaseException, limit: int = TRACEBACK) -> str:
    """The traceback with its causes, at most `limit` characters: the end if it is longer."""
    chain = _chain(error)
    messages = [message_of(each, MESSAGE + 1) for each in chain]
    if all(len(message) <= MESSAGE for message in messages):
        try:
            text = "".join(traceback.format_exception(error))
            return plain(text[-limit:], limit)
        except BaseException:  # noqa: BLE001  (a value in it does not let itself be shown: the plain form does not ask it)
            return plain(_briefly(chain, messages)[-limit:], limit)
    # The standard form would hold a message of any length in full, and so nothing else after the cut.
    return plain(_briefly(chain, messages)[-limit:], limit)


def place_of(traceback_text: str) -> str:
    """Where an error was raised, out of its traceback: the last line of the user's own code, `jobs.py:12 in pay`.

    Frames of this package, of installed ones and of the standard library come second.
    """
    frames = _FRAME.findall(traceback_text)
    own = [frame for frame in frames if not frame[0].startswith(_OTHERS) and "site-packages" not in frame[0]]
    if not frames:
        return ""
    file, line, function = (own or frames)[-1]
    return plain(f"{file}:{line} in {function}", 300)


def _briefly(chain: list[BaseException], messages: list[str]) -> str:
    parts = []
    for error, message in zip(reversed(chain), reversed(messages), strict=True):
        frames = "".join(traceback.format_tb(error.__traceback__, -_FRAMES))
        parts.append(f"Traceback (most recent call last):\n{frames}{name_of_class(type(error))}: {message[:MESSAGE]}\n")
    return "\n".join(parts)


def _chain(error: BaseException) -> list[BaseException]:
    """The exception, what it came from, and so on."""
    chain = [error]
    while len(chain) < _CHAIN:
        before = chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__)
        if before is None or any(before is known for known in chain):
            break
        chain.append(before)
    return chain


def _told(ask: Callable[[object], object], value: object, limit: int) -> str:
    try:
        text = ask(value)
    except BaseException as error:  # noqa: BLE001  (the value's own code)
        return f"<{name_of_class(type(value))} that cannot be shown: {name_of_class(type(error))}>"
    return plain(text, limit) if isinstance(text, str) else f"<{name_of_class(type(value))} that is not shown as text>"


def count(amount: int, noun: str) -> str:
    """`1 broker`, `3 brokers`, `12,000 brokers`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
