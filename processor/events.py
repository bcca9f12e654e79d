"""Log events: a constant dotted name and fields, told in full to whatever formatter there is.

    log = events.logger(__name__)
    log.warning("job.failed", extra={"job_id": job.id, "error": text})

Our own formatters print the name and the fields. A foreign one usually drops what is given as `extra`, and at 3 a.m.
"job.failed" alone helps nobody: so the message of the record is the name *and* its fields. Fields are made harmless
here, where they are logged: whatever a value does when it is shown, no log call raises.

`logging.config` disables all loggers that exist when it is called, unless it is told otherwise. Alarms are not to fall
silent by that: ours go on. To hold them back, set the level of the logger `processor`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

from processor.texts import message_of, plain

SHOWN = ("job_id", "job_type", "queue", "number", "reason", "kind", "error")
"""Fields that come first in the message of a record."""
VALUE = 500
"""Characters of a field in the message of a record."""
NAMES = 40
"""Fields of an event at most."""
_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Attributes of every record: a field of such a name would be an error of the log call."""


class Event(str):
    """The name of an event; as text, with its fields."""

    __slots__ = ("fields",)

    fields: Mapping[str, object]

    def __new__(cls, name: str, fields: Mapping[str, object]) -> Event:
        event = super().__new__(cls, name)
        event.fields = fields
        return event

    def __str__(self) -> str:
        first = [name for name in SHOWN if name in self.fields]
        names = [*first, *(name for name in self.fields if name not in first)]
        told = "".join(f" {name}={message_of(self.fields[name], VALUE)}" for name in names)
        return plain(f"{name_of(self)}{told}".replace("\n", "\\n"), 4 * VALUE)


def name_of(message: object) -> str:
    """The name of an event, or the text of any other message."""
    return str.__str__(message) if isinstance(message, Event) else message_of(message, 8 * VALUE)


class EventLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs events."""

    def isEnabledFor(self, level: int) -> bool:
        """Whether anybody listens; what `logging.config` has disabled is enabled again."""
        if self.logger.disabled:
            self.logger.disabled = False
        return self.logger.isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The message as an event, its fields checked."""
        fields = checked_fields(kwargs.get("extra"))
        kwargs["extra"] = fields
        return Event(msg, fields) if isinstance(msg, str) else msg, kwargs


def logger(name: str) -> EventLogger:
    """The logger of a module."""
    return EventLogger(logging.getLogger(name), {})


def checked_fields(extra: object) -> dict[str, object]:
    """Fields that a log call can take: names are text, and none is an attribute that every record has."""
    if not isinstance(extra, Mapping):
        return {} if extra is None else {"extra": extra}
    fields: dict[str, object] = {}
    try:
        for key, value in extra.items():
            name = key if type(key) is str else message_of(key, 60)
            fields[f"{name}_" if name in _TAKEN else name] = value
            if len(fields) >= NAMES:
                break
    except Exception as error:  # noqa: BLE001  (a mapping of the caller's)
        fields["extra_failed"] = message_of(error)
    return fields
