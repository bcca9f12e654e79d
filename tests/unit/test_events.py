"""Logs cannot hurt: whatever a field is, a log call raises nothing and gives one line that can be read."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import logging.config
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor import events
from processor.context import Context
from processor.logs import LINE, JsonLines, Lines, TextLines, configure
from tests.integration.bad_jobs import RAISED, Chatty, Mute, Speechless
from tests.unit.context.recording_port import RecordingPort


class Cursed:
    """Nothing of it can be asked for."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        return 12_345


def cycle() -> dict[str, Any]:
    made: dict[str, Any] = {"a": 1}
    made["self"] = made
    made["list"] = [made]
    return made


def deep() -> Any:
    made: Any = []
    for _ in range(100_000):
        made = [made]
    return made


ODD: dict[str, Callable[[], Any]] = {
    "no text": Cursed,
    "a cycle": cycle,
    "deep nesting": deep,
    "half a pair": lambda: "x\udcff",
    "half a pair as a key": lambda: {"\udcff": 1},
    "keys that are no text": lambda: {1: 2, None: 3, (4,): 5, Cursed(): 6},
    "50 MB": lambda: "x" * 50_000_000,
    "a million items": lambda: list(range(1_000_000)),
    "bytes": lambda: b"\x00\xff",
    "a huge number": lambda: 10**5000,
    "nan": lambda: float("nan"),
    "a set": lambda: {1, "a"},
    "lines": lambda: "a\nb\r\x1b[31m\u2028c",
    "an exception": lambda: Speechless("?"),
    "a mute one": lambda: Mute("?"),
    "a chatty one": lambda: Chatty("?"),
    "a class": lambda: Cursed,
    "the logger itself": lambda: logging.getLogger(),
}


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What a worker writes, as the command line sets it up."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.parametrize("fmt", ["json", "text"])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_field_is_one_readable_line(output: io.StringIO, fmt: str, kind: str) -> None:
    configure(fmt, stream=output)
    Context(RecordingPort()).log.warning("it happened", extra={"odd": ODD[kind](), "plain": 7})
    events.logger("processor.engine.test").error("test.event", extra={"odd": ODD[kind](), "job_id": "j-1"})
    text = output.getvalue()
    text.encode()
    *lines, rest = text.split("\n")
    assert (len(lines), rest) == (2, "")
    assert all(len(line) < 2 * LINE for line in lines)
    if fmt == "json":
        first, second = map(json.loads, lines)
        assert (first["event"], first["plain"], first["job_id"]) == ("it happened", 7, "job-1")
        assert (second["event"], second["job_id"]) == ("test.event", "j-1")
    else:
        assert "it happened" in lines[0]
        assert "job_id=j-1" in lines[1]


@pytest.mark.parametrize("name", ["message", "name", "args", "msg", "exc_info", "asctime", 7, None, "\udcff", ""])
def test_a_field_of_any_name_is_taken(output: io.StringIO, name: Any) -> None:
    """`logging` itself raises KeyError out of the log call for some of these."""
    configure("json", stream=output)
    Context(RecordingPort()).log.warning("it happened", extra={name: "value"})
    line = json.loads(output.getvalue())
    assert "value" in line.values()
    assert line["event"] == "it happened"


@pytest.mark.parametrize("kind", RAISED)
def test_any_exception_can_be_logged(output: io.StringIO, kind: str) -> None:
    for fmt in ("json", "text"):
        configure(fmt, stream=output)
        try:
            raise RAISED[kind]()
        except BaseException:  # noqa: BLE001  (panics are no Exception)
            Context(RecordingPort()).log.exception("it failed")
    line = json.loads(output.getvalue().splitlines()[0])
    assert "test_events.py" in line["traceback"]


@pytest.mark.parametrize("fmt", ["json", "text"])
def test_a_message_that_does_not_fit_its_arguments_is_told(output: io.StringIO, fmt: str, capsys: Any) -> None:
    configure(fmt, stream=output)
    Context(RecordingPort()).log.warning("%d rows of %s", "many")
    Context(RecordingPort()).log.warning("%s", Cursed())
    assert len(output.getvalue().splitlines()) == 2
    assert "many" in output.getvalue()
    assert capsys.readouterr().err == ""


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(), max_size=8), values, max_size=5), st.text(st.characters(), max_size=50))
def test_every_line_can_be_read(fields: dict[str, Any], message: str) -> None:
    record = logging.makeLogRecord({"name": "processor.x", "levelname": "INFO", "msg": message})
    record.__dict__.update(events.checked_fields(fields))
    line = JsonLines().format(record)
    assert "\n" not in line
    line.encode()
    assert json.loads(line)["logger"] == "processor.x"
    TextLines().format(record).encode()


def test_a_foreign_formatter_shows_what_matters() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger("processor.engine.foreign")
    root.addHandler(handler)
    fields = {"other": 1, "error": "ValueError: no", "job_type": "import.file", "job_id": "j-1"}
    events.logger("processor.engine.foreign").error("job.failed", extra=fields)
    root.removeHandler(handler)
    assert stream.getvalue() == "ERROR job.failed job_id=j-1 job_type=import.file error=ValueError: no other=1\n"


def test_a_users_own_configuration_does_not_silence_alarms(output: io.StringIO) -> None:
    """`disable_existing_loggers` is True by default."""
    log = events.logger("processor.engine.alarms")
    configure("text", stream=output)
    logging.config.dictConfig({"version": 1})
    assert log.logger.disabled
    log.error("number.held", extra={"number": 3})
    assert "number.held number=3" in output.getvalue()
    logging.getLogger("processor").setLevel(logging.CRITICAL)
    try:
        log.error("number.held", extra={"number": 4})
        assert "number=4" not in output.getvalue()
    finally:
        logging.getLogger("processor").setLevel(logging.NOTSET)
        for other in logging.Logger.manager.loggerDict.values():
            if isinstance(other, logging.Logger):
                other.disabled = False


def test_a_stream_that_takes_nothing_harms_nobody(capsys: Any) -> None:
    closed = io.StringIO()
    closed.close()
    reader, writer = os.pipe()
    os.close(reader)
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    broken = os.fdopen(writer, "w", 1)
    for stream in (closed, broken, narrow):
        handler = Lines(stream)
        handler.setFormatter(TextLines())
        for _ in range(3):
            handler.emit(logging.makeLogRecord({"msg": "Zoë", "levelname": "INFO"}))
    with contextlib.suppress(OSError):
        broken.close()
    narrow.seek(0)
    assert "Zo\\xeb" in narrow.read()
    assert capsys.readouterr().err == ""
