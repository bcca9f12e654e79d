"""What operators did, as records of the audit topic. Pure: clock and operator are passed in."""

from __future__ import annotations

from processor.broker.base import OutRecord
from processor.wire.codec import encode
from processor.wire.records import AuditRecord
from processor.wire.topics import audit_topic

REDRIVE, DISCARD, CANCEL, RETRY, PAUSE, RESUME = "redrive", "discard", "cancel", "retry", "pause", "resume"
SEEK, REPLAY = "seek", "replay"
SCHEDULE, TRIGGER, BACKFILL, REMOVE = "schedule", "trigger", "backfill", "remove"


def noted(namespace: str, record: AuditRecord) -> OutRecord:
    """An audit record, ready to write; what concerns one subject has one key."""
    return OutRecord(audit_topic(namespace), record.subject.encode(), encode(record))
