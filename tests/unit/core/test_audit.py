"""An audit record is found under its subject, and tells which lives an order began."""

from __future__ import annotations

import json

import pytest

from processor.core.audit import CANCEL, REDRIVE, REPLAY, lives_begun, noted
from processor.wire.codec import decode_audit
from processor.wire.records import AuditRecord


def record(action: str, **fields: object) -> AuditRecord:
    return AuditRecord(action, "job:j", 5, "ann@desk", "a fix")._replace(**fields)  # type: ignore[arg-type]


def test_it_is_written_under_its_subject() -> None:
    out = noted("shop", record(CANCEL, job_id="j"))
    assert (out.topic, out.key) == ("shop.audit", b"job:j")
    assert decode_audit(out.value or b"") == record(CANCEL, job_id="j")


def test_a_redrive_begins_one_life() -> None:
    assert lives_begun(record(REDRIVE, job_id="j", life=3)) == {"j": 3}


def test_a_replay_under_the_same_ids_names_them() -> None:
    detail = json.dumps({"lives": {"a": 2, "b": 4}, "sent": 2})
    assert lives_begun(record(REPLAY, detail=detail)) == {"a": 2, "b": 4}


@pytest.mark.parametrize(
    "detail",
    ["", "{}", '{"lives": 3}', '{"lives": {"a": "x"}}', '{"lives": {"a": 1e999}}', '"lives"', '{"lives": null', "\x00"],
)
def test_a_detail_that_is_not_understood_hides_nothing_else(detail: str) -> None:
    assert lives_begun(record(REPLAY, detail=detail)) == {}


def test_other_orders_begin_none() -> None:
    assert lives_begun(record(CANCEL, job_id="j", life=1)) == {}
