"""The plain, idempotent producer: what clients enqueue with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from processor.broker.base import Headers, OutRecord
from processor.broker.kafka import faults
from processor.broker.kafka.config import Properties
from processor.broker.kafka.health import ClientWatch
from processor.errors import BrokerError, ProducerFatal

HeadersOut = list[tuple[str, str | bytes | None]]
"""What confluent_kafka takes; a list is invariant, so ours must be cast once."""


def headers_out(headers: Headers) -> HeadersOut:
    """Our headers as confluent_kafka types them."""
    return cast("HeadersOut", headers)


def connect(client: Client, timeout: float) -> None:
    """Reach some broker, if that is possible at once. Asked for a producer id before it is connected, librdkafka looks
    again only after 500 ms (measured: 505 ms to the first acknowledgement, 16 ms with this question first).
    """
    with suppress(KafkaException):
        client.list_topics("__transaction_state", timeout)


class KafkaProducer:
    """Implements `base.Producer`. A thread of its own serves acknowledgements, so nobody has to poll. One that is made
    while the interpreter ends has no thread (Python 3.12 and later start none then): poll, or flush.
    """

    def __init__(self, properties: Properties, watch: ClientWatch, bootstrap: str) -> None:
        self._watch = watch
        self._bootstrap = bootstrap
        self._client = Client({**properties, "error_cb": watch.on_error}, logger=watch)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = threading.Thread(target=self._serve, name="kafka-producer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            connect(self._client, 1.0)

    def append(self, record: OutRecord, on_delivery: Callable[[BrokerError | None], None] | None = None) -> None:
        """Hand a record over. One that can never be written is reported by `on_delivery`, or raised without it."""
        report = None if on_delivery is None else self._reporting(on_delivery)
        topic, key, value, headers, partition = record
        while True:
            try:
                if headers is None:
                    self._client.produce(topic, value, key, partition, report)
                else:
                    self._client.produce(topic, value, key, partition, report, headers=headers_out(headers))
            except BufferError:
                if self._closing.is_set():
                    raise ProducerFatal(f"append to {topic}: the producer is closed") from None
                self._client.poll(0.05)
            except KafkaException as exception:
                error = faults.of_record(faults.cause(exception), f"append to {topic}", self._bootstrap)
                if on_delivery is None:
                    raise error from exception
                on_delivery(error)
                return
            else:
                return

    def poll(self, timeout: float) -> None:
        """Serve acknowledgements."""
        self._client.poll(timeout)

    def flush(self, timeout: float) -> int:
        """Wait for acknowledgements."""
        return self._client.flush(timeout)

    def close(self) -> None:
        """Stop serving. Records that were not acknowledged yet may or may not be written: flush first."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        connect(self._client, 1.0)
        while not self._closing.is_set():
            self._client.poll(0.05)

    def _reporting(
        self, on_delivery: Callable[[BrokerError | None], None]
    ) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                on_delivery(None)
            else:
                on_delivery(faults.of_record(error, f"append to {message.topic()}", self._bootstrap))

        return report
