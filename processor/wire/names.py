"""What ids, ordering keys and names may be: one rule for every door, and for records that are in the log already.

They become keys of topics, names of steps, labels of log lines. So: text, not empty, of bounded length, without control
characters and without half a surrogate pair (which no UTF-8 can hold). In ids there is no `#` either: it ends the id in
the keys of a checkpoint topic.
"""

from __future__ import annotations

ID_BYTES = 255
KEY_BYTES = 1024
"""Of an ordering key."""
NAME_BYTES = 255
"""Of a job type, a step, a loop, or the key of a child."""
SCOPED_BYTES = 4096
"""Of the name of a step with its scope, cursors included."""
RULE = "not empty, without control characters and lone surrogates"


def is_id(value: str) -> bool:
    """Whether a decoded text is an id; the usual ones cost next to nothing."""
    if value.isascii() and value.isprintable() and "#" not in value and 0 < len(value) <= ID_BYTES:
        return True
    return fault_of_id(value) is None


def fault_of_id(value: object) -> str | None:
    """What is wrong with an id; None: nothing."""
    fault = fault_of(value, ID_BYTES)
    if fault is None and isinstance(value, str) and "#" in value:
        return "it holds a '#'"
    return fault


def fault_of(value: object, limit: int) -> str | None:
    """What is wrong with a name of at most `limit` bytes; None: nothing."""
    if not isinstance(value, str):
        return f"it is of type {type(value).__name__}, not a str"
    if not value:
        return "it is empty"
    if value.isascii() and value.isprintable() and len(value) <= limit:
        return None
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "it holds half a surrogate pair, which no UTF-8 can hold"
    if size > limit:
        return f"it takes {size:,} bytes, {limit:,} are allowed"
    control = next((char for char in value if char < " " or "\x7f" <= char <= "\x9f"), None)
    return None if control is None else f"it holds the control character {control!r}"


def exact(value: str) -> str:
    """The text of a `str`, as no instance of a subclass."""
    return value if type(value) is str else str.__str__(value)
