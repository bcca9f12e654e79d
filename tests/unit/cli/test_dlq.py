"""`processor dlq`, on an app bound to the memory broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processor.cli.dlq import dlq
from processor.job import Failure, Job
from processor.wire.codec import decode_audit, decode_job
from processor.wire.records import AuditRecord
from tests.unit.cli.shop import AT, Shop


def sent(shop: Shop) -> list[Job]:
    return [decode_job(record.value() or b"") for record in shop.broker.records("shop.jobs.bulk.due")]


def audits(shop: Shop) -> list[AuditRecord]:
    return [decode_audit(record.value() or b"") for record in shop.broker.records("shop.audit")]


def address(shop: Shop, job_id: str) -> str:
    rows = shop.json(dlq, "list", "--state", "all")
    found: str = next(row["address"] for row in rows if row["id"] == job_id)
    return found


# -- looking -----------------------------------------------------------------------------------------------------------


def test_a_list_shows_what_is_open(shop: Shop) -> None:
    assert shop.run(dlq, "list").stderr == "no open dead letters\n"
    shop.letter("j1")
    shop.letter("j2", at=AT + 1, reason="crash_loop")
    result = shop.run(dlq, "list")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ADDRESS", "ID", "TYPE", "QUEUE", "REASON", "TRIES", "AGE", "ERROR"]
    assert [line.split()[1:6] for line in lines[1:]] == [
        ["j1", "import.file", "bulk", "exhausted", "3"],
        ["j2", "import.file", "bulk", "crash_loop", "3"],
    ]
    assert lines[1].endswith("builtins.ValueError: no such customer")
    assert [row["id"] for row in shop.json(dlq, "list", "--dead-reason", "crash_loop")] == ["j2"]
    assert shop.json(dlq, "list", "--since", "1s") == []
    few = shop.run(dlq, "list", "-n", "1")
    assert ("j2" in few.stdout, "j1" in few.stdout) == (True, False)
    assert "the newest 1 of 2" in few.stderr
    shop.run(dlq, "discard", "j1", "--yes")
    assert "not shown: 1 discarded (--state all)" in shop.run(dlq, "list").stderr
    assert "discarded" in shop.run(dlq, "list", "--state", "all").stdout


def test_groups_tell_one_error_from_the_next(shop: Shop) -> None:
    for number in range(3):
        shop.letter(f"j{number}")
    shop.letter("other", failures=[Failure("E", "m" * 500)], reason="unsendable")
    lines = shop.run(dlq, "list", "--group-by", "fingerprint").stdout.splitlines()
    assert lines[0].split() == ["FINGERPRINT", "COUNT", "LAST", "TYPES", "REASONS", "EXAMPLE", "ERROR"]
    assert lines[1].split()[:2] == ["f1", "3"]
    assert max(map(len, lines)) < 220
    assert max(map(len, shop.run(dlq, "list").stdout.splitlines())) < 220
    assert [group["count"] for group in shop.json(dlq, "list", "--group-by", "reason")] == [3, 1]


def test_show_has_the_failures_what_was_saved_and_the_payload(shop: Shop) -> None:
    shop.letter("j1")
    text = shop.run(dlq, "show", "j1").stdout
    for said in (
        "saved     rows: 501 of 1000, at 501",
        'job state  {"good": 3}',
        "steps     head",
        'payload   {"url": "a"}',
        "attempt 3, 2026-01-01",
        "builtins.ValueError: no such customer",
        "  pay()",
    ):
        assert said.split(maxsplit=1)[-1] in text, text
    found = shop.json(dlq, "show", address(shop, "j1"))
    assert (found["state"], found["job"]["payload"], found["steps"][0]["step"]) == ("open", {"url": "a"}, "head")
    assert [failure["attempt"] for failure in found["failures"]] == [1, 2, 3]


def test_show_of_what_is_no_job(shop: Shop) -> None:
    shop.letter("", job=Job("x", "", 1, "", b"", 1))
    shop.write("shop.dlq", "k", b"garbage")
    rows = shop.json(dlq, "list")
    (foreign,) = [row["address"] for row in rows if row["reason"] == "undecodable"]
    assert "dlq export has its bytes" in shop.run(dlq, "show", foreign).stdout
    (line,) = shop.run(dlq, "export", foreign).stdout.splitlines()
    assert json.loads(line)["raw_base64"] == "Z2FyYmFnZQ=="


def test_an_export_is_one_line_per_letter(shop: Shop) -> None:
    shop.letter("j1")
    shop.letter("j2", progress=b"broken", steps=[b"broken"])
    lines = [json.loads(line) for line in shop.run(dlq, "export").stdout.splitlines()]
    assert {line["id"]: "unreadable" in line["progress"] for line in lines} == {"j1": False, "j2": True}
    assert shop.run(dlq, "export", "j1", "--state", "redriven").exit_code == 1


# -- changing ----------------------------------------------------------------------------------------------------------


def test_all_open_letters_go_back(shop: Shop) -> None:
    for number in range(3):
        shop.letter(f"j{number}")
    shop.run(dlq, "discard", "j0", "--yes", "--reason", "a test")
    result = shop.run(dlq, "redrive", "--all-open", "--yes", "--reason", "the fix is out")
    assert (result.exit_code, result.stdout) == (0, "2 letters redriven\n"), result.stderr
    assert {(job.id, job.life) for job in sent(shop)} == {("j1", 2), ("j2", 2)}
    assert all(job.carried is not None for job in sent(shop))
    assert sorted((audit.action, audit.reason) for audit in audits(shop)) == [
        ("discard", "a test"),
        ("redrive", "the fix is out"),
        ("redrive", "the fix is out"),
    ]
    again = shop.run(dlq, "redrive", "--all-open", "--yes")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "no open dead letter is meant\n")
    assert shop.json(dlq, "redrive", "--all-open", "--yes") == {"done": 0, "skipped": 0, "refused": []}
    shown = shop.run(dlq, "show", "j1").stdout
    assert ": the fix is out" in shown


def test_a_letter_is_redriven_by_name_once(shop: Shop) -> None:
    shop.letter("j1")
    place = address(shop, "j1")
    assert shop.run(dlq, "redrive", place, "j1", "--yes").stdout == "1 letter redriven\n"
    for name in (place, "j1"):
        result = shop.run(dlq, "redrive", name, "--yes")
        assert result.exit_code == 1
        assert f"error: dead letter {place} was redriven already by " in result.stderr
        assert "life 2 of job j1 has begun" in result.stderr
    assert len(sent(shop)) == 1


def test_a_dry_run_sends_nothing(shop: Shop) -> None:
    shop.letter("j1")
    shop.letter("j2", progress=None, steps=None)
    shop.letter("lost", job=Job("lost", "mail", 1, "gone", b"", AT))
    result = shop.run(dlq, "redrive", "--all-open", "--dry-run")
    assert result.exit_code == 0
    assert "go on from its checkpoint" in result.stdout
    assert "begin at the beginning" in result.stdout
    assert "its queue 'gone' has no topic 'shop.jobs.gone.due'" in result.stdout.splitlines()[-1]
    assert result.stderr == "2 letters would be redriven, 1 refused; nothing was sent\n"
    assert "1 letter would be discarded" in shop.run(dlq, "discard", "j1", "--dry-run").stderr
    assert (sent(shop), audits(shop)) == ([], [])


def test_what_cannot_be_redriven_is_told_and_the_rest_goes(shop: Shop) -> None:
    shop.letter("j1")
    shop.letter("lost", job=Job("lost", "mail", 1, "gone", b"", AT))
    result = shop.run(dlq, "redrive", "--all-open", "--yes")
    assert (result.exit_code, result.stdout) == (1, "1 letter redriven\n")
    assert "warning: the app has no job type mail" in result.stderr
    assert "its queue 'gone' has no topic" in result.stderr
    assert "error: 1 of 2 letters could not be redriven" in result.stderr
    assert shop.run(dlq, "discard", "lost", "--yes").exit_code == 0


def test_a_payload_is_edited_and_checked(shop: Shop, tmp_path: Path) -> None:
    shop.letter("j1")
    refused = shop.run(dlq, "redrive", "j1", "--yes", "--payload", '{"urll": 1}')
    assert (refused.exit_code, "the payload is refused" in refused.stderr) == (1, True)
    file = tmp_path / "order.json"
    file.write_text('{"url": "b"}')
    assert shop.run(dlq, "redrive", "j1", "--yes", "--from-zero", "--payload", f"@{file}").exit_code == 0
    (job,) = sent(shop)
    assert (job.payload, job.carried) == (b'{"url":"b"}', None)
    (audit,) = audits(shop)
    assert audit.detail == "from zero, with another payload"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["redrive"], 2, "which letters?"),
        (["redrive", "j1"], 2, "nobody to ask here"),
        (["redrive", "", "--yes"], 2, "an empty name means no letter"),
        (["redrive", "j1", "--all-open", "--yes"], 2, "not both"),
        (["redrive", "j1", "--type", "mail", "--yes"], 2, "not both"),
        (["redrive", "0@999", "--yes"], 1, "there is no dead letter 0@999"),
        (["redrive", "1@x", "--yes"], 1, "no dead letter of a job 1@x"),
        (["redrive", "j1", "nobody", "--yes"], 1, "no dead letter of a job nobody"),
        (["redrive", "--all-open", "--yes", "--payload", "{}"], 2, "--payload is for one job, and 2 letters"),
        (["redrive", "j1", "--yes", "--payload", "{url: 1}"], 2, "is not JSON"),
        (["redrive", "j1", "--yes", "--payload", "NaN"], 1, "cannot be sent as it is"),
        (["redrive", "j1", "--yes", "--payload", "@nowhere"], 2, "cannot be read"),
        (["redrive", "j1", "--yes", "--rate", "0"], 2, "more than 0"),
        (["redrive", "j1", "--yes", "--rate", "nan"], 2, "more than 0"),
        (["redrive", "--since", "soon", "--yes"], 2, "is no length of time"),
        (["show", "nobody"], 1, "no dead letter of a job nobody"),
        (["export", "nobody"], 1, "no dead letter of a job nobody"),
        (["list", "--state", "gone"], 2, "is not one of"),
        (["discard"], 2, "which letters?"),
    ],
)
def test_what_cannot_be_done_is_explained_and_nothing_is_sent(
    shop: Shop, args: list[str], code: int, said: str
) -> None:
    shop.letter("j1")
    shop.letter("j2")
    result = shop.run(dlq, *args)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert (sent(shop), audits(shop)) == ([], [])
