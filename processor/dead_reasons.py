"""Why a job is a dead letter: the closed list. docs/dead-letters.md tells users what each means."""

from __future__ import annotations

from enum import StrEnum


class DeadReason(StrEnum):
    """The reason in a dead letter, by which `dlq list` groups and the metrics count."""

    EXHAUSTED = "exhausted"
    """No attempt of its policy was left, or no time."""
    DEAD = "dead"
    """A `Dead(...)` rule, or the handler's own `TerminalError`."""
    BAD_PAYLOAD = "bad_payload"
    """Its model does not accept the payload."""
    HANDLER_MISTAKE = "handler_mistake"
    """The handler uses the context in a way that fails at each attempt."""
    CRASH_LOOP = "crash_loop"
    """Its process died with it again and again."""
    KILLED = "killed"
    """Its kill date came."""
    UNKNOWN_TYPE = "unknown_type"
    """No worker of its queue got to know its type in time."""
    UNKNOWN_QUEUE = "unknown_queue"
    """Its queue, or its number of the queue, is gone."""
    UNDECODABLE = "undecodable"
    """Its record is none of ours, or damaged."""
    NEWER_RECORD = "newer_record"
    """Written by a version that no worker here can read."""
    UNSENDABLE = "unsendable"
    """Kafka refuses a record that it must write."""
    INTERNAL_ERROR = "internal_error"
    """A fault of the engine, or an exception whose own code raises."""
