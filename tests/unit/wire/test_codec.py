"""Records to bytes and back, and every byte string that is no record."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.errors import NewerRecord, RecordError, UndecodableRecord
from processor.job import Carried, ErrorInfo, Failure, Job, LoopProgress
from processor.states import State
from processor.wire import codec
from processor.wire.names import is_id
from processor.wire.records import (
    AlertRecord,
    AuditRecord,
    CheckpointRecord,
    ControlRecord,
    DeadLetterRecord,
    DedupeMark,
    LaneMark,
    LiveJobRecord,
    NumberMark,
    StatusRecord,
    StepRecord,
)

JOB = Job(id="j1", type="import.file", version=2, queue="bulk", payload=b"{}", enqueued_at=1_767_225_600_000)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = text.filter(is_id)
count = st.integers(0, 2**31 - 1)
moment = st.integers(-(2**63), 2**63 - 1)
number = st.floats(allow_nan=False)
errors = st.builds(ErrorInfo, text, text, text, text)
failures = st.builds(Failure, text, text, text, text, count, text, moment)
carried = st.builds(
    Carried, st.lists(failures, max_size=3), st.none() | st.binary(max_size=9),
    st.none() | st.lists(st.binary(max_size=9), max_size=3), st.none() | st.lists(text, max_size=3),
)  # fmt: skip
loops = st.builds(LoopProgress, st.none() | text, count, st.none() | count, st.booleans())
maybe_text = st.none() | text
maybe_bytes = st.none() | st.binary(max_size=20)
maybe_number = st.none() | number

RECORDS: dict[type[Any], st.SearchStrategy[Any]] = {
    Job: st.builds(
        Job, ids, text, count, text, st.binary(), moment, maybe_text, count, count, count, st.none() | count,
        maybe_text, count, st.none() | moment, st.none() | moment, count, st.none() | carried, maybe_text,
        count, maybe_text,
    ),
    CheckpointRecord: st.builds(
        CheckpointRecord, text, count, count, moment, moment, moment, text, moment, count, maybe_text, maybe_text,
        st.none() | st.dictionaries(text, loops, max_size=3), maybe_number, maybe_number, maybe_bytes,
    ),
    StepRecord: st.builds(
        StepRecord, text, count, count, moment, moment, text, st.sampled_from(["started", "finished", "failed"]),
        maybe_text, maybe_text,
    ),
    LiveJobRecord: st.builds(
        LiveJobRecord, text, count, count, moment, moment, st.binary(), text, moment, moment,
        st.sampled_from(list(State)), text, st.none() | moment,
    ),
    StatusRecord: st.builds(
        StatusRecord, text, count, text, text, st.sampled_from(list(State)), moment, count, text, maybe_bytes,
        st.none() | errors, maybe_number, maybe_number, maybe_text, st.none() | moment, st.none() | count,
        st.none() | moment, st.none() | moment,
    ),
    ControlRecord: st.builds(
        ControlRecord, text, text, moment, text, text, count, text, count, text, moment, moment
    ),
    AlertRecord: st.builds(AlertRecord, text, text, moment, text, text, text, text, text),
    AuditRecord: st.builds(AuditRecord, text, text, moment, text, text, text, count, text, text),
    DedupeMark: st.builds(DedupeMark, text, count, count, moment, moment, text, moment, count),
    NumberMark: st.builds(
        NumberMark, moment, moment, moment,
        st.lists(st.builds(LaneMark, text, moment, moment, st.lists(moment, max_size=4)), max_size=3),
    ),
    DeadLetterRecord: st.builds(
        DeadLetterRecord, text, text, moment, text, text, count, moment, maybe_bytes, maybe_bytes, maybe_bytes,
        st.none() | st.lists(failures, max_size=3), maybe_bytes,
        st.none() | st.lists(st.binary(max_size=9), max_size=3), st.none() | st.lists(text, max_size=3),
    ),
}  # fmt: skip
DECODERS: dict[type[Any], Any] = {
    Job: codec.decode_job,
    CheckpointRecord: codec.decode_checkpoint,
    StepRecord: codec.decode_step,
    LiveJobRecord: codec.decode_live_job,
    StatusRecord: codec.decode_status,
    DedupeMark: codec.decode_dedupe,
    DeadLetterRecord: codec.decode_dead_letter,
    ControlRecord: codec.decode_control,
    AlertRecord: codec.decode_alert,
    AuditRecord: codec.decode_audit,
    NumberMark: codec.decode_number_mark,
}
any_record = st.one_of(*RECORDS.values())


@given(any_record)
def test_a_record_comes_back_as_it_was(record: Any) -> None:
    data = codec.encode(record)
    back = DECODERS[type(record)](data)
    assert back == record
    assert type(back) is type(record)
    assert codec.decode(data) == record


def test_nested_values_come_back_as_their_types() -> None:
    status = StatusRecord("j1", 1, "t", "q", State.DEAD, 1, 1, "w", error=ErrorInfo("a", "b"))
    back = codec.decode_status(codec.encode(status))
    assert isinstance(back.state, State)
    assert isinstance(back.error, ErrorInfo)
    progress = CheckpointRecord("j1", 1, 0, 1, 1, 1, "t", 5, 0, loops={"rows": LoopProgress("7", 7, None, False)})
    assert isinstance((codec.decode_checkpoint(codec.encode(progress)).loops or {})["rows"], LoopProgress)


def test_a_plain_job_is_written_in_the_short_form() -> None:
    assert len(codec.encode(JOB._replace(key="k"))) == len(codec.encode(JOB._replace(key="k", deaths=1))) - 13


@given(st.binary(max_size=200))
def test_bytes_that_are_no_record_raise_a_record_error(data: bytes) -> None:
    for decoder in (*DECODERS.values(), codec.decode):
        with pytest.raises(RecordError):
            decoder(data)


@settings(max_examples=400)
@given(
    st.sampled_from([codec.encode(JOB), codec.encode(JOB._replace(hop=1))]) | any_record.map(codec.encode), st.data()
)
def test_damaged_records_decode_or_raise_a_record_error(whole: bytes, data: st.DataObject) -> None:
    head, body = whole[: codec.HEAD], bytearray(whole[codec.HEAD :])
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    with contextlib.suppress(RecordError):
        codec.decode(head + bytes(body[:cut]) + data.draw(st.binary(max_size=3)))


@given(any_record.map(codec.encode), st.data())
def test_a_cut_or_longer_record_is_undecodable(whole: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(codec.HEAD, len(whole) - 1))
    with pytest.raises(UndecodableRecord):
        codec.decode(whole[:cut])
    with pytest.raises(UndecodableRecord, match="after its last field"):
        codec.decode(whole + b"\x00")


@pytest.mark.parametrize("length", [b"\xfe\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x0f", b"\xfe" + b"\xff" * 8 + b"\x01"])
@pytest.mark.parametrize("record", [JOB, JOB._replace(hop=1)])
def test_a_huge_length_takes_no_memory(record: Job, length: bytes) -> None:
    head = codec.encode(record)[: codec.HEAD]
    tracemalloc.start()
    with pytest.raises(UndecodableRecord):
        codec.decode_job(head + length + b"abc")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_huge_counts_of_items_take_no_memory() -> None:
    letter = DeadLetterRecord("j1", "dead", 1, "w", "t", 0, 0, failures=[], steps=[], children=[])
    whole = codec.encode(letter)
    assert whole.endswith(b"\x02\x00\x00\x02\x00\x02\x00"), "its end: no failures, no progress, no steps, no children"
    tracemalloc.start()
    with pytest.raises(UndecodableRecord):
        codec.decode(whole[:-1] + b"\xfe\xff\xff\xff\x0f")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_an_unknown_schema_is_a_newer_record_and_says_where() -> None:
    unknown = codec.MARKER + b"12345678" + b"body"
    with pytest.raises(NewerRecord, match=r"jobs\.\*.*3132333435363738") as caught:
        codec.decode_job(unknown)
    assert "upgrade" in caught.value.hint
    with pytest.raises(NewerRecord):
        codec.decode(unknown)


def test_a_record_of_another_kind_is_named() -> None:
    with pytest.raises(UndecodableRecord, match="a dedupe record lies where a job record should be"):
        codec.decode_job(codec.encode(DedupeMark("j1", 1, 0, 1)))


def test_a_schema_registry_record_is_named() -> None:
    with pytest.raises(UndecodableRecord, match="schema registry"):
        codec.decode_job(b"\x00\x00\x00\x00\x07rest")


def test_lone_surrogates_never_stop_a_record() -> None:
    status = StatusRecord("j1", 1, "t", "q", State.DEAD, 1, 1, "w", error=ErrorInfo("E", "bad \ud800 text"))
    back = codec.decode_status(codec.encode(status))
    assert back.error is not None
    assert back.error.message == "bad ? text"
    progress = CheckpointRecord("j1", 1, 0, 1, 1, 1, "t", 5, 0, loops={"\ud800": LoopProgress("1", 1, None, False)})
    assert list(codec.decode_checkpoint(codec.encode(progress)).loops or {}) == ["?"]
    assert codec.decode_job(codec.encode(JOB._replace(type="\udfff"))).type == "?"
    letter = DeadLetterRecord("j1", "dead", 1, "w", "t", 0, 0, failures=[Failure("E", "\ud800")])
    assert codec.decode_dead_letter(codec.encode(letter)).failures == [Failure("E", "?")]
