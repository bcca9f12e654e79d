"""Jobs that other programs write as JSON: taken as they are, or refused by the name of the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import RecordError, UndecodableRecord
from processor.job import Job
from processor.wire.codec import decode_job, encode
from processor.wire.json_job import completed

SMALL: dict[str, Any] = {"id": "order-7", "type": "import.file"}


def test_every_field_comes_through() -> None:
    job = {**SMALL, "payload": {"url": "x"}, "version": 3, "key": "c-1", "enqueued_at": 17, "kill_at": 99}
    found = decode_job(json.dumps(job).encode())
    assert found == Job("order-7", "import.file", 3, "", b'{"url": "x"}', 17, "c-1", kill_at=99)
    assert decode_job(encode(completed(found, "bulk", 5))) == found._replace(queue="bulk")


def test_what_is_left_out_has_its_default() -> None:
    found = decode_job(b'{"id": "order-7", "type": "import.file"}')
    assert found == Job("order-7", "import.file", 1, "", b"", 0)
    assert completed(found, "bulk", 1234).enqueued_at == 1234
    assert decode_job(b'{"id":"a","type":"t","payload":null,"key":null,"kill_at":null}').payload == b""


def test_the_payload_is_kept_as_the_text_it_is() -> None:
    """A number with more digits than a float has arrives with all of them; so do spaces and the order of names."""
    payload = '{ "b": 12345678901234567890.10, "a":[1e400, 0.10 ] , "\\u00e9": "é" }'
    data = f'{{"type":"t" , "payload" : {payload} , "id":"a"}}\n '.encode()
    assert decode_job(data).payload.decode() == payload


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "no name at character 1"),
        (b"{}", "without 'id'"),
        (b'{"id": "a"}', "without 'type'"),
        (b'{"id": "a", "type": "t"', "neither ','"),
        (b'{"id": "a", "type": "t"} x', "something follows"),
        (b'{"id": "a", "type": "t"}{}', "something follows"),
        (b'{"id": "a" "type": "t"}', "neither ','"),
        (b'{"id": "a", "type": "t",}', "no name"),
        (b'{"id": "a", "id": "b", "type": "t"}', "'id' comes twice"),
        (b'{"id": "a", "type": "t", "payload": NaN}', "NaN is no JSON"),
        (b'{"id": "a", "type": "t", "payload": {"x": -Infinity}}', "-Infinity is no JSON"),
        (b'{"id": "a\\ud800", "type": "t"}', "surrogate"),
        (b'{"id": "\xff", "type": "t"}', "utf-8"),
        (b'{"id": "", "type": "t"}', "'id' cannot be one: it is empty"),
        (b'{"id": "a#b", "type": "t"}', "'#'"),
        (b'{"id": 7, "type": "t"}', "'id' cannot be one: it is of type int"),
        (b'{"id": null, "type": "t"}', "'id' cannot be one"),
        (b'{"id": "a", "type": ["t"]}', "'type' cannot be one"),
        (b'{"id": "a", "type": "t", "key": ""}', "'key' cannot be one: it is empty"),
        (b'{"id": "a", "type": "t", "version": 0}', "'version' is no whole number from 1"),
        (b'{"id": "a", "type": "t", "version": true}', "'version' is no whole number"),
        (b'{"id": "a", "type": "t", "version": 1.0}', "'version' is no whole number"),
        (b'{"id": "a", "type": "t", "version": null}', "'version' is no whole number"),
        (b'{"id": "a", "type": "t", "enqueued_at": -1}', "'enqueued_at' is no whole number"),
        (b'{"id": "a", "type": "t", "kill_at": 1e3}', "'kill_at' is no whole number"),
        (b'{"id": "a", "type": "t", "payloda": {}}', "not known: 'payloda'; known are id, type, payload"),
        (b'{"id": "a", "type": "t", "payload": ' + b"[" * 100_000, "cannot be read"),
    ],
)
def test_what_is_no_job_is_refused_by_the_name_of_the_field(data: bytes, says: str) -> None:
    with pytest.raises(UndecodableRecord, match="JSON") as caught:
        decode_job(data)
    assert says in str(caught.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_any_payload_comes_through(payload: Any, plain: bool, indent: int | None) -> None:
    data = json.dumps({**SMALL, "payload": payload}, ensure_ascii=plain, indent=indent).encode()
    found = decode_job(data).payload
    assert (json.loads(found) if found else None) == payload


@given(st.binary(max_size=60))
def test_garbage_is_no_job(data: bytes) -> None:
    with pytest.raises(RecordError):
        decode_job(b"{" + data)


@pytest.mark.parametrize("data", [b"hello", b"\x00\x00\x00\x00\x07abc"], ids=["text", "registry"])
def test_who_writes_something_else_hears_what_may_be_written(data: bytes) -> None:
    with pytest.raises(UndecodableRecord) as caught:
        decode_job(data)
    assert caught.value.hint is not None
    assert "JSON that begins with {" in caught.value.hint


@pytest.mark.parametrize("field", ["enqueued_at", "kill_at"])
def test_a_moment_can_be_shown_as_one(field: str) -> None:
    last = 253_402_300_799_999
    assert getattr(decode_job(json.dumps({**SMALL, field: last}).encode()), field) == last
    with pytest.raises(UndecodableRecord, match=field):
        decode_job(json.dumps({**SMALL, field: last + 1}).encode())
