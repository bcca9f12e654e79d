"""Log lines of a worker: JSON for machines, text for people, and repeats held back."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from processor import events
from processor.logs import JsonLines, Repeats, TextLines, configure


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def record(event: str = "job.failed", level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "processor.engine.outcomes", "levelno": level, "levelname": logging.getLevelName(level)}
        | {"msg": events.Event(event, fields)}
        | fields
    )


def test_a_json_line_holds_the_event_and_its_fields() -> None:
    line = json.loads(JsonLines().format(record(job_id="j-1", attempt=2, queue="bulk")))
    assert datetime.fromisoformat(line.pop("ts")).utcoffset() is not None
    assert line == {
        "level": "warning",
        "event": "job.failed",
        "logger": "processor.engine.outcomes",
        "job_id": "j-1",
        "attempt": 2,
        "queue": "bulk",
    }


def test_a_json_line_stays_one_line_with_a_traceback_and_odd_values() -> None:
    try:
        raise ValueError("bad\nvalue")
    except ValueError as error:
        made = record(path=object())
        made.exc_info = (ValueError, error, error.__traceback__)
    text = JsonLines().format(made)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["traceback"]


def test_a_text_line_quotes_what_has_blanks_and_has_no_colours_off_a_terminal() -> None:
    text = TextLines().format(record(reason="no room", number=3))
    assert text.endswith('job.failed reason="no room" number=3')
    assert "\x1b" not in text


def test_colours_are_for_terminals() -> None:
    assert "\x1b[33m" in TextLines(colours=True).format(record())


def test_repeats_are_held_back_and_counted() -> None:
    now = [0.0]
    repeats = Repeats(burst=2, period=10.0, now=lambda: now[0])
    assert [repeats.filter(record()) for _ in range(5)] == [True, True, False, False, False]
    assert repeats.filter(record("flush.failed"))
    now[0] = 10.0
    later = record()
    assert repeats.filter(later)
    assert json.loads(JsonLines().format(later))["repeated"] == 3


def test_lines_of_handlers_and_of_other_packages_are_never_held_back() -> None:
    repeats = Repeats(burst=1)
    for name in ("processor.job", "shop.jobs"):
        made = logging.makeLogRecord({"name": name, "msg": "row.imported", "levelno": logging.WARNING})
        assert all(repeats.filter(made) for _ in range(50))


def test_everything_goes_through_one_handler() -> None:
    stream = io.StringIO()
    configure("json", stream=stream)
    configure("json", stream=stream)
    logging.getLogger("processor.broker.kafka").warning("kafka.client", extra={"text": "broker away"})
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["text"] == "broker away"
