"""Keys of the checkpoint topic can be read in one way only, and of two records of a job the later one always wins."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.checkpoint import (
    NUMBER_KEY,
    KeyKind,
    ParsedKey,
    job_key,
    order_of,
    parse_key,
    progress_key,
    signal_key,
    step_key,
)
from processor.errors import UndecodableRecord
from processor.job import StepPhase, Version
from processor.states import State
from processor.wire.records import CheckpointRecord, LiveJobRecord, StepRecord

quick = settings(max_examples=200, derandomize=True, deadline=None)
ids = st.text(min_size=1, max_size=40).filter(lambda text: "#" not in text and _is_utf8(text))
names = st.text(max_size=40).filter(lambda text: _is_utf8(text))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Made(NamedTuple):
    key: bytes
    means: ParsedKey


def keys_of(job_id: str, name: str) -> list[Made]:
    """One of each kind."""
    return [
        Made(progress_key(job_id), ParsedKey(KeyKind.PROGRESS, job_id, "")),
        Made(step_key(job_id, name), ParsedKey(KeyKind.STEP, job_id, name)),
        Made(job_key(job_id), ParsedKey(KeyKind.JOB, job_id, "")),
        Made(signal_key(job_id, name), ParsedKey(KeyKind.SIGNAL, job_id, name)),
    ]


@quick
@given(ids, names)
def test_a_key_is_read_as_it_was_made(job_id: str, name: str) -> None:
    for made in keys_of(job_id, name):
        assert parse_key(made.key) == made.means


@quick
@given(st.tuples(ids, names), st.tuples(ids, names))
def test_equal_keys_are_of_the_same_thing(one: tuple[str, str], other: tuple[str, str]) -> None:
    for left in keys_of(*one):
        for right in keys_of(*other):
            assert (left.key == right.key) == (left.means == right.means)


def test_the_mark_of_a_number_is_no_jobs_key() -> None:
    assert parse_key(NUMBER_KEY) == ParsedKey(KeyKind.NUMBER, "", "")


@pytest.mark.parametrize("name", ["a/b", "rows[5]/x", "job", "step:x", "#", "a#job", "signal:y"])
def test_the_name_of_a_step_may_hold_anything(name: str) -> None:
    assert parse_key(step_key("j", name)) == ParsedKey(KeyKind.STEP, "j", name)


@pytest.mark.parametrize(
    "key", [b"", b"#", b"#job", b"#step:x", b"j#", b"j#jobs", b"j#step", b"j#x:y", b"\xff", b"j\xff#job"]
)
def test_what_is_no_key_of_ours_is_told(key: bytes) -> None:
    with pytest.raises(UndecodableRecord):
        parse_key(key)


@pytest.mark.parametrize("job_id", ["", "#", "a#b", "a#job"])
def test_no_key_is_made_of_what_is_no_id(job_id: str) -> None:
    for make in (progress_key, job_key, lambda i: step_key(i, "x"), lambda i: signal_key(i, "x")):
        with pytest.raises(ValueError, match="'#'"):
            make(job_id)


versions = st.builds(Version, st.integers(1, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


@quick
@given(st.lists(versions, min_size=1, max_size=6))
def test_records_of_every_kind_have_the_place_that_they_say(orders: list[Version]) -> None:
    for version in orders:
        progress = CheckpointRecord("j", *version, 1, "shop.jobs.q", 5, 1)
        step = StepRecord("j", *version, "s", StepPhase.FINISHED, "1", None)
        whole = LiveJobRecord("j", *version, b"", "shop.jobs.q", 5, 1, State.RUNNING, "", None)
        assert order_of(progress) == order_of(step) == order_of(whole) == version
    assert max(orders) == max(orders, key=lambda v: (v.life, v.hop, v.epoch, v.sequence))
