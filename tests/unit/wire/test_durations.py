"""Lengths of time as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import DefinitionError, SettingsError
from processor.wire.durations import format_duration, moment, parse_duration, span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("7d", 604800),
        ("1 h 30 m", 5400),
        ("2w", 1209600),
        ("1.5h", 5400),
        ("90", 90),
        (" 5M ", 300),
        ("0", 0),
        ("0.25", 0.25),
    ],
)
def test_it_reads(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_numbers_are_seconds() -> None:
    assert parse_duration(2) == 2.0
    assert parse_duration(0.5) == 0.5
    assert parse_duration(timedelta(minutes=2)) == 120


@pytest.mark.parametrize("nonsense", ["", "soon", "-5s", "5 parsecs", "5s5", "1e5", "nan", "inf", "s", "٣s٣"])
def test_nonsense_is_refused_with_examples(nonsense: str) -> None:
    with pytest.raises(DefinitionError, match=r"^kill_after: ") as caught:
        parse_duration(nonsense, name="kill_after")
    assert "1h30m" in caught.value.hint


@pytest.mark.parametrize("nonsense", [-1, float("nan"), float("inf"), True, None, [], timedelta(-1)])
def test_wrong_values_are_refused(nonsense: object) -> None:
    with pytest.raises(SettingsError):
        parse_duration(nonsense, error=SettingsError)  # type: ignore[arg-type]  # what an untyped caller may give


@given(st.integers(0, 10**10))
def test_formatted_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


def test_it_formats_short() -> None:
    assert [format_duration(s) for s in (0, 0.25, 90, 86_400)] == ["0s", "250ms", "1m30s", "1d"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.9, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7_199, "119m"),
        (7_200, "2h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (400 * 86_400, "400d"),
    ],
)
def test_a_span_has_one_unit_that_hides_less_than_half(seconds: float, text: str) -> None:
    assert span(seconds) == text


@given(st.integers(1, 10**9))
def test_a_span_reads_back_as_not_more_and_more_than_half(seconds: int) -> None:
    assert seconds / 1.5 < parse_duration(span(seconds)) <= seconds


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, "-"),
        (0, "1970-01-01 00:00:00Z"),
        (1_999, "1970-01-01 00:00:01Z"),
        (-1, "1969-12-31 23:59:59Z"),
        (253_402_300_799_999, "9999-12-31 23:59:59Z"),
        (253_402_300_800_000, "253402300800000"),
        (-(10**18), str(-(10**18))),
        (10**400, str(10**400)),
    ],
)
def test_a_moment_is_shown_in_utc_or_as_it_is(at: int | None, text: str) -> None:
    assert moment(at) == text
