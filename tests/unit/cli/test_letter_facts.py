"""One dead letter, whole: what machines and people are told, whatever its bytes are."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from processor.admin.dead_letters import LetterRow
from processor.cli.dlq.facts import letter_facts, row_facts, told
from processor.cli.topics import describe_record
from processor.core.redrive import Address, LetterState
from processor.job import Failure, Job, LoopProgress
from processor.wire.codec import encode
from processor.wire.records import AuditRecord, CheckpointRecord, DeadLetterRecord, StepRecord

NOW = 1_767_225_600_000
JOB = Job("j1", "order.charge", 1, "orders", b'{"order_id": 7}', 1_000, number=2)


def row(**more: Any) -> LetterRow:
    plain: dict[str, Any] = {
        "address": Address(1, 42),
        "id": "j1",
        "type": "order.charge",
        "queue": "orders",
        "reason": "exhausted",
        "at": NOW - 3_600_000,
        "state": LetterState.OPEN,
        "life": 1,
        "attempts": 3,
        "error": "no answer",
        "fingerprint": "abc",
        "size": 2048,
    }
    return LetterRow(**{**plain, **more})


def letter(job: Job | None = JOB, **more: Any) -> DeadLetterRecord:
    data = None if job is None else encode(job)
    made = DeadLetterRecord("j1", "exhausted", NOW - 3_600_000, "w-0", "shop.jobs.orders", 2, 7, data)
    return made._replace(**more)


def lines(letter_: DeadLetterRecord, **more: Any) -> dict[str, Any]:
    return told(letter_facts(row(**more), letter_), NOW)


@pytest.mark.parametrize(
    ("payload", "value", "other"),
    [
        (b"", None, None),
        (b"null", None, None),
        ('{"a": "ü"}'.encode(), {"a": "ü"}, None),
        (b"\xff\xfe", None, b64encode(b"\xff\xfe").decode()),
        (b"{half", None, b64encode(b"{half").decode()),
        (b"[" * 50_000, None, b64encode(b"[" * 50_000).decode()),
        (b"9" * 5_000, None, b64encode(b"9" * 5_000).decode()),
    ],
)
def test_a_payload_is_json_or_base64(payload: bytes, value: Any, other: str | None) -> None:
    job = letter_facts(row(), letter(JOB._replace(payload=payload)))["job"]
    assert (job["payload"], job["payload_base64"]) == (value, other)
    assert "carried" not in job


def test_bytes_that_are_no_job_are_kept_for_whoever_can_read_them() -> None:
    facts = letter_facts(row(id="", life=0), letter(None, id="", raw=b"\x00\xff", raw_key=b"k\xff"))
    assert (facts["job"], facts["raw_base64"], facts["raw_key"]) == (None, b64encode(b"\x00\xff").decode(), "k\\xff")
    shown = told(facts, NOW)
    assert shown["job"] == "none that this version can read; processor dlq export has its bytes"
    assert "saved" not in shown
    assert letter_facts(row(), letter())["raw_base64"] is None


@pytest.mark.parametrize(
    ("state", "action", "reason", "text"),
    [
        (LetterState.OPEN, None, "", "open"),
        (LetterState.OPEN, "redrive", "", "open"),
        (LetterState.REDRIVEN, "redrive", "", "redriven by ana@host at 2026-01-01 00:00:00Z"),
        (LetterState.REDRIVEN, "replay", "new code", "replayed by ana@host at 2026-01-01 00:00:00Z: new code"),
        (LetterState.DISCARDED, "discard", "junk", "discarded by ana@host at 2026-01-01 00:00:00Z: junk"),
    ],
)
def test_what_became_of_it(state: LetterState, action: str | None, reason: str, text: str) -> None:
    settled = None if action is None else AuditRecord(action, "1@42", NOW, "ana@host", reason)
    assert lines(letter(), state=state, settled=settled)["state"] == text
    facts = row_facts(row(state=state, settled=settled))
    assert (facts["settled"] is None) is (action is None)
    assert json.loads(json.dumps(facts))["state"] == state.value


@pytest.mark.parametrize(
    ("job", "name", "text"),
    [
        (JOB, "life", None),
        (JOB._replace(life=3), "life", 3),
        (JOB._replace(key="c-7"), "key", "c-7"),
        (JOB._replace(redriven_from="0@9"), "redriven from", "0@9"),
        (JOB._replace(redriven_from="shop/orders/j0@1"), "replayed from", "shop/orders/j0@1"),
        (JOB._replace(kill_at=NOW), "kill date", "2026-01-01 00:00:00Z"),
        (JOB, "kill date", None),
        (JOB._replace(payload=b""), "payload", None),
        (JOB, "payload", '{"order_id": 7}'),
        (JOB, "lay in", "shop.jobs.orders, partition 2, offset 7"),
        (JOB, "size", "2.0 KiB"),
        (JOB, "given up", "2025-12-31 23:00:00Z (60m ago) by w-0"),
    ],
)
def test_people_are_told_what_is_there_and_nothing_else(job: Job, name: str, text: Any) -> None:
    assert lines(letter(job)).get(name) == text


def test_long_things_are_cut_for_people_only() -> None:
    job = JOB._replace(payload=json.dumps("x" * 5_000).encode())
    shown = lines(letter(job, children=["c" * 40] * 100))
    assert shown["payload"].endswith("... (5,002 characters)")
    assert shown["children"].endswith("... (4,198 characters)")
    assert len(letter_facts(row(), letter(job))["job"]["payload"]) == 5_000
    assert "offset" not in lines(letter(job, offset=-1))["lay in"]


CHECKPOINT = CheckpointRecord("j1", 1, 0, 1, 1, NOW, "shop.jobs.orders", 7, 2)


@pytest.mark.parametrize(
    ("progress", "steps", "shown"),
    [
        (None, (), {"saved": "nothing: a redrive begins at the beginning"}),
        (b"\x00", (), {"saved": "unreadable"}),
        (CHECKPOINT, (), {"saved": "yes, and no loop or cursor"}),
        (CHECKPOINT, ("a", "b"), {"saved": "steps", "steps": "a, b"}),
        (CHECKPOINT._replace(cursor='"x"'), (), {"saved": 'cursor "x"'}),
        (
            CHECKPOINT._replace(
                loops={"rows": LoopProgress("7", 7, 10, False)}, state='{"sum": 3}', done=7.0, total=10.0
            ),
            (b"\x00",),
            {
                "saved": "rows: 7 of 10, at 7",
                "progress": "7 of 10 (70 %)",
                "job state": '{"sum": 3}',
                "steps": "unreadable",
            },
        ),
    ],
)
def test_what_it_had_saved(progress: Any, steps: tuple[Any, ...], shown: dict[str, str]) -> None:
    data = progress if progress is None or isinstance(progress, bytes) else encode(progress)
    encoded = [
        each if isinstance(each, bytes) else encode(StepRecord("j1", 1, 0, 1, 1, each, "finished", "1"))
        for each in steps
    ]
    found = lines(letter(progress=data, steps=encoded))
    for name in ("saved", "progress", "job state", "steps"):
        assert str(found.get(name, "")).startswith(shown.get(name, "")), name
        assert (name in found) is (name in shown), name


def test_failures_are_told_to_machines_as_they_are() -> None:
    failure = Failure("builtins.ValueError", "no", attempt=1, at=5)
    facts = letter_facts(row(), letter(failures=[failure]))
    assert facts["failures"] == [failure._asdict()]
    assert letter_facts(row(), letter())["failures"] == []


class Stored:
    """A record of the log."""

    def __init__(self, value: bytes | None, key: bytes | None = b"j1") -> None:
        self._value, self._key = value, key

    def topic(self) -> str:
        return "shop.jobs.orders"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 3

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return [("h", b"\xff")]


@pytest.mark.parametrize(
    ("value", "kind", "field", "text"),
    [
        (None, "tombstone", "", None),
        (b"", "undecodable", "raw", ""),
        (b"\xff{", "undecodable", "raw", "\\xff{"),
        (encode(JOB), "Job", "payload", '{"order_id": 7}'),
        (encode(letter()), "DeadLetter", "reason", "exhausted"),
    ],
)
def test_any_record_can_be_described(value: bytes | None, kind: str, field: str, text: Any) -> None:
    found = describe_record(Stored(value))
    assert found["kind"] == kind
    assert (found["value"] or {}).get(field) == text
    assert found["headers"] == {"h": "\\xff"}
    assert json.dumps(found, default=str)


def test_a_record_within_a_record_is_opened() -> None:
    found = describe_record(Stored(encode(letter(progress=encode(CHECKPOINT)))))
    assert found["value"]["job"]["type"] == "order.charge"
    assert found["value"]["progress"]["attempt"] == 2
