"""Errors as answers: every kind has a status on purpose, and none tells a program to try again in vain."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator

import pytest
from starlette.requests import Request

import processor
from processor.client.backlog import QueueFull
from processor.errors import (
    BrokerRefused,
    EnqueueUnconfirmed,
    InternalError,
    NewerRecord,
    OffsetOutOfRange,
    OffsetsLost,
    OrderRefused,
    PayloadTooLarge,
    ProcessorError,
    RecordRefused,
    SeekRefused,
    StaleMembership,
    TopicMismatch,
    TopicRefused,
    UndecodableRecord,
    UnknownJobType,
    UnknownQueue,
)
from processor.ops.errors import ProjectionError
from processor.ops.web.answers import STATUS, error_answer, status_of

NEVER_ASKED = {"processor.demo", "processor.alerts"}
"""Packages whose own errors no request can meet: the demo, and the delivery of alerts."""


def kinds(base: type[ProcessorError]) -> Iterator[type[ProcessorError]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith("processor."):
            yield kind
            yield from kinds(kind)


def every_kind() -> list[type[ProcessorError]]:
    for module in pkgutil.walk_packages(processor.__path__, "processor."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {kind for kind in kinds(ProcessorError) if ".".join(kind.__module__.split(".")[:2]) not in NEVER_ASKED}
    return sorted(found, key=lambda kind: kind.__name__)


def test_every_kind_of_error_has_a_status_on_purpose() -> None:
    found = every_kind()
    assert len(found) > 50
    assert [kind.__name__ for kind in found if not STATUS.keys() & set(kind.__mro__)] == []
    assert STATUS.keys() <= set(found), "there is no such kind any more"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (UnknownQueue, 404),
        (UnknownJobType, 400),
        (OffsetOutOfRange, 410),
        (OrderRefused, 409),
        (SeekRefused, 409),
        (OffsetsLost, 409),
        (PayloadTooLarge, 422),
        (UndecodableRecord, 422),
        (NewerRecord, 422),
        (RecordRefused, 422),
        (QueueFull, 429),
        (InternalError, 500),
        (EnqueueUnconfirmed, 503),
        (BrokerRefused, 503),
        (StaleMembership, 503),
        (TopicRefused, 503),
        (TopicMismatch, 503),
        (ProjectionError, 503),
    ],
)
def test_the_nearest_kind_decides(kind: type[ProcessorError], status: int) -> None:
    error = kind.__new__(kind)
    assert status_of(error) == status


def test_a_kind_that_nobody_thought_of_is_our_fault() -> None:
    class New(ProcessorError): ...

    assert status_of(New("x")) == 500


def asked(path: str) -> Request:
    return Request({"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""})


def test_a_program_reads_json_and_a_person_a_page_with_the_same_words() -> None:
    error = OrderRefused("queue <b>bulk</b> rests", hint="processor queue resume 'bulk' & wait")
    for_programs = error_answer(asked("/api/v1/queues/bulk/pause"), error)
    assert for_programs.status_code == 409
    assert json.loads(bytes(for_programs.body)) == {
        "code": "order_refused",
        "message": "queue <b>bulk</b> rests",
        "hint": "processor queue resume 'bulk' & wait",
    }
    for_people = error_answer(asked("/queues/bulk"), error)
    page = bytes(for_people.body).decode()
    assert for_people.status_code == 409
    assert "queue &lt;b&gt;bulk&lt;/b&gt; rests" in page
    assert "processor queue resume &#x27;bulk&#x27; &amp; wait" in page
    assert "<b>" not in page
