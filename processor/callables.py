"""What a function of the user's is, decided once, when it is declared: to be called, or to be awaited."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

from processor.errors import DefinitionError, HandlerMistake, ProcessorError
from processor.texts import name_of_class, shown


def kind_of(function: Callable[..., Any], what: str) -> Literal["sync", "async"]:
    """`async` if what the function gives must be awaited: an `async def`, also behind `functools.wraps`, a partial or
    an object's `__call__`.

    Args:
        what: names it in an error: "the handler of job type import.file".

    Raises:
        DefinitionError: it cannot be called, or it is a generator.
    """
    if not callable(function):
        raise DefinitionError(f"{what} is {shown(function, 100)}, which cannot be called", hint="give a function")
    faces = _faces(function)
    if any(inspect.isgeneratorfunction(face) or inspect.isasyncgenfunction(face) for face in faces):
        raise DefinitionError(
            f"{what} is a generator: calling it would run nothing of it",
            hint="return a value instead of yielding; loop over ctx.each inside",
        )
    return "async" if any(inspect.iscoroutinefunction(face) for face in faces) else "sync"


def refuse_async(function: Callable[..., Any], what: str) -> None:
    """Refuse a function that would have to be awaited where nobody can.

    Raises:
        DefinitionError: it is one, or cannot be called.
    """
    if kind_of(function, what) == "async":
        raise DefinitionError(
            f"{what} is an async function, and nobody could await it there",
            hint="make it a def; what must be awaited belongs into the handler",
        )


def refuse_awaitable(
    result: object,
    what: str,
    *,
    error: type[ProcessorError] = HandlerMistake,
    hint: str = "make the handler an `async def`, where steps may be too; a decorator around one needs functools.wraps",
) -> None:
    """Refuse what a `def` gave if it must be awaited: what it stands for has not run.

    Raises:
        HandlerMistake, or `error`: it must.
    """
    if not hasattr(type(result), "__await__"):
        return
    if inspect.iscoroutine(result):
        result.close()  # else Python complains later, somewhere else, that it was never awaited
    raise error(
        f"{what} returned something that must be awaited ({name_of_class(type(result))}): its work has not been done",
        hint=hint,
    )


def refuse_async_items(items: object, loop: str) -> None:
    """Refuse what the source of a loop gave if only an async handler could go through it.

    Raises:
        HandlerMistake: it could.
    """
    refuse_awaitable(items, f"the source of loop {loop!r}", hint="make it a def, or the handler an `async def`")
    if hasattr(type(items), "__aiter__"):
        raise HandlerMistake(
            f"the source of loop {loop!r} gave an async iterable ({name_of_class(type(items))})",
            hint="loop over it in an `async def` handler, or give a source that is a def",
        )


def _faces(function: Callable[..., Any]) -> list[Any]:
    """The function, and what it wraps."""
    faces: list[Any] = [function]
    while len(faces) < 20:
        face = faces[-1]
        if isinstance(face, functools.partial | functools.partialmethod):
            inner: Any = face.func
        elif hasattr(face, "__wrapped__"):
            inner = face.__wrapped__
        elif not isinstance(face, type) and not inspect.isroutine(face) and hasattr(type(face), "__call__"):  # noqa: B004  (wanted: the method)
            inner = type(face).__call__
        else:
            break
        if inner is face:
            break
        faces.append(inner)
    return faces
