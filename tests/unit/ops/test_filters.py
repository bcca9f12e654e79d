"""The one filter language: what can be written is read back, and anything else is an error that says what to write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.ops.errors import FilterInvalid
from processor.ops.filters import NAMES, Condition, Filter, parse, quoted

NOW = 1_767_225_600_000


def test_names_values_and_words() -> None:
    found = parse('state:dead,retrying type:order.* order_id:"7,8" "Jane Doe" abc', NOW, ["order_id"])
    assert found.conditions == (
        Condition(name="state", values=("dead", "retrying")),
        Condition(name="type", values=("order.*",)),
        Condition(name="order_id", values=("7,8",)),
        Condition(name="", values=("Jane Doe",)),
        Condition(name="", values=("abc",)),
    )
    assert found.of("state") == ("dead", "retrying")
    assert found.of("queue") == ()
    assert parse("  ", NOW) == Filter()


def test_times() -> None:
    assert parse("since:2h", NOW).since == NOW - 7_200_000
    assert parse("until:2026-01-01", NOW).until == NOW
    assert parse('since:"2026-01-01T01:00:00+01:00"', NOW).since == NOW
    with pytest.raises(FilterInvalid, match="no moment"):
        parse("since:yesterday", NOW)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour:red", "nothing can be filtered by 'colour'"),
        ("state:broken", "no state 'broken'"),
        ('"open', "cannot be read from"),
        ("state:dead,", "cannot be read from"),
        ("state:", "cannot be read from"),
        ("x" * 1001, "1001 characters"),
    ],
)
def test_what_cannot_be_read_says_so(text: str, message: str) -> None:
    with pytest.raises(FilterInvalid, match=message) as error:
        parse(text, NOW)
    assert error.value.hint


@given(st.text(max_size=80))
def test_any_text_is_a_filter_or_a_named_error(text: str) -> None:
    try:
        found = parse(text, NOW)
    except FilterInvalid:
        return
    assert all(condition.name in (*NAMES, "") for condition in found.conditions)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), min_size=1, max_size=5))
def test_a_quoted_value_is_read_back(values: list[str]) -> None:
    text = "key:" + ",".join(map(quoted, values))
    assert parse(text, NOW).of("key") == tuple(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id:" + ",".join(map(str, range(51))), "51 values of id"),
        (",".join("abcdefghij"[n % 10] for n in range(51)), "51 values of one term"),
        ("since:2h,3h", "since is given twice"),
        ("until:2h until:3h", "until is given twice"),
        ("since:99999999999d", "no moment"),
        ("until:" + "9" * 400 + "d", "no moment"),
    ],
)
def test_nothing_of_a_filter_is_left_out_or_overflows_in_silence(text: str, message: str) -> None:
    with pytest.raises(FilterInvalid, match=message) as error:
        parse(text, NOW)
    assert error.value.hint


def test_fifty_values_are_all_meant() -> None:
    assert len(parse("id:" + ",".join(map(str, range(50))), NOW).of("id")) == 50
