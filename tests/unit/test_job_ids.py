"""Ids: those that are made tell their time, those that are chosen are refused with what is wrong."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import NameInvalid
from processor.job_ids import (
    checked_id,
    checked_idempotency_key,
    checked_key,
    checked_type,
    made_at,
    scheduled_id,
    uuid7,
)

MOMENTS = st.integers(0, 2**48 - 1)


@given(MOMENTS, st.binary(min_size=10, max_size=12))
def test_a_fresh_id_is_a_uuid_of_version_7_and_tells_when_it_was_made(now_ms: int, random: bytes) -> None:
    made = uuid7(now_ms, random)
    read = uuid.UUID(made)
    assert (read.version, read.variant, str(read)) == (7, uuid.RFC_4122, made)
    assert made_at(made) == now_ms
    assert checked_id(made) == made


@given(MOMENTS, MOMENTS)
def test_ids_sort_by_the_time_they_were_made(one: int, other: int) -> None:
    if one != other:
        assert (uuid7(one) < uuid7(other)) is (one < other)


def test_many_ids_of_one_moment_differ() -> None:
    assert len({uuid7(5) for _ in range(5_000)}) == 5_000, "over several fills of the pool"


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_other_random_bits_give_another_id(one: bytes, other: bytes) -> None:
    """But for six bits that say which kind of UUID it is."""
    same = uuid7(1, one) == uuid7(1, other)
    assert not same or sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True)) <= 6


@given(st.text(max_size=30), MOMENTS)
def test_a_schedules_run_has_one_id_that_tells_its_instant(name: str, instant: int) -> None:
    made = scheduled_id(name, instant) if _encodes(name) else None
    if made is not None:
        assert made == scheduled_id(name, instant)
        assert made_at(made) == instant
        assert made != scheduled_id(f"{name}x", instant)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


FRESH = "00000000-0005-76d7-9fa6-035f43a8c818"


@pytest.mark.parametrize(
    "job_id",
    [
        "order-7",
        "",
        "5b34f99b-5d90-46a6-898a-96f6bd903411",  # of version 4
        FRESH.upper(),
        FRESH.replace("-", ""),
        f"{FRESH} ",
        f"{FRESH}\n",
        "01234567-89ab-7def-7123-456789abcdef",  # of another variant
    ],
)
def test_an_id_that_is_no_fresh_one_tells_no_time(job_id: str) -> None:
    assert made_at(job_id) is None


class Text(str):
    __slots__ = ()


LONG = "ü" * 128
"""256 bytes in 128 characters."""


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "it is empty"),
        ("a#b", "it holds a '#'"),
        (LONG, "it takes 256 bytes, 255 are allowed"),
        ("a\nb", "it holds the control character '\\n'"),
        ("a\x7f", "it holds the control character '\\x7f'"),
        ("a\x85", "it holds the control character '\\x85'"),
        ("a\ud800", "it holds half a surrogate pair"),
        (7, "it is of type int, not a str"),
        (None, "it is of type NoneType, not a str"),
        (b"a", "it is of type bytes, not a str"),
        (uuid.UUID(int=7), "it is of type UUID, not a str"),
    ],
)
def test_a_bad_id_is_refused_with_its_fault(value: Any, told: str) -> None:
    with pytest.raises(NameInvalid, match="cannot be the id of a job") as caught:
        checked_id(value)
    assert told in str(caught.value)
    assert "at most 255 bytes" in caught.value.hint
    str(caught.value).encode()


@pytest.mark.parametrize("value", ["x", "ü" * 127, "a b", "käse/ß", "\N{SNOWMAN}", Text("order-7"), "key-1", "%"])
def test_what_can_be_an_id_is_kept_as_plain_text(value: str) -> None:
    assert type(checked_id(value)) is str
    assert checked_id(value) == str(value)


@pytest.mark.parametrize(
    ("check", "limit", "what", "hint"),
    [
        (checked_key, 1024, "an ordering key", "key= must return one for every payload"),
        (checked_idempotency_key, 1024, "an idempotency key", "use what names the wish"),
        (checked_type, 255, "the name of a job type", "use something like import.file"),
    ],
)
def test_keys_and_types_have_their_own_limits_and_hints(check: Any, limit: int, what: str, hint: str) -> None:
    assert check("x" * limit) == "x" * limit
    assert check("a#b") == "a#b", "only ids end at a #"
    assert type(check(Text("k"))) is str
    for value, told in (
        ("x" * (limit + 1), f"it takes {limit + 1:,} bytes, {limit:,} are allowed"),
        (None, "NoneType"),
    ):
        with pytest.raises(NameInvalid, match=f"cannot be {what}") as caught:
            check(value)
        assert told in str(caught.value)
        assert hint in caught.value.hint


def test_a_value_that_cannot_be_shown_is_refused_all_the_same() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(NameInvalid, match="cannot be shown"):
        checked_id(Hostile())
