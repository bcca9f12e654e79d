"""The hand-written status writer against fastavro, which stays the reference."""

from __future__ import annotations

from io import BytesIO

from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.states import State
from processor.wire import schemas
from processor.wire.brief_status import encode_brief_status
from processor.wire.codec import MARKER, decode_status
from processor.wire.records import StatusRecord

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
LONG = st.integers(-(2**63), 2**63 - 1)
INT = st.integers(-(2**31), 2**31 - 1)


def reference(record: StatusRecord) -> bytes:
    schema = schemas.load("status").brief
    assert schema is not None
    sink = BytesIO()
    sink.write(MARKER + schemas.fingerprint(schema))
    names = StatusRecord._fields[:9]
    values = dict(zip(names, record[:9], strict=True)) | {"state": record.state.value}
    schemaless_writer(sink, schema, values)
    return sink.getvalue()


@settings(derandomize=True, max_examples=300)
@given(
    st.tuples(
        TEXT | st.text("x", min_size=1000, max_size=1100),
        INT,
        TEXT,
        TEXT,
        st.sampled_from(State),
        LONG,
        INT,
        TEXT,
        st.none() | st.binary(max_size=300),
    )
)
def test_the_same_bytes_as_fastavro(
    values: tuple[str, int, str, str, State, int, int, str, bytes | None],
) -> None:
    record = StatusRecord(*values)
    schema = schemas.load("status").brief
    assert schema is not None
    written = encode_brief_status(MARKER + schemas.fingerprint(schema), record)
    assert written == reference(record)
    assert decode_status(written) == record


def test_states_have_the_order_of_the_schema() -> None:
    schema = schemas.load("status").brief
    assert isinstance(schema, dict)
    symbols = next(field["type"]["symbols"] for field in schema["fields"] if field["name"] == "state")
    assert symbols == [state.value for state in State]
