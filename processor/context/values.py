"""Cursors and results as JSON, checked so that what is read back is what was saved."""

from __future__ import annotations

import functools
import inspect
import json
import math
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from processor.errors import (
    CheckpointTooLarge,
    CursorType,
    DefinitionError,
    NameNotAllowed,
    ResultTooLarge,
    ResultType,
)
from processor.texts import message_of, shown
from processor.typed_json import TypedJson, Unfaithful

M = TypeVar("M", bound=BaseModel)

_dumps = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode
_SCALARS = frozenset({str, int, float, bool, type(None)})
_SHOWN = 200
BIG = 1 << 63
_BITS = 10_000
"""Of the largest int in a cursor."""
_CURSOR_HINT = (
    "use a str, int, float or bool, or a flat list of them: a date as value.isoformat(), a tuple as list(value)"
)


def byte_length(text: str) -> int:
    """Length of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def figure(value: object, what: str) -> float:
    """A number as a plain float: whatever a handler counts in.

    Raises:
        NameNotAllowed: it is none, or not finite.
    """
    if type(value) is float or type(value) is int:
        number: Any = value
    else:
        number = None if isinstance(value, str | bytes | bytearray) else value
    try:
        plain = float(number)
    except BaseException:  # noqa: BLE001  (the value's own code)
        plain = math.nan
    if not math.isfinite(plain):
        raise NameNotAllowed(
            f"progress: {what} is {_shown(value)} ({type(value).__name__}), not a finite number",
            hint="give ctx.progress numbers: done, and total if it is known",
        )
    return plain


def whole(value: object, what: str) -> int:
    """A count as a plain int.

    Raises:
        NameNotAllowed: it is none.
    """
    number = value if type(value) is int else figure(value, what)  # a large int is no float
    if number != int(number) or not 0 <= number < BIG:
        raise NameNotAllowed(f"{what} is {_shown(value)}, no count of items", hint="give a whole number, or none")
    return int(number)


def encode_cursor(value: object, limit: int) -> str:
    """JSON of a cursor.

    Raises:
        CursorType: it would not come back as it is.
        CheckpointTooLarge: it is longer than `limit` bytes.
    """
    if type(value) is int and -BIG < value < BIG:
        return str(value)
    if not _is_cursor(value):
        raise CursorType(
            f"{_shown(value)} ({type(value).__name__}) cannot be a cursor: it would not come back from JSON as it is",
            hint=_CURSOR_HINT,
        )
    text = _dumps(value)
    if len(text) > limit:
        raise too_large("the cursor", len(text), limit)
    return text


def _is_cursor(value: object) -> bool:
    if type(value) is list:
        return all(type(part) in _SCALARS and _is_finite(part) for part in value)
    return type(value) in _SCALARS and _is_finite(value)


def _is_finite(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    # Python itself refuses to read back numbers of thousands of digits.
    return type(value) is not int or value.bit_length() <= _BITS


def decode_cursor(text: str | None) -> Any:
    """The cursor of a JSON text; None for none."""
    return None if text is None else json.loads(text)


def too_large(what: str, size: int, limit: int) -> CheckpointTooLarge:
    """The error for something that would make a checkpoint too large."""
    return CheckpointTooLarge(
        f"{what} takes {size:,} bytes, {limit:,} are allowed",
        hint="keep the data in a file, bucket or table and save its name; or raise checkpoint_max_bytes",
    )


class ResultCodec:
    """Writes and reads what a function returns, by its return annotation."""

    def __init__(self, returns: Any, owner: str) -> None:
        self._owner = owner
        self._none_survives = False
        try:
            self._json = TypedJson(returns, f"what {owner} is annotated to return")
        except DefinitionError as error:
            raise ResultType(str(error), hint=error.hint) from error

    def encode(self, value: object) -> str:
        """JSON of `value`.

        Raises:
            ResultType: it does not survive the way to JSON and back.
        """
        if value is None and self._none_survives:
            return "null"
        try:
            text = self._json.encode(value).decode()
        except Unfaithful as error:
            raise self._mistake(value, str(error)) from error
        # What most handlers return: asked for the first time only (1.3 us less for each job).
        if value is None and text == "null":
            self._none_survives = True
        return text

    def decode(self, text: str) -> Any:
        """The value that was saved as `text`.

        Raises:
            ResultType: the annotation has changed since, and does not accept it.
        """
        try:
            return self._json.load(text)
        except ValidationError as error:
            raise ResultType(
                f"the saved result of {self._owner} cannot be read back as its annotation says: {error}",
                hint="keep the annotation able to read what older code saved: give new fields a default",
            ) from error

    def _mistake(self, value: object, why: str) -> ResultType:
        return ResultType(
            f"the result of {self._owner}, {_shown(value)} ({type(value).__name__}), does not survive JSON: {why}",
            hint="annotate the function's return type with what it really returns: a pydantic model, a dataclass or "
            "plain JSON values",
        )


_codecs: weakref.WeakKeyDictionary[Any, ResultCodec] = weakref.WeakKeyDictionary()


def codec_of(function: Callable[..., Any]) -> ResultCodec:
    """The codec of what `function` returns; kept per function, found anew for each lambda and partial."""
    target = _annotated(function)
    try:
        known = _codecs.get(target)
    except TypeError:  # not hashable, or no weak references
        return _build_codec(target)
    if known is None:
        known = _codecs[target] = _build_codec(target)
    return known


def _annotated(function: Callable[..., Any]) -> Any:
    """Where the return annotation is found: behind partials, methods and callable objects; a class returns itself."""
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    target = getattr(target, "__func__", target)
    own = getattr(target, "__annotations__", None)
    if isinstance(target, type) or (own is not None and all(own is not each for each in _of_class(target))):
        return target
    return getattr(type(target), "__call__", target)  # noqa: B004  (wanted: the method, to read its annotation)


def _of_class(target: object) -> list[Any]:
    """Annotations of an object's class, which an object without any of its own answers with: those of its fields."""
    return [vars(cls).get("__annotations__") for cls in type(target).__mro__]


def _build_codec(target: Any) -> ResultCodec:
    name = f"{getattr(target, '__qualname__', target)}()"
    return ResultCodec(target if isinstance(target, type) else return_type(target), name)


def return_type(function: Callable[..., Any]) -> Any:
    """The resolved return annotation of a function, also behind a partial or an object's `__call__`; Any if it has
    none, None if it says that it never returns.

    Only that annotation is resolved: `ctx: Context` may well be imported under TYPE_CHECKING.

    Raises:
        ResultType: the annotation names something that cannot be found.
    """
    function = _annotated(function)
    try:
        annotations = getattr(function, "__annotations__", {})
        if "return" not in annotations:
            return Any
        if not isinstance(annotations["return"], str):
            return _returned(annotations["return"])
        lone = types.SimpleNamespace(__annotations__={"return": annotations["return"]})
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        return _returned(typing.get_type_hints(lone, scope, include_extras=True)["return"])
    except Exception as error:  # an annotation is any expression, and is evaluated only now
        raise ResultType(
            f"the return annotation of {getattr(function, '__qualname__', function)}() cannot be resolved: "
            f"{type(error).__name__}: {message_of(error, 300)}",
            hint="import the type at module level, not under TYPE_CHECKING and not inside a function",
        ) from error


def _returned(annotation: Any) -> Any:
    return None if annotation in (typing.NoReturn, typing.Never) else annotation


def restored_state(model: type[M], codec: TypedJson, text: str | None) -> M:
    """The state of a JSON text, a new one for None.

    Raises:
        ResultType: the model cannot be made without values, or does not survive JSON.
    """
    try:
        state: M = model() if text is None else codec.load(text)
        codec.encode(state)
    except (ValidationError, Unfaithful, TypeError) as error:
        what = f"a new {model.__qualname__}()" if text is None else f"the saved state of {model.__qualname__}"
        raise ResultType(
            f"{what} cannot be made, or not be read back: {message_of(error, 500)}",
            hint="give every field of the state a default that JSON can hold, and keep it able to read what older code "
            "saved",
        ) from error
    return state


def encode_result(codec: ResultCodec, value: object, limit: int) -> bytes | None:
    """JSON of what a handler returned; None if it returned None.

    Raises:
        ResultType: it does not survive the way to JSON and back.
        ResultTooLarge: it is longer than `limit` bytes.
    """
    text = codec.encode(value)
    if value is None:
        return None
    data = text.encode()
    if len(data) > limit:
        raise ResultTooLarge(
            f"the result takes {len(data):,} bytes, {limit:,} are allowed",
            hint="put the data into a file, bucket or table and return its name; or raise result_max_bytes",
        )
    return data


def _shown(value: object) -> str:
    text = shown(value, _SHOWN + 1)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
