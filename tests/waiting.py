"""Waiting for something to become true, instead of sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(
    predicate: Callable[[], Found],
    timeout: float = 10.0,
    message: str | Callable[[], str] = "",
    *,
    step: Callable[[], object] | None = None,
) -> Found:
    """Ask until the answer is truthy, and return it.

    Args:
        predicate: Asked again and again.
        timeout: Seconds.
        message: What was waited for; a callable is asked at the end, so it can tell what was there instead.
        step: Done between two questions, for instance polling; without it, a pause of 10 ms.

    Raises:
        AssertionError: it never became true.
    """
    pause = threading.Event()
    deadline = time.monotonic() + timeout
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > deadline:
            said = message() if callable(message) else message
            raise AssertionError(f"not within {timeout:g} s: {said or predicate}")
        if step is None:
            pause.wait(0.01)
        else:
            step()
