"""Log set-up of a worker process: lines for a person, or one JSON object per line for a machine.

The library itself configures nothing; the command line calls `configure`. Records are events: a constant dotted name
plus fields given as `extra`. Everything goes to stderr through one handler, librdkafka's lines included.
"""

from __future__ import annotations

import io
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TextIO

from processor import events
from processor.texts import message_of, plain, shown, traceback_of

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every record has; the others are fields of the event."""
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"
LINE = 32_000
"""Characters of all fields of a line together, tracebacks apart."""
FIELD = 8_000
"""Characters of one field."""
MESSAGE = 8_000
ITEMS = 100
"""Of a container, the first ones are shown."""
DEPTH = 5
CUT = "<cut>"
_KEPT_EVENTS = 2000
"""Events whose repeats are counted; beyond that the counting starts anew."""


def configure(fmt: str = "text", *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log record of this process to `stream` (stderr) as `text` or `json`."""
    stream = stream or sys.stderr
    handler = Lines(stream)
    handler.setFormatter(JsonLines() if fmt == "json" else TextLines(colours=stream.isatty()))
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


def write_lines_at_once() -> None:
    """Let each line that is printed leave at once: into a pipe Python writes when 8 KiB are full, and a process that is
    killed loses those.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines; a stream that is closed, full or of a narrow encoding harms nobody who logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, as far as the stream takes it."""
        try:
            line = self.format(record) + self.terminator
            try:
                self.stream.write(line)
            except UnicodeEncodeError:
                encoding = getattr(self.stream, "encoding", None) or "ascii"
                self.stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
            self.flush()
        except Exception:  # noqa: BLE001  (there is nobody to tell: this is how one tells)
            return


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`."""
    # `makeLogRecord` and other packages put whatever they like there.
    names: list[Any] = [name for name in vars(record) if type(name) is str and name not in _STANDARD]
    return {name: vars(record)[name] for name in names if not name.startswith("_")}


def event_of(record: logging.LogRecord) -> str:
    """The name of an event; of any other record the message, whatever its arguments do."""
    if isinstance(record.msg, events.Event):
        return events.name_of(record.msg)
    try:
        return plain(record.getMessage(), MESSAGE)
    except Exception:  # noqa: BLE001  (the caller's format does not fit its arguments)
        return plain(f"{message_of(record.msg, MESSAGE)} {shown(record.args, MESSAGE)}", MESSAGE)


class JsonLines(logging.Formatter):
    """One object per line: ts (RFC 3339, UTC), level, event, logger, the event's fields, error and traceback if any.

    Whatever the fields are, it is one line of valid JSON of at most about `LINE` characters.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "ts": _moment(record.created),
            "level": record.levelname.lower(),
            "event": event_of(record),
            "logger": record.name,
        }
        room = [LINE]
        for key, value in fields_of(record).items():
            line.setdefault(plain(key, 100), _jsonable(value, DEPTH, room))
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = shown(record.exc_info[1])
            line["traceback"] = traceback_of(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, allow_nan=False)


class TextLines(logging.Formatter):
    """Time, level, event, then `name=value` for each field."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        room = [LINE]
        shown_fields = (f"{plain(key, 100)}={_text(value, room)}" for key, value in fields_of(record).items())
        fields = " ".join(shown_fields)
        event = event_of(record)
        if self._colours:
            colour = _COLOURS.get(record.levelno, "")
            line = f"{_DIM}{clock}{_RESET} {colour}{record.levelname.lower():<7} {event}{_RESET if colour else ''}"
            line += f" {_DIM}{fields}{_RESET}" if fields else ""
        else:
            line = f"{clock} {record.levelname.lower():<7} {event}" + (f" {fields}" if fields else "")
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + traceback_of(record.exc_info[1]).rstrip()
        return line


class Repeats(logging.Filter):
    """Lets a warning of ours pass `burst` times per `period` seconds (what is less than a warning ten times as often);
    the first one after that says how many it stands for (`repeated`). A broker that is away, or a handler that always
    fails, must not fill a disk. What handlers and other packages log is never dropped.
    """

    def __init__(self, *, burst: int = 10, period: float = 10.0, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst = burst
        self._period = period
        self._now = now
        self._seen: dict[tuple[str, int, str], list[float]] = {}
        """(logger, level, event) -> [start of the period, passed, dropped]."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        if not record.name.startswith("processor.") or not isinstance(record.msg, events.Event):
            return True
        key = (record.name, record.levelno, f"{events.name_of(record.msg)[:120]} {getattr(record, 'facility', '')}")
        now = self._now()
        seen = self._seen.get(key)
        if seen is None or now - seen[0] >= self._period:
            if len(self._seen) >= _KEPT_EVENTS:
                self._seen.clear()
            if seen is not None and seen[2]:
                record.repeated = int(seen[2])
            self._seen[key] = [now, 1, 0]
            return True
        if seen[1] < (self._burst if record.levelno >= logging.WARNING else self._burst * 10):
            seen[1] += 1
            return True
        seen[2] += 1
        return False


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _jsonable(value: object, depth: int, room: list[int]) -> object:
    """A value that JSON takes, within what is left of the line's room."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int and value.bit_length() < 64:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if room[0] <= 0:
        return CUT
    if depth > 0 and isinstance(value, Mapping):
        return _guarded(value, lambda: {_text_key(k): _jsonable(v, depth - 1, room) for k, v in _some(value.items())})
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return _guarded(value, lambda: [_jsonable(each, depth - 1, room) for each in _some(value)])
    text = message_of(value, min(FIELD, room[0]))
    room[0] -= len(text)
    return text


def _guarded(value: object, made: Callable[[], object]) -> object:
    try:
        return made()
    except Exception:  # noqa: BLE001  (a container of the caller's, changing while it is read)
        return f"<{type(value).__name__} that cannot be shown>"


def _some(values: Iterable[Any]) -> Iterable[Any]:
    return islice(values, ITEMS)


def _text_key(key: object) -> str:
    return message_of(key, 100)


def _text(value: object, room: list[int]) -> str:
    """A value on a text line: quoted if it has blanks or would break the line."""
    plain_value = _jsonable(value, DEPTH, room)
    if isinstance(plain_value, str):
        odd = plain_value == "" or any(c in plain_value for c in ' "=') or not plain_value.isprintable()
        return json.dumps(plain_value, ensure_ascii=False) if odd else plain_value
    return json.dumps(plain_value, ensure_ascii=False) if isinstance(plain_value, dict | list) else str(plain_value)
