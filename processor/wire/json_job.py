"""Jobs as JSON: what a program in any language may write to a lane with a plain Kafka client (docs/wire.md). Pure.

    {"id": "order-7", "type": "import.file", "payload": {"url": "s3://in/a.csv"}, "key": "c-1", "version": 2}

The payload is kept as the text it is, so its numbers and names are not touched. What else stands there must be known: a
misspelled field is an error, not a default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from processor.errors import UndecodableRecord
from processor.job import Job
from processor.wire.names import KEY_BYTES, NAME_BYTES, fault_of, fault_of_id
from processor.wire.topics import parse_topic
from processor.wire.trace_context import of_headers

Given = Iterable[tuple[str, bytes | None]] | None

OPENS = b"{"
"""The first byte of a job in JSON. Avro's single-object encoding begins with another one."""
FIELDS = ("id", "type", "payload", "version", "key", "enqueued_at", "kill_at")
LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999: what is later cannot be written as a moment everywhere."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_SPACE = re.compile(r"[ \t\n\r]+")
_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def decode_json_job(data: bytes) -> Job:
    """The job; without a queue, and enqueued at 0 if it does not say when (`completed` fills both in).

    Raises:
        UndecodableRecord: it is none; the text names the field.
    """
    try:
        found = dict(_members(data.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        raise UndecodableRecord(f"a job in JSON that cannot be read: {error}") from error
    values = {name: value for name, (value, _) in found.items()}
    _check(values)
    payload = found["payload"][1] if values.get("payload") is not None else ""
    return Job(
        id=values["id"],
        type=values["type"],
        version=values.get("version", 1),
        queue="",
        payload=payload.encode(),
        enqueued_at=values.get("enqueued_at", 0),
        key=values.get("key"),
        kill_at=values.get("kill_at"),
    )


def completed(job: Job, queue: str, at_ms: int, headers: Given = None) -> Job:
    """A job as its lane makes it whole: `queue` is the lane's, `at_ms` the time of its record (-1: it has none),
    `headers` its headers, which may hold a trace context. One that names its queue was no job in JSON, and is whole.
    """
    if job.queue:
        return job
    return job._replace(queue=queue, enqueued_at=job.enqueued_at or max(at_ms, 0), trace=of_headers(headers))


def completed_in(job: Job, topic: str, at_ms: int, headers: Given = None) -> Job:
    """As `completed`, by the name of the topic where its record lies."""
    name = None if job.queue else parse_topic(topic)
    return job if name is None or name.queue is None else completed(job, name.queue, at_ms, headers)


def _members(text: str) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Names, values, and the text of each value, of one JSON object.

    Raises:
        ValueError: it is none, or a name comes twice.
    """
    at = _past_space(text, 1 + _past_space(text, 0))
    seen: set[str] = set()
    while text[at : at + 1] != "}" or seen:
        if text[at : at + 1] != '"':
            raise ValueError(f"no name at character {at}")
        name, at = _DECODER.raw_decode(text, at)
        if name in seen:
            raise ValueError(f"{name!r} comes twice")
        seen.add(name)
        at = _past_space(text, at)
        if text[at : at + 1] != ":":
            raise ValueError(f"no ':' at character {at}")
        begin = _past_space(text, at + 1)
        value, end = _DECODER.raw_decode(text, begin)
        yield name, (value, text[begin:end])
        at = _past_space(text, end)
        if text[at : at + 1] == "}":
            break
        if text[at : at + 1] != ",":
            raise ValueError(f"neither ',' nor '}}' at character {at}")
        at = _past_space(text, at + 1)
    if _past_space(text, at + 1) != len(text):
        raise ValueError("something follows the object")


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _check(values: dict[str, Any]) -> None:
    unknown = [name for name in values if name not in FIELDS]
    if unknown:
        raise UndecodableRecord(f"a job in JSON with a field that is not known: {unknown[0][:60]!r}; {_known()}")
    for name in ("id", "type"):
        if name not in values:
            raise UndecodableRecord(f"a job in JSON without {name!r}; {_known()}")
    for name, fault in (
        ("id", fault_of_id(values["id"])),
        ("type", fault_of(values["type"], NAME_BYTES)),
        ("key", None if values.get("key") is None else fault_of(values["key"], KEY_BYTES)),
    ):
        if fault is not None:
            raise UndecodableRecord(f"a job in JSON whose {name!r} cannot be one: {fault}")
    for name, least, most in (("version", 1, 2**31 - 1), ("enqueued_at", 0, LATEST), ("kill_at", 0, LATEST)):
        value = values.get(name)
        given = name in values and not (name == "kill_at" and value is None)
        if given and not (type(value) is int and least <= value <= most):
            raise UndecodableRecord(f"a job in JSON whose {name!r} is no whole number from {least} to {most}")


def _known() -> str:
    return f"known are {', '.join(FIELDS)}"
