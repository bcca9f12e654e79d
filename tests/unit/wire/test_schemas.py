"""The published schemas: documented, complete, and readable for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer
from fastavro.utils import generate_many

from processor.job import Carried, ErrorInfo, Failure, Job, LoopProgress
from processor.states import State
from processor.wire import codec, schemas
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
    ScheduleFired,
    ScheduleRecord,
    StatusRecord,
    StepRecord,
)

FOLDER = Path(str(schemas.root()))
TYPES: dict[str, type[Any]] = {
    "job": Job,
    "checkpoint": CheckpointRecord,
    "step": StepRecord,
    "live_job": LiveJobRecord,
    "status": StatusRecord,
    "dedupe": DedupeMark,
    "dead_letter": DeadLetterRecord,
    "LoopProgress": LoopProgress,
    "control": ControlRecord,
    "schedule": ScheduleRecord,
    "schedule_fired": ScheduleFired,
    "alert": AlertRecord,
    "audit": AuditRecord,
    "ErrorInfo": ErrorInfo,
    "Failure": Failure,
    "number_mark": NumberMark,
    "LaneMark": LaneMark,
    "Carried": Carried,
}

OLD_RECORDS = {
    # Written by version 1 of the job's schema, which had no `deaths`.
    "c30185ff51d641c42692066a2d3116696d706f72742e66696c65040862756c6b167b2275726c223a2278227d80a0d5edee66"
    "000200000000000000": Job("j-1", "import.file", 2, "bulk", b'{"url":"x"}', 1_767_225_600_000),
    "c30185ff51d641c42692066a2d32086d61696c020862756c6b0080a0d5edee6602026b040602020e02066a2d31020280da8c"
    "f1ee660290eed5edee66": Job(
        "j-2",
        "mail",
        1,
        "bulk",
        b"",
        1_767_225_600_000,
        "k",
        2,
        3,
        1,
        7,
        "j-1",
        1,
        1_767_229_200_000,
        1_767_225_605_000,
    ),
}


def files() -> Iterator[Path]:
    return FOLDER.rglob("*.avsc")


def records_of(schema: Any) -> Iterator[dict[str, Any]]:
    """Every named type of a raw schema."""
    if isinstance(schema, list):
        for branch in schema:
            yield from records_of(branch)
    elif isinstance(schema, dict):
        if "name" in schema and schema["type"] in ("record", "enum"):
            yield schema
        for field in schema.get("fields", ()):
            yield from records_of(field["type"])
        for inner in ("items", "values"):
            yield from records_of(schema.get(inner))


@pytest.mark.parametrize(
    ("canonical", "number"),
    [
        ('"null"', 7195948357588979594),
        ('"boolean"', -6970731678124411036),
        ('"int"', 8247732601305521295),
        ('"long"', -3434872931120570953),
        ('"string"', -8142146995180207161),
    ],
)
def test_the_fingerprint_is_that_of_the_avro_specification(canonical: str, number: int) -> None:
    assert schemas.fingerprint(json.loads(canonical)) == number.to_bytes(8, "little", signed=True)


def test_every_type_and_field_of_today_has_a_doc() -> None:
    for file in files():
        for named in records_of(json.loads(file.read_text())):
            assert named["doc"], (file, named["name"])
            for field in named.get("fields", ()):
                assert field.get("doc"), (file, named["name"], field["name"])


@pytest.mark.parametrize("name", schemas.NAMES)
def test_the_fields_are_those_of_the_record_in_its_order(name: str) -> None:
    for named in records_of(json.loads((FOLDER / f"{name}.avsc").read_text())):
        if named["type"] == "enum":
            continue
        record = TYPES.get(named["name"], TYPES[name])
        assert tuple(field["name"] for field in named["fields"]) == record._fields
        defaults = {field["name"]: field["default"] for field in named["fields"] if "default" in field}
        for field_name, default in record._field_defaults.items():
            assert defaults[field_name] == default


def test_the_states_are_those_of_the_package() -> None:
    for name in ("status", "live_job"):
        enums = [n for n in records_of(json.loads((FOLDER / f"{name}.avsc").read_text())) if n["name"] == "State"]
        assert enums[0]["symbols"] == [state.value for state in State]
        assert enums[0]["default"] in enums[0]["symbols"]


@pytest.mark.parametrize("name", schemas.NAMES)
def test_what_is_written_today_is_in_the_history(name: str) -> None:
    published = schemas.load(name)
    assert schemas.fingerprint(published.current) in published.written
    if published.brief:
        assert schemas.fingerprint(published.brief) in published.written
        names = [field["name"] for field in published.brief["fields"]]
        assert names == [field["name"] for field in published.current["fields"]][: len(names)]


@pytest.mark.parametrize("name", schemas.NAMES)
def test_todays_schema_reads_everything_ever_written(name: str) -> None:
    published = schemas.load(name)
    for writer in published.written.values():
        missing = {field["name"] for field in writer["fields"]} - {f["name"] for f in published.current["fields"]}
        assert not missing, "a field was removed: replays of old records would lose it"
        for datum in generate_many(writer, 20):
            sink = BytesIO()
            schemaless_writer(sink, writer, datum)
            sink.seek(0)
            values = schemaless_reader(sink, writer, published.current)
            assert isinstance(values, dict)
            assert set(values) == set(TYPES[name]._fields)
            assert isinstance(datum, dict)
            assert says(values, datum)


def says(new: Any, old: Any) -> bool:
    """Whether a value read with today's schema says everything that was written, however deep."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(says(new[name], value) for name, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(says, new, old))
    return bool(new == old)


@pytest.mark.parametrize("name", schemas.NAMES)
def test_a_new_field_has_a_default_everywhere_in_the_schema(name: str) -> None:
    today = json.loads((FOLDER / f"{name}.avsc").read_text())
    for old in (FOLDER / "history" / name).iterdir():
        pairs = product(records_of(today), records_of(json.loads(old.read_text())))
        for new_type, old_type in ((n, o) for n, o in pairs if n["name"] == o["name"] and n["type"] == "record"):
            before = {field["name"] for field in old_type["fields"]}
            added = [field for field in new_type["fields"] if field["name"] not in before]
            assert all("default" in field for field in added), (old.name, added)


def test_no_two_records_share_a_fingerprint() -> None:
    prints = [print_ for name in schemas.NAMES for print_ in schemas.load(name).written]
    assert len(prints) == len(set(prints))


@pytest.mark.parametrize(("recorded", "job"), OLD_RECORDS.items(), ids=["plain", "moved"])
def test_a_job_written_by_version_1_reads_today(recorded: str, job: Job) -> None:
    assert codec.decode_job(bytes.fromhex(recorded)) == job
