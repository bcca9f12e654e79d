"""Where a handler is that does not listen: what its thread, or its coroutine, is doing right now, as a traceback."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from processor.texts import TRACEBACK, plain

_DEEPEST = 1000
"""Frames that are looked at of one thread."""


def stack_through(function: Callable[..., Any], argument: object) -> str:
    """The stack of the thread that runs `function` with this argument among its variables; empty if none does.

    Only looked for when it is needed: noting the thread of each attempt would cost every short job something.
    """
    code: CodeType = function.__code__
    for top in list(sys._current_frames().values()):
        if _calls(top, code, argument):
            return _text(traceback.format_stack(top))
    return ""


def stack_of_task(task: asyncio.Task[Any]) -> str:
    """Where a coroutine waits, its callers first; may be asked from another thread."""
    summary: list[str] = []
    waits: Any = task.get_coro()
    for _ in range(_DEEPEST):
        frame = getattr(waits, "cr_frame", None)
        if frame is None:
            break
        summary += traceback.format_stack(frame, 1)
        waits = waits.cr_await
    return _text(summary)


def _calls(top: FrameType, code: CodeType, argument: object) -> bool:
    frame: FrameType | None = top
    for _ in range(_DEEPEST):
        if frame is None:
            return False
        if frame.f_code is code:
            return any(value is argument for value in frame.f_locals.values())
        frame = frame.f_back
    return False


def _text(lines: list[str]) -> str:
    text = plain("".join(lines)[-TRACEBACK:], TRACEBACK)
    return f"Traceback (most recent call last):\n{text}" if text else ""
