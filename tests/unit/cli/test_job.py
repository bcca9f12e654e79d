"""`processor job`, on an app bound to the memory broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from processor.cli.job import job
from processor.job import ErrorInfo, Lane
from processor.states import State
from processor.wire.codec import decode_job
from processor.wire.topics import jobs_topic
from tests.unit.cli.shop import AT, Shop

PAYLOAD = '{"url": "a"}'


def lane(shop: Shop) -> list[bytes]:
    return [record.value() or b"" for record in shop.broker.records(jobs_topic("shop", "bulk", Lane.NORMAL))]


# -- enqueue -----------------------------------------------------------------------------------------------------------


def test_enqueue_prints_the_id_alone(shop: Shop) -> None:
    result = shop.run(job, "enqueue", "import.file", PAYLOAD)
    assert result.exit_code == 0, result.output
    (value,) = lane(shop)
    sent = decode_job(value)
    assert (result.stdout, sent.payload) == (f"{sent.id}\n", b'{"url":"a"}')


def test_the_payload_comes_from_a_file_or_the_standard_input(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text(PAYLOAD)
    assert shop.run(job, "enqueue", "import.file", f"@{file}", "--id", "one").stdout == "one\n"
    assert shop.run(job, "enqueue", "import.file", "-", "--id", "two", stdin=PAYLOAD).stdout == "two\n"
    assert [decode_job(value).payload for value in lane(shop)] == [b'{"url":"a"}'] * 2


def test_the_app_checks_the_payload(shop: Shop) -> None:
    result = shop.run(job, "enqueue", "import.file", '{"urll": "a"}')
    assert result.exit_code == 1
    said = "error: job type import.file: the payload is refused: url: Field required\n"
    assert result.stderr.startswith(said), "in one line, without the value"
    assert lane(shop) == []


def test_at_the_limit_of_a_queue_the_hint_names_an_option_that_there_is(shop: Shop) -> None:
    shop.app.queue("small", max_backlog=1)
    shop.app.job("mail", queue="small")(lambda ctx: None)
    shop.broker.admin().create_topics([spec for spec in shop.app.topic_plan() if ".small" in spec.name])
    assert shop.run(job, "enqueue", "mail").exit_code == 0
    full = shop.run(job, "enqueue", "mail")
    assert full.exit_code == 1
    assert full.stderr == (
        "error: queue small is full: it holds 1 job, its limit is 1\n"
        "hint: try again in 1 s, or wait for room: --when-full wait\n"
    )
    assert "--when-full [raise|wait]" in shop.run(job, "enqueue", "--help").stdout


def test_a_bare_namespace_needs_no_code(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processor.cli.target.Target.app", lambda _: type(shop.app)("shop", broker=shop.broker))
    args = ["enqueue", "x", "[1]", "--namespace", "shop", "-q", "bulk", "--key", "k", "--payload-version", "3"]
    found = json.loads(CliRunner().invoke(job, [*args, "--json"]).stdout)
    (value,) = lane(shop)
    sent = decode_job(value)
    assert found == {"id": sent.id, "type": "x", "queue": "bulk"}
    assert (sent.type, sent.key, sent.version, sent.payload) == ("x", "k", 3, b"[1]")
    result = CliRunner().invoke(job, ["enqueue", "x", "--namespace", "shop"])
    assert (result.exit_code, "which queue?" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["import.file", "{url: 1}"], 2, "is not JSON"),
        (["import.file", "@no-such-file.json"], 2, "cannot be read"),
        (["import.fil"], 2, "did you mean import.file?"),
        (["mail"], 2, "it has: import.file"),
        (["mail", "-q", "bluk"], 4, "the queues bulk, default"),
        (["import.file", PAYLOAD, "--key", "k"], 2, "--key cannot change them"),
        (["import.file", PAYLOAD, "--queue", "default"], 2, "belongs to queue bulk"),
        (["import.file", PAYLOAD, "--id", "a#b"], 2, "holds no '#'"),
        (["import.file", PAYLOAD, "--wait-result", "soon"], 2, "is no length of time"),
        (["import.file", PAYLOAD, "--namespace", "shop"], 2, "not both"),
    ],
)
def test_what_cannot_be_enqueued_is_explained(shop: Shop, args: list[str], code: int, said: str) -> None:
    result = shop.run(job, "enqueue", *args)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert lane(shop) == []


def test_waiting_for_the_result_prints_it(shop: Shop) -> None:
    shop.status("j1", State.SUCCEEDED, result=b'{"good": 3}')
    result = shop.run(job, "enqueue", "import.file", PAYLOAD, "--id", "j1", "--wait-result")
    assert json.loads(result.stdout) == {"good": 3}
    assert result.stderr == "enqueued j1\n"


# -- result and watch --------------------------------------------------------------------------------------------------


def test_a_result_is_json_and_nothing_else(shop: Shop) -> None:
    shop.status("j1", State.SUCCEEDED, result=b"[1, 2]")
    assert json.loads(shop.run(job, "result", "j1").stdout) == [1, 2]
    shop.status("j2", State.SUCCEEDED)
    assert shop.run(job, "result", "j2").stdout == "null\n"
    found = shop.json(job, "result", "j1")
    assert (found["state"], found["result"], found["worker"]) == ("succeeded", [1, 2], "host-0")


def test_the_result_of_a_dead_job_is_its_error(shop: Shop) -> None:
    shop.died("j1")
    result = shop.run(job, "result", "j1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: job j1 ended dead: builtins.ValueError: no such customer\n"
    result = shop.run(job, "result", "j1", "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (1, "dead")


def test_a_job_that_has_not_ended_is_told_as_such(shop: Shop) -> None:
    shop.status("j1", State.RUNNING)
    result = shop.run(job, "result", "j1", "--timeout", "0s")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "it is running" in result.stderr
    result = shop.run(job, "result", "j2", "--timeout", "50ms")
    assert result.exit_code == 1
    assert "warning: nothing is known of job j2 in namespace shop" in result.stderr
    assert "it has no status yet" in result.stderr


def test_a_watch_without_a_terminal_is_a_line_per_change(shop: Shop) -> None:
    shop.status("j1", State.SUCCEEDED)
    result = shop.run(job, "watch", "j1")
    assert (result.exit_code, result.stdout) == (0, "2026-01-01 00:00:00Z  succeeded  host-0\n")
    shop.status("j2", State.RUNNING, done=501.0, total=1000.0, attempt=2, note="half\x1b[2J")
    result = shop.run(job, "watch", "j2", "--timeout", "50ms")
    told = "2026-01-01 00:00:00Z  running  attempt 2  501 of 1000 (50 %)  half\\x1b[2J  host-0\n"
    assert (result.exit_code, result.stdout) == (1, told)
    shop.died("j3")
    result = shop.run(job, "watch", "j3", "--json")
    assert (result.exit_code, json.loads(result.stdout)["error"]) == (1, "builtins.ValueError: no such customer")


# -- list and show -----------------------------------------------------------------------------------------------------


def test_a_list_has_states_ages_and_errors(shop: Shop) -> None:
    shop.died("j1")
    shop.status("j2", State.RUNNING, at=AT_LATER, done=5.0, total=10.0)
    shop.run(job, "enqueue", "import.file", PAYLOAD, "--id", "j3")
    lines = shop.run(job, "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "TYPE", "QUEUE", "STATE", "AGE", "PROGRESS", "WHY"]
    assert [line.split()[0] for line in lines[1:]] == ["j3", "j2", "j1"]
    assert "5 of 10 (50 %)" in lines[2]
    assert lines[3].endswith("builtins.ValueError: no such customer")
    assert [row["id"] for row in shop.json(job, "list", "--state", "dead", "--state", "queued")] == ["j3", "j1"]
    assert shop.json(job, "list", "--type", "mail") == []
    result = shop.run(job, "list", "-n", "1")
    assert (len(result.stdout.splitlines()), result.stderr) == (2, "the latest 1; --limit shows more\n")
    result = shop.run(job, "list", "-q", "default")
    assert (result.stdout, result.stderr) == ("", "no such jobs in namespace shop\n")


AT_LATER = 1_767_225_700_000


def test_show_tells_what_is_known(shop: Shop) -> None:
    shop.died("j1")
    text = shop.run(job, "show", "j1").stdout
    assert "error    builtins.ValueError: no such customer" in text
    assert "Traceback ..." in text
    shop.status("j2", State.RUNNING)
    shop.saved("j2")
    text = shop.run(job, "show", "j2").stdout
    assert "saved    rows: 501 of 1000, at 501" in text
    assert "steps    head" in text
    shop.run(job, "enqueue", "import.file", PAYLOAD, "--id", "j3")
    assert shop.json(job, "show", "j3")["place"]["topic"] == "shop.jobs.bulk"
    assert "waits in  shop.jobs.bulk, partition" in shop.run(job, "show", "j3").stdout
    result = shop.run(job, "show", "j4")
    assert (result.exit_code, "nothing is known of job j4" in result.stderr) == (1, True)


def test_show_of_a_job_that_waits_for_its_retry_says_when_and_after_what(shop: Shop) -> None:
    error = ErrorInfo("builtins.ConnectionError", "the service does not answer")
    shop.status("j1", State.RETRYING, attempt=1, due_at=AT + 90_000, number=0, error=error)
    found = shop.json(job, "show", "j1")
    assert (found["attempt"], found["attempts"], found["due_at"]) == (1, 5, AT + 90_000)
    text = shop.run(job, "show", "j1").stdout
    assert "1 of 5" in text
    assert "goes on" in text
    assert "the service does not answer" in text
    status = shop.app.handle("j1").status()
    assert (status.attempt, status.attempts, status.due_at) == (1, None, AT + 90_000)
    typed = shop.app.job_types["import.file"].handle("j1").status()
    assert (typed.attempts, typed.error) == (5, "builtins.ConnectionError: the service does not answer")


def test_list_and_show_tell_how_long_a_job_may_take_and_why_it_ended(shop: Shop) -> None:
    shop.app.job("slow", queue="bulk", attempt_timeout="15m", stall_timeout="90s", queue_timeout="5m")(lambda ctx: None)
    now = shop.app.client().clock.now_ms()
    limits = {"kill_at": now + 7_200_000 + 30_000, "ends_at": now + 720_000 + 30_000}
    shop.status("j1", State.RUNNING, type="slow", at=now - 1_000, **limits)
    shop.status("j2", State.EXPIRED, type="slow", at=now - 2_000, note="it had not begun 300 s after it was due")
    shop.run(job, "enqueue", "slow", "--id", "j3", "--kill-after", "10m")
    told = shop.run(job, "list").stdout.splitlines()
    assert told[0].split() == ["ID", "TYPE", "QUEUE", "STATE", "AGE", "ENDS", "IN", "WHY"]
    assert [line.split()[5] for line in told[1:]] == ["9m", "12m", "-"]
    assert told[3].endswith("it had not begun 300 s after it was due")
    row = next(row for row in shop.json(job, "list") if row["id"] == "j1")
    assert {name: row[name] for name in limits} == limits
    text = shop.run(job, "show", "j1").stdout
    assert "(in 12m): attempt_timeout 15m" in text
    assert "stalls        after 1m30s without anything saved and without a heartbeat" in text
    assert "(in 2h)" in text
    assert "it had not begun 300 s" in shop.run(job, "show", "j2").stdout
    text = shop.run(job, "show", "j3").stdout
    assert "expires" in text
    assert "(in 4m), unless it has begun" in text
    assert "kill date" in text
    assert shop.json(job, "show", "j3")["limits"]["expires_at"] > now + 299_000


def test_a_job_that_waits_for_its_time_is_shown(shop: Shop) -> None:
    shop.run(job, "enqueue", "import.file", PAYLOAD, "--id", "j1", "--delay", "1h", "--kill-at", "2099-01-01T00:00Z")
    found = shop.json(job, "show", "j1")
    assert (found["state"], found["kill_at"]) == ("scheduled", 4_070_908_800_000)
    text = shop.run(job, "show", "j1").stdout
    assert "begins" in text
    assert "2099-01-01 00:00:00Z" in text


@pytest.mark.parametrize("moment", ["soon", "2099-01-01", "2099-01-01T00:00"])
def test_a_kill_date_needs_a_zone(shop: Shop, moment: str) -> None:
    result = shop.run(job, "enqueue", "import.file", PAYLOAD, "--kill-at", moment)
    assert (result.exit_code, "no moment with a zone" in result.stderr) == (2, True)


def test_why_answers_in_a_sentence_with_what_to_do(shop: Shop) -> None:
    shop.run(job, "enqueue", "import.file", PAYLOAD, "--id", "j1")
    result = shop.run(job, "why", "j1")
    assert result.stdout == "no worker serves queue bulk\n  start one: processor worker MODULE:APP -q bulk\n"
    shop.run(job, "enqueue", "import.file", PAYLOAD, "--id", "j2", "--delay", "1h")
    lines = shop.run(job, "why", "j2").stdout.splitlines()
    assert lines[0].startswith("it is not due before ")
    assert lines[2] == "also: no worker serves queue bulk"
    shop.died("j3")
    found = shop.json(job, "why", "j3")
    assert (found["state"], found["reasons"][0]["cause"]) == ("dead", "ended")
    assert found["reasons"][0]["advice"].startswith("processor dlq show j3")
    error = ErrorInfo("builtins.ConnectionError", "no answer")
    shop.status("j4", State.RETRYING, attempt=1, due_at=2**43, number=0, error=error)
    assert "attempt 1 of 5 failed (builtins.ConnectionError: no answer)" in shop.run(job, "why", "j4").stdout
    result = shop.run(job, "why", "j5")
    assert (result.exit_code, "nothing is known of job j5 in namespace shop" in result.stderr) == (1, True)
