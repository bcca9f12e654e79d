"""The status topic as the story reads it: how many jobs have ended, with what, and which worker runs the walk."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self

from processor.admin.reading import partitions_of
from processor.broker.base import Broker
from processor.client.track import supersedes
from processor.states import TERMINAL, State
from processor.wire.codec import decode_status
from processor.wire.records import StatusRecord
from processor.wire.topics import status_topic

_FETCH = 5000


class Watch:
    """Reads on whenever it is asked to. One thread."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        places = partitions_of(broker, [status_topic(namespace)])
        self._reader = broker.reader()
        self._reader.assign(dict.fromkeys(places, 0))
        self._known: dict[str, StatusRecord] = {}
        self.ended: Counter[str] = Counter()
        """Jobs that have ended, by queue."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def read(self, seconds: float) -> None:
        """Take what the topic holds; wait at most so long for news."""
        batch = self._reader.fetch(_FETCH, seconds)
        for fault in batch.faults:
            raise fault.error
        for record in batch.records:
            value = record.value()
            if value is not None:
                self._take(decode_status(value))

    def _take(self, status: StatusRecord) -> None:
        known = self._known.get(status.id)
        if not supersedes(status, known):
            return
        self._known[status.id] = status
        if status.state in TERMINAL:
            self.ended[status.queue] += 1

    def status(self, job_id: str) -> StatusRecord | None:
        """The latest status of a job; None: it is queued."""
        return self._known.get(job_id)

    def failed(self) -> list[StatusRecord]:
        """Jobs that ended without success."""
        return [s for s in self._known.values() if s.state in TERMINAL and s.state is not State.SUCCEEDED]

    def finished(self) -> dict[str, bytes | None]:
        """Results of the jobs that succeeded, by id."""
        return {s.id: s.result for s in self._known.values() if s.state is State.SUCCEEDED}
