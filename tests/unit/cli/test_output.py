"""How commands speak."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from processor.cli.output import Column, Output, moment, output_options, show
from processor.errors import BrokerUnavailable, ProcessorError, UnknownQueue
from processor.states import State


def run(body: Any, *args: str) -> Result:
    @click.command()
    @output_options
    def command(out: Output) -> None:
        body(out)

    return CliRunner().invoke(command, list(args))


ROWS = [{"queue": "bulk", "lag": 7, "state": State.RUNNING}, {"queue": "mail-of-shop", "lag": 12, "state": None}]
COLUMNS = [Column(name="queue"), Column(name="lag", right=True), Column(name="state")]


def test_a_pipe_gets_aligned_columns_without_colour() -> None:
    result = run(lambda out: out.table(COLUMNS, ROWS))
    assert result.stdout == "QUEUE         LAG  STATE\nbulk            7  running\nmail-of-shop   12  -\n"


def test_json_is_one_document() -> None:
    result = run(lambda out: out.table(COLUMNS, ROWS), "--json")
    assert json.loads(result.stdout) == [
        {"queue": "bulk", "lag": 7, "state": "running"},
        {"queue": "mail-of-shop", "lag": 12, "state": None},
    ]
    assert json.loads(run(lambda out: out.table(COLUMNS, []), "--json").stdout) == []
    assert json.loads(run(lambda out: out.facts({"at": b"x", "set": {"b", "a"}}), "--json").stdout) == {
        "at": "x",
        "set": ["a", "b"],
    }


def test_an_empty_table_says_so_beside_the_results() -> None:
    result = run(lambda out: out.table(COLUMNS, [], empty="no queues"))
    assert (result.stdout, result.stderr) == ("", "no queues\n")


def test_records_come_one_per_line() -> None:
    result = run(lambda out: [out.record({"n": n}, f"n={n}") for n in range(2)], "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [{"n": 0}, {"n": 1}]
    assert run(lambda out: out.record({}, "n=1")).stdout == "n=1\n"


@pytest.mark.parametrize("error", [BrokerUnavailable("no broker", hint="start one"), UnknownQueue("what?")])
def test_an_error_of_ours_is_a_message_a_hint_and_an_exit_code(error: ProcessorError) -> None:
    def fail(_: Output) -> None:
        raise error

    result = run(fail)
    assert result.exit_code == error.exit_code
    assert result.stderr.splitlines()[0] == f"error: {error}"
    assert ("hint: start one" in result.stderr) == bool(error.hint)
    assert "Traceback" not in result.stderr
    assert run(fail, "--debug").exception is error


def test_ctrl_c_ends_with_the_shells_code() -> None:
    def interrupt(_: Output) -> None:
        raise KeyboardInterrupt

    result = run(interrupt)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_other_errors_keep_their_traceback() -> None:
    def fail(_: Output) -> None:
        raise ZeroDivisionError

    assert isinstance(run(fail).exception, ZeroDivisionError)


def test_progress_without_a_terminal_is_two_lines() -> None:
    def work(out: Output) -> None:
        with out.progress("reading", total=3) as tick:
            for _ in range(3):
                tick()

    assert run(work).stderr == "reading ...\nreading: 3 of 3\n"


def test_facts_and_lines() -> None:
    result = run(lambda out: (out.facts({"a": 1, "long": True}), out.line("done", "good"), out.warning("look")))
    assert result.stdout == "a     1\nlong  yes\ndone\n"
    assert result.stderr == "warning: look\n"
    assert run(lambda out: out.line("done"), "--json").stdout == ""


def test_what_a_job_carries_cannot_drive_the_terminal() -> None:
    assert show("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert show(b"\xff\x00") == "\\xff\\x00"
    assert [show(value) for value in (None, False, 0.5, State.DEAD, "ä")] == ["-", "no", "0.5", "dead", "ä"]


def test_what_has_more_than_one_line_is_shown_so_and_indented_as_one_fact() -> None:
    result = run(lambda out: out.facts({"id": "job-1", "error": "Boom: line one\r\nstate  succeeded\n\x1b[2J"}))
    assert result.stdout == "id     job-1\nerror  Boom: line one\n       state  succeeded\n       \\x1b[2J\n"


def test_moments_are_utc() -> None:
    assert moment(1_767_225_600_000) == "2026-01-01 00:00:00Z"
    assert moment(None) == "-"
    assert moment(10**18) == str(10**18)
