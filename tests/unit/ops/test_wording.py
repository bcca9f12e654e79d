"""How the dashboard writes moments, spans and numbers, whatever a job has put there."""

from __future__ import annotations

import pytest

from processor.ops import wording

NOW = 1_767_225_600_000


@pytest.mark.parametrize(
    ("at", "person", "machine"),
    [
        (None, "-", ""),
        (0, "1970-01-01 00:00:00 UTC", "1970-01-01T00:00:00.000+00:00"),
        (NOW + 1, "2026-01-01 00:00:00 UTC", "2026-01-01T00:00:00.001+00:00"),
        (-1000, "1969-12-31 23:59:59 UTC", "1969-12-31T23:59:59.000+00:00"),
        (2**63 - 1, "9223372036854775807", ""),
        (-(2**63), "-9223372036854775808", ""),
    ],
)
def test_moments(at: int | None, person: str, machine: str) -> None:
    assert (wording.moment(at), wording.iso(at)) == (person, machine)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 seconds"),
        (0.9, "0 seconds"),
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (172_799, "47 hours"),
        (172_800, "2 days"),
        (86_400 * 1500, "1\u202f500 days"),
    ],
)
def test_spans_hide_no_half_of_themselves(seconds: float, text: str) -> None:
    assert wording.span(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, "-"),
        (NOW - 999, "just now"),
        (NOW + 5000, "just now"),
        (NOW - 1000, "1 second ago"),
        (0, "20\u202f454 days ago"),
    ],
)
def test_how_long_ago(at: int | None, text: str) -> None:
    assert wording.ago(at, NOW) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.0, "3"),
        (2.5, "2.5"),
        (-1234567, "-1\u202f234\u202f567"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("amount", "plural", "text"), [(0, "", "0 tries"), (1, "tries", "1 try"), (1200, "tries", "1\u202f200 tries")]
)
def test_counts(amount: int, plural: str, text: str) -> None:
    assert wording.count(amount, "try", plural or "tries") == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("  \n second ", "second"),
        ("one.\ntwo", "one"),
        ("no more...", "no more"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + "…"),
    ],
)
def test_the_first_line_of_a_message(text: str, line: str) -> None:
    assert wording.first_line(text) == line


@pytest.mark.parametrize(
    ("kind", "name"), [("builtins.ValueError", "ValueError"), ("ValueError", "ValueError"), ("", "")]
)
def test_an_exception_is_named_without_its_module(kind: str, name: str) -> None:
    assert wording.short(kind) == name
