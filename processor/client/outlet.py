"""An open producer of a client, and what it has not confirmed yet."""

from __future__ import annotations

import threading

from processor.broker.base import Producer
from processor.errors import BrokerError


class Ticket:
    """A record on its way."""

    __slots__ = ("done", "error", "id", "told")

    def __init__(self, job_id: str) -> None:
        self.id = job_id
        self.done = threading.Event()
        self.error: BrokerError | None = None
        self.told = False
        """Its caller was told that it is not confirmed: nobody need wait for it once more."""


class Outlet:
    """An open producer, and what it has not confirmed."""

    __slots__ = ("pending", "producer")

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.pending: dict[Ticket, None] = {}
