"""Text out of values that cannot be trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.texts import MESSAGE, TRACEBACK, message_of, name_of_class, plain, shown, traceback_of
from tests.integration.bad_jobs import RAISED


@given(st.text(alphabet=st.characters(), max_size=50), st.integers(0, 60))
def test_plain_text_is_bounded_and_can_be_written(text: str, limit: int) -> None:
    told = plain(text, limit)
    told.encode()
    assert len(told) <= limit
    assert type(told) is str
    if text.isascii():
        assert told == text[:limit]


@pytest.mark.parametrize("kind", RAISED)
def test_any_exception_can_be_told(kind: str) -> None:
    error = RAISED[kind]()
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001  (panics are none)
        for text in (message_of(raised), shown(raised), name_of_class(type(raised))):
            text.encode()
            assert len(text) <= MESSAGE
        told = traceback_of(raised)
    assert "raise error" in told
    assert type(error).__qualname__ in told
    assert len(told) <= TRACEBACK


def test_causes_are_told_also_when_a_message_is_huge() -> None:
    try:
        try:
            raise KeyError("the first")
        except KeyError as first:
            raise ValueError("y" * 100_000) from first
    except ValueError as second:
        told = traceback_of(second)
    assert "KeyError: 'the first'" in told
    assert "builtins.ValueError: yyy" in told
    assert told.index("the first") < told.index("yyy")


def test_endless_chain_of_causes_ends() -> None:
    error = ValueError("z" * 5000)
    other = KeyError()
    error.__cause__, other.__cause__ = other, error
    assert "ValueError" in traceback_of(error)
