"""An alerter goes on over rebalances, faults of its reader, and recipients that speak no HTTP. On the memory log."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from processor.alerts.alerter import Alerter
from processor.alerts.delivery import AlertRefused, AlertUndelivered, deliver
from processor.alerts.routing import folded
from processor.broker.base import Batch, OutRecord, PartitionFault, Reader, TopicPartition, TopicSpec
from processor.broker.memory import MemoryBroker
from processor.errors import BrokerUnavailable
from processor.wire.codec import encode
from processor.wire.records import AlertRecord
from processor.wire.settings import AlertRule
from tests.waiting import eventually

TOPIC, GROUP = "shop.alerts", "shop.alerters.r"


class Receiver:
    """Takes webhooks."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answer = 204
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked += 1
                if outer.answer < 300:
                    outer.bodies.append(body)
                self.send_response(outer.answer)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def texts(self) -> list[str]:
        """Of the alerts that were told."""
        told = [alert for body in list(self.bodies) for alert in json.loads(body)["alerts"]]
        return [example["text"] for alert in told for example in alert["examples"]]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.admin().create_topics([TopicSpec(name=TOPIC, partitions=1)])
    return broker


def tell(broker: MemoryBroker, place: int) -> None:
    record = AlertRecord("killed", f"job-{place}", 1000 + place, "w", f"alert {place}")
    producer = broker.producer()
    producer.append(OutRecord(TOPIC, record.subject.encode(), encode(record)))
    assert producer.flush(5.0) == 0
    producer.close()


class Running:
    """An alerter on a thread of its own."""

    def __init__(self, broker: MemoryBroker, *urls: str, name: str = "r", patience: float = 900.0) -> None:
        rule = AlertRule.model_validate({"name": name, "to": list(urls), "fold": "0s"})
        self.alerter = Alerter(broker, "shop", rule, pause=0.01, patience=patience)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.alerter.run, args=(self.stop,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.stop.set()
        self.thread.join()


def listening(broker: MemoryBroker, group: str = GROUP) -> bool:
    place = TopicPartition(TOPIC, 0)
    return broker.admin().committed(group, [place])[place].offset is not None


def test_an_alerter_goes_on_when_another_one_comes_and_goes(broker: MemoryBroker, receiver: Receiver) -> None:
    first = Running(broker, receiver.url)
    eventually(lambda: listening(broker), 60, "it begins")
    tell(broker, 0)
    eventually(lambda: receiver.texts() == ["alert 0"], 60, lambda: str(receiver.texts()))
    second = Running(broker, receiver.url)
    eventually(lambda: len(broker.admin().members(GROUP)) == 2, 60, "the group has two members")
    tell(broker, 1)
    tell(broker, 2)
    eventually(lambda: receiver.texts()[-1:] == ["alert 2"], 60, lambda: str(receiver.texts()))
    second.close()
    tell(broker, 3)
    eventually(lambda: receiver.texts()[-1:] == ["alert 3"], 60, lambda: str(receiver.texts()))
    first.close()
    assert receiver.texts() == [f"alert {number}" for number in range(4)]


def test_a_recipient_that_refuses_is_given_up_told_of_and_holds_nobody_up(
    broker: MemoryBroker, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Receiver()
    gone.answer = 404
    others = Receiver()
    running = [
        Running(broker, gone.url, receiver.url, patience=0.5),
        Running(broker, others.url, name="ops"),
    ]
    for group in (GROUP, "shop.alerters.ops"):
        eventually(lambda group=group: listening(broker, group), 60, "it begins")  # type: ignore[misc]  # no stub of it
    tell(broker, 0)
    eventually(lambda: others.texts()[-1:] != ["alert 0"] and len(others.texts()) == 2, 60, lambda: str(others.texts()))
    assert others.texts()[1] == f"{gone.url.removesuffix('/hook')}, of alert rule r, does not get 1 alerts: " + (
        f"{gone.url.removesuffix('/hook')} answers 404 Not Found"
    )
    assert receiver.texts() == ["alert 0"], "another recipient of the rule gets it once, and nothing about its own rule"
    asked = gone.asked
    assert asked >= 2, "it is tried again for a while"
    tell(broker, 1)
    eventually(lambda: receiver.texts()[-1:] == ["alert 1"], 60, "the rule goes on")
    eventually(lambda: running[0].alerter.given_up == 2, 60, "both were given up")
    assert gone.asked == asked + 1, "one that was given up is asked once"
    gone.answer = 204
    tell(broker, 2)
    eventually(lambda: gone.texts() == ["alert 2"], 60, lambda: str(gone.texts()))
    for each in running:
        each.close()
    assert receiver.texts() == ["alert 0", "alert 1", "alert 2"]
    assert caplog.text.count("alerts.given_up") == 2
    gone.close()
    others.close()


@pytest.mark.parametrize(("answer", "refused"), [(400, True), (302, True), (429, False), (503, False)])
def test_an_answer_tells_whether_another_try_may_help(receiver: Receiver, answer: int, refused: bool) -> None:
    receiver.answer = answer
    digests = folded([AlertRecord("killed", "job-1", 1, "w", "x")])
    with pytest.raises(AlertUndelivered) as raised:
        deliver(receiver.url, digests, namespace="shop", rule="r", delivery="d", secret="")
    assert isinstance(raised.value, AlertRefused) is refused


class FaultyReader:
    """A reader whose first batch with records says that there is trouble behind them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.faults = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def fetch(self, count: int, timeout: float) -> Batch:
        batch = self._reader.fetch(count, timeout)
        if batch.records and not self.faults:
            self.faults = 1
            return batch._replace(faults=[PartitionFault(TopicPartition(TOPIC, 0), BrokerUnavailable("away"))])
        return batch


def test_alerts_read_before_a_fault_are_told(
    broker: MemoryBroker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FaultyReader] = []
    reader_of = MemoryBroker.reader

    def faulty(self: MemoryBroker) -> Any:
        made.append(FaultyReader(reader_of(self)))
        return made[-1]

    monkeypatch.setattr(MemoryBroker, "reader", faulty)
    alerter = Running(broker, receiver.url)
    eventually(lambda: listening(broker), 60, "it begins")
    tell(broker, 0)
    eventually(lambda: any(reader.faults for reader in made), 60, "the fault")
    tell(broker, 1)
    eventually(lambda: receiver.texts()[-1:] == ["alert 1"], 60, lambda: str(receiver.texts()))
    alerter.close()
    assert receiver.texts() == ["alert 0", "alert 1"]


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 xx\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000]
)
def test_what_speaks_no_http_has_not_taken_it(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        digests = folded([AlertRecord("killed", "job-1", 1, "w", "x")])
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(AlertUndelivered, match=r"127\.0\.0\.1"):
            deliver(url, digests, namespace="shop", rule="r", delivery="d", secret="")
        thread.join()
