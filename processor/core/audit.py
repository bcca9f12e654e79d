"""What operators did, as records of the audit topic. Pure: clock and operator are passed in."""

from __future__ import annotations

import json

from processor.broker.base import OutRecord
from processor.wire.codec import encode
from processor.wire.records import AuditRecord
from processor.wire.topics import audit_topic

REDRIVE, DISCARD, CANCEL, RETRY, PAUSE, RESUME = "redrive", "discard", "cancel", "retry", "pause", "resume"
SEEK, REPLAY = "seek", "replay"
SAVE_FILTER, FORGET_FILTER = "save_filter", "forget_filter"
WATCH_FILTER, UNWATCH_FILTER = "watch_filter", "unwatch_filter"
BULK = "bulk"
SCHEDULE, TRIGGER, BACKFILL, REMOVE = "schedule", "trigger", "backfill", "remove"


def noted(namespace: str, record: AuditRecord) -> OutRecord:
    """An audit record, ready to write; what concerns one subject has one key."""
    return OutRecord(audit_topic(namespace), record.subject.encode(), encode(record))


def lives_begun(record: AuditRecord) -> dict[str, int]:
    """The lives that an order has begun under ids that were known before: id -> life."""
    if record.action == REDRIVE:
        return {record.job_id: record.life}
    if record.action != REPLAY or '"lives"' not in record.detail:
        return {}
    try:
        return {str(job_id): int(life) for job_id, life in json.loads(record.detail)["lives"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        # Of a newer version, or foreign: what else is known must still be shown.
        return {}
