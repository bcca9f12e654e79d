"""Text out of values that cannot be trusted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.texts import MESSAGE, TRACEBACK, count, message_of, name_of_class, place_of, plain, shown, traceback_of
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


class Sliced(str):
    """Text of a library that does not let itself be cut."""

    __slots__ = ()

    def __getitem__(self, place: object) -> str:
        raise RuntimeError("no")

    def __str__(self) -> str:
        return self


@pytest.mark.parametrize("tell", [message_of, lambda value: plain(value, 2)])
def test_text_is_what_it_holds_whatever_its_class_does(tell: Callable[[str], str]) -> None:
    told = tell(Sliced("ab"))
    assert (type(told), told) == (str, "ab")
    assert traceback_of(ValueError(Sliced("ab"))).endswith("ValueError: ab\n")


@pytest.mark.parametrize(
    ("traceback", "place"),
    [
        ("", ""),
        ("ValueError: x\n", ""),
        ('Traceback:\n  File "/app/jobs.py", line 12, in pay\n    x()\nValueError', "/app/jobs.py:12 in pay"),
        (
            '  File "/app/jobs.py", line 1, in pay\n  File "/x/site-packages/lib.py", line 2, in get\n',
            "/app/jobs.py:1 in pay",
        ),
        ('  File "/x/site-packages/lib.py", line 2, in get\n', "/x/site-packages/lib.py:2 in get"),
        ('  File "/app/a.py", line 1, in a\n  File "<frozen importlib>", line 2, in b\n', "/app/a.py:1 in a"),
        ('  + File "/app/a.py", line 1, in a\n  | File "/app/b.py", line 2, in b\n', "/app/b.py:2 in b"),
        ('said: File "/app/a.py", line 1, in a\n', ""),
    ],
)
def test_the_place_of_an_error_is_the_last_line_of_the_users_own_code(traceback: str, place: str) -> None:
    assert place_of(traceback) == place


@pytest.mark.parametrize(
    ("amount", "told"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (12_000, "12,000 jobs"), (-1, "-1 jobs")]
)
def test_things_are_counted_in_words(amount: int, told: str) -> None:
    assert count(amount, "job") == told


def test_endless_chain_of_causes_ends() -> None:
    error = ValueError("z" * 5000)
    other = KeyError()
    error.__cause__, other.__cause__ = other, error
    assert "ValueError" in traceback_of(error)
