"""Whether any broker answers, as seen by all clients of one `KafkaBroker`; and one client's broken connections.

librdkafka never gives up: when all brokers are away its calls time out, when the password is wrong they also time out.
Only its callbacks say which of the two it is, so every client carries a `ClientWatch`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError

from processor import events
from processor.broker import reach
from processor.broker.kafka import faults
from processor.errors import BrokerError

log = events.logger("processor.broker.kafka")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the clients know about the brokers."""

    silent_s: float
    """Seconds since any broker last answered; 0 before the first client was made."""
    refused: str
    """Why a broker refused us, or empty."""

    @property
    def ok(self) -> bool:
        """Brokers answer. The clients look once a second, so a few seconds of silence mean nothing yet."""
        return not self.refused and self.silent_s < 5.0


class HealthWatch:
    """Collects from all clients. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._answered_at: float | None = None
        self._refused = ""

    def started(self) -> None:
        """A client was made: silence counts from here."""
        with self._lock:
            if self._answered_at is None:
                self._answered_at = self._monotonic()

    def answered(self, ago_s: float = 0.0) -> None:
        """A broker answered `ago_s` seconds ago."""
        at = self._monotonic() - ago_s
        with self._lock:
            if self._answered_at is None or at > self._answered_at:
                self._answered_at = at
                self._refused = ""

    def refused(self, reason: str) -> None:
        """A broker refused us."""
        with self._lock:
            self._refused = reason

    def now(self) -> Health:
        """The present state."""
        with self._lock:
            silent = 0.0 if self._answered_at is None else max(0.0, self._monotonic() - self._answered_at)
            return Health(silent_s=silent, refused=self._refused)


class ClientWatch:
    """One client's callbacks: errors, statistics, log lines. They run on the thread that polls the client."""

    def __init__(self, health: HealthWatch, bootstrap: str) -> None:
        self._health = health
        self._bootstrap = bootstrap
        self.breaks = 0
        """How many connections broke so far."""
        self.down = False
        """The last thing heard was that no broker can be reached."""
        self.refused = ""
        """Why a broker refused this client, or empty."""
        self.refusals = 0
        """How often a broker refused this client so far, as far as librdkafka tells: a repeat within 30 s it keeps."""
        self.fatal: KafkaError | None = None
        """The error after which the client is over."""
        health.started()

    def on_error(self, error: KafkaError) -> None:
        """librdkafka's `error_cb`."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.fatal = error
        elif error.code() in faults.REFUSED:
            self.refused = error.str()
            self.refusals += 1
            self._health.refused(error.str())
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down = True
        elif error.code() in (KafkaError._TRANSPORT, KafkaError._RESOLVE):
            reach.met(self._bootstrap, error.str())

    def on_stats(self, document: str) -> None:
        """librdkafka's `stats_cb`: how long ago each connected broker last answered."""
        idle = [
            broker["rxidle"]
            for broker in json.loads(document)["brokers"].values()
            if broker["state"] == "UP" and broker.get("rxidle", -1) >= 0
        ]
        if idle:
            self.answered(min(idle) / 1e6)

    def answered(self, ago_s: float = 0.0) -> None:
        """A broker answered this client."""
        self.down = False
        self.refused = ""
        self._health.answered(ago_s)

    def log(self, level: int, _format: str, facility: str, client: str, text: str) -> None:
        """Stands where confluent_kafka expects a `logging.Logger`; it calls nothing but this."""
        if facility == "FAIL":
            # A client with debug=broker logs each break at DEBUG, then perhaps again, louder. librdkafka drops its own
            # bootstrap connections once it knows the brokers: that is no break.
            if level == logging.DEBUG and "(_DESTROY" not in text:
                self.breaks += 1
            return
        if facility == "GETPID" and text.endswith("retrying"):
            return  # a broker that has just started: librdkafka asks again at once, up to its time limit
        if level >= logging.WARNING:
            log.log(level, "kafka.client", extra={"client": client, "facility": facility, "text": text})

    def reason(self, doing: str) -> BrokerError | None:
        """What lies behind a call that timed out, if it is known."""
        if self.refused:
            return faults.refused(self.refused, self._bootstrap)
        if self.down:
            return faults.away(doing, self._bootstrap)
        return None
