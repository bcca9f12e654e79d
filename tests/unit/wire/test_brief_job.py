"""The hand-written job reader against fastavro, which stays the reference."""

from __future__ import annotations

from io import BytesIO

from fastavro import schemaless_reader, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.job import Job
from processor.wire import schemas
from processor.wire.brief_job import decode_brief_job, encode_brief_job
from processor.wire.codec import HEAD, encode
from processor.wire.names import is_id

TEXT = st.text(st.characters(codec="utf-8"), max_size=80)
JOBS = st.tuples(
    TEXT.filter(is_id),
    TEXT,
    st.integers(-(2**31), 2**31 - 1),
    TEXT,
    st.binary(max_size=80),
    st.integers(-(2**63), 2**63 - 1),
    st.none() | TEXT,
).map(lambda values: Job(*values))


def reference(data: bytes) -> Job:
    schema = schemas.load("job").brief
    assert schema is not None
    source = BytesIO(data)
    source.seek(HEAD)
    values = schemaless_reader(source, schema, None)
    assert isinstance(values, dict)
    assert not source.read(1)
    return Job(**values)


@settings(max_examples=100)
@given(JOBS)
def test_reads_what_fastavro_reads(job: Job) -> None:
    data = encode(job)
    assert reference(data) == job
    quick = decode_brief_job(data, HEAD)
    assert quick in (job, None)
    ordinary = job.version >= 0 and 0 <= job.enqueued_at < 2**55
    assert (quick is not None) or not ordinary, "an ordinary job takes the quick way"
    assert quick is None or type(quick) is Job


@settings(max_examples=100)
@given(JOBS)
def test_writes_what_fastavro_writes(job: Job) -> None:
    schema = schemas.load("job").brief
    assert schema is not None
    sink = BytesIO()
    schemaless_writer(sink, schema, job._asdict())
    assert encode_brief_job(b"head", job) == b"head" + sink.getvalue()


@settings(max_examples=100)
@given(JOBS, st.data())
def test_damaged_bytes_are_left_to_fastavro_or_read_alike(job: Job, data: st.DataObject) -> None:
    body = bytearray(encode(job))
    where = data.draw(st.integers(HEAD, len(body) - 1))
    body[where] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(HEAD, len(body)))])
    quick = decode_brief_job(cut, HEAD)
    if quick is not None:
        assert quick == reference(cut)


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_at_all(tail: bytes) -> None:
    data = b"x" * HEAD + tail
    quick = decode_brief_job(data, HEAD)
    if quick is not None:
        assert quick == reference(data)
