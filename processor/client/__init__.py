"""The producing side: jobs go into their lane (`sender`), and come back as handles (`handles`, over `status`)."""

from __future__ import annotations

from processor.client.handles import Enqueued, Handle, JobProgress, JobStatus
from processor.client.sender import Client, ClientConfig, keep_for_ever
from processor.client.status import StatusTail
from processor.client.track import Track

__all__ = [
    "Client",
    "ClientConfig",
    "Enqueued",
    "Handle",
    "JobProgress",
    "JobStatus",
    "StatusTail",
    "Track",
    "keep_for_ever",
]
