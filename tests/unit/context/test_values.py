"""Figures, counts and return annotations, as handlers give them."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Never, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from processor.context.values import (
    BIG,
    ResultCodec,
    codec_of,
    decode_cursor,
    encode_cursor,
    encode_result,
    figure,
    return_type,
    whole,
)
from processor.errors import CheckpointTooLarge, CursorType, NameNotAllowed, ResultTooLarge, ResultType

if TYPE_CHECKING:
    from pathlib import Path


class Odd:
    def __float__(self) -> float:
        raise SystemExit("no")


@pytest.mark.parametrize(
    ("given", "number"),
    [(3, 3.0), (0.5, 0.5), (-1, -1.0), (True, 1.0), (Decimal("2.5"), 2.5), (Fraction(1, 4), 0.25), (10**300, 1e300)],
)
def test_whatever_a_handler_counts_in_is_a_float(given: Any, number: float) -> None:
    told = figure(given, "done")
    assert (type(told), told) == (float, number)


@pytest.mark.parametrize(
    "wrong", [None, "3", b"3", bytearray(b"3"), float("nan"), float("-inf"), 10**400, [], Odd(), 1j]
)
def test_what_is_no_finite_number_is_told_with_its_place(wrong: Any) -> None:
    with pytest.raises(NameNotAllowed, match=r"progress: total is .* not a finite number") as caught:
        figure(wrong, "total")
    assert "ctx.progress" in caught.value.hint


@given(st.integers(0, BIG - 1))
def test_a_count_is_kept_exactly(count: int) -> None:
    assert whole(count, "total=") == count


@pytest.mark.parametrize(("given", "count"), [(3.0, 3), (True, 1), (Decimal(7), 7)])
def test_a_count_may_come_as_another_number(given: Any, count: int) -> None:
    told = whole(given, "total=")
    assert (type(told), told) == (int, count)


@pytest.mark.parametrize("wrong", [-1, 0.5, BIG, 1e300, "3", None, float("nan"), 10**400])
def test_what_is_no_count_is_refused(wrong: Any) -> None:
    with pytest.raises(NameNotAllowed, match="total= of loop 'rows'"):
        whole(wrong, "total= of loop 'rows'")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


def same(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@given(SCALARS | st.lists(SCALARS, max_size=4))
def test_a_cursor_that_is_taken_comes_back_as_it_is(cursor: Any) -> None:
    assert same(decode_cursor(encode_cursor(cursor, 10**6)), cursor)


@pytest.mark.parametrize(
    "wrong", [(1, 2), [[1]], {"a": 1}, {1}, b"x", float("nan"), [float("inf")], Decimal(1), object(), 1 << 10_001]
)
def test_a_cursor_that_would_come_back_as_another_is_refused(wrong: Any) -> None:
    with pytest.raises(CursorType, match="would not come back from JSON as it is") as caught:
        encode_cursor(wrong, 10**6)
    assert "a tuple as list(value)" in caught.value.hint


def test_the_limit_of_a_cursor_counts_its_json() -> None:
    assert encode_cursor("x" * 8, 10) == '"xxxxxxxx"'
    with pytest.raises(CheckpointTooLarge, match="the cursor takes 11 bytes, 10 are allowed"):
        encode_cursor("x" * 9, 10)
    with pytest.raises(CheckpointTooLarge, match="the cursor takes 14 bytes"):
        encode_cursor("\N{SNOWMAN}\N{SNOWMAN}", 10)
    assert decode_cursor(None) is None


# -- what functions return ---------------------------------------------------------------------------------------------


class Tally(BaseModel):
    good: int = 0


@dataclass
class Callee:
    """An object with annotations of its fields, which say nothing of what calling it returns."""

    by: int = 1

    def __call__(self) -> list[int]:
        return [self.by]

    def method(self) -> Tally:
        return Tally()

    @classmethod
    def made(cls) -> dict[str, int]:
        return {}

    @staticmethod
    def still() -> float:
        return 0.5


class Heir(Callee):
    more: str = ""


def plain() -> int:
    return 1


def untold():  # type: ignore[no-untyped-def]
    return 1


def never() -> NoReturn:
    raise SystemExit


def bound() -> Annotated[int, "meters"]:
    return 1


def late() -> Later:
    return Later()


class Later(BaseModel):
    x: int = 1


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


def hidden() -> Path:
    raise AssertionError


def broken() -> NoSuchThing:  # type: ignore[name-defined]  # noqa: F821  (wrong on purpose)
    raise AssertionError


@pytest.mark.parametrize(
    ("function", "annotation"),
    [
        (plain, int),
        (untold, Any),
        (lambda: 1, Any),
        (never, None),
        (bound, Annotated[int, "meters"]),
        (late, Later),
        (functools.partial(functools.partial(plain)), int),
        (Callee(), list[int]),
        (Heir(), list[int]),
        (functools.lru_cache(plain), int),
        (Callee().method, Tally),
        (Callee.made, dict[str, int]),
        (Callee.still, float),
        (wrapped(plain), int),
        (functools.partial(Callee().method), Tally),
        (len, Any),
    ],
)
def test_a_return_annotation_is_found_behind_what_stands_before_it(function: Any, annotation: Any) -> None:
    assert return_type(function) == annotation


@pytest.mark.parametrize(
    ("function", "told"),
    [(hidden, r"hidden\(\) cannot be resolved: NameError: name 'Path'"), (broken, "name 'NoSuchThing' is not defined")],
)
def test_an_annotation_that_cannot_be_resolved_is_told(function: Any, told: str) -> None:
    with pytest.raises(ResultType, match=told) as caught:
        return_type(function)
    assert "not under TYPE_CHECKING" in caught.value.hint


def test_never_is_as_good_as_no_return() -> None:
    def gives(value: Any) -> Never:
        raise SystemExit

    assert return_type(gives) is None


@pytest.mark.parametrize(
    ("function", "value"),
    [(plain, 7), (Callee(), [1, 2]), (Callee().method, Tally(good=3)), (Tally, Tally(good=4)), (untold, {"a": [None]})],
)
def test_a_result_comes_back_through_the_annotation(function: Any, value: Any) -> None:
    codec = codec_of(function)
    assert codec.decode(codec.encode(value)) == value


def test_the_codec_of_a_function_is_made_once() -> None:
    assert codec_of(plain) is codec_of(plain)
    assert codec_of(Callee().method) is codec_of(Callee().method), "of a method as of its function"


def test_none_is_nothing_whatever_else_could_be_returned() -> None:
    for annotation in (None, int | None, Any):
        codec = ResultCodec(annotation, "f()")
        for _ in range(2):  # the second time it is known
            assert encode_result(codec, None, 10) is None
        assert codec.decode("null") is None
    with pytest.raises(ResultType):
        encode_result(ResultCodec(int, "f()"), None, 10)


def test_a_result_over_the_limit_says_both_sizes() -> None:
    codec = ResultCodec(str, "f()")
    assert encode_result(codec, "x" * 8, 10) == b'"xxxxxxxx"'
    with pytest.raises(ResultTooLarge, match="the result takes 11 bytes, 10 are allowed") as caught:
        encode_result(codec, "x" * 9, 10)
    assert "result_max_bytes" in caught.value.hint


def test_what_can_never_be_a_result_is_refused_before_anything_ran() -> None:
    with pytest.raises(ResultType, match=r"^what f\(\) is annotated to return: "):
        ResultCodec(Callable[[], Awaitable[int]], "f()")
