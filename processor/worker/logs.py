"""Log set-up of a worker process: lines for a person, or one JSON object per line for a machine.

The library itself configures nothing; the command line calls `configure`. Records are events: a constant dotted name
plus fields given as `extra`. Everything goes to stderr through one handler, librdkafka's lines included.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every record has; the others are fields of the event."""
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"
_JOBS = "processor.job"
"""The logger behind `ctx.log`; the engine itself uses it for `job.failed` alone."""
_KEPT_EVENTS = 2000
"""Events whose repeats are counted; beyond that the counting starts anew."""


def configure(fmt: str = "text", *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log record of this process to `stream` (stderr) as `text` or `json`."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if fmt == "json" else TextLines(colours=stream.isatty()))
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and not key.startswith("_")}


class JsonLines(logging.Formatter):
    """One object per line: ts (RFC 3339, UTC), level, event, logger, the event's fields, error and traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "ts": _moment(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        for key, value in fields_of(record).items():
            line.setdefault(key, value)
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = repr(record.exc_info[1])
            line["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(line, default=str, ensure_ascii=False)


class TextLines(logging.Formatter):
    """Time, level, event, then `name=value` for each field."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{key}={_shown(value)}" for key, value in fields_of(record).items())
        event = record.getMessage()
        if self._colours:
            colour = _COLOURS.get(record.levelno, "")
            line = f"{_DIM}{clock}{_RESET} {colour}{record.levelname.lower():<7} {event}{_RESET if colour else ''}"
            line += f" {_DIM}{fields}{_RESET}" if fields else ""
        else:
            line = f"{clock} {record.levelname.lower():<7} {event}" + (f" {fields}" if fields else "")
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
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
        if not record.name.startswith("processor.") or (record.name == _JOBS and record.msg != "job.failed"):
            return True
        key = (record.name, record.levelno, f"{str(record.msg)[:120]} {getattr(record, 'facility', '')}")
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


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if text == "" or any(c in text for c in ' "\n=') else text
