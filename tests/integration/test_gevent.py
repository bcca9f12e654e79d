"""Programs that gevent has patched."""

from __future__ import annotations

import subprocess
import sys

import pytest

from processor import App
from processor.admin import apply_topics
from processor.broker.kafka import KafkaBroker, KafkaConfig
from tests.conftest import Kafka

PROGRAM = """
import sys
from gevent import monkey
monkey.patch_all({how})
from processor import App, Context
from processor.wire.settings_sources import load_settings

app = App(sys.argv[2], settings=load_settings({{"kafka.bootstrap": sys.argv[1]}}, env={{}}))
app.queue("default", partitions=1)

@app.job("noop")
def noop(ctx: Context) -> None: ...

print(app.enqueue("noop").id)
"""


@pytest.fixture
def namespace(kafka: Kafka, unique: str) -> str:
    app = App(unique, broker=KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)))
    app.queue("default", partitions=1)
    apply_topics(app.broker(), app.topic_plan())
    app.close()
    return unique


def run(kafka: Kafka, namespace: str, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(how=how), kafka.bootstrap, namespace]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_replaced_threads_are_refused_with_what_to_do(kafka: Kafka, namespace: str) -> None:
    done = run(kafka, namespace, "")
    assert done.returncode == 1
    assert "gevent has replaced Python's threads" in done.stderr
    assert "monkey.patch_all(thread=False)" in done.stderr


def test_what_the_refusal_advises_works(kafka: Kafka, namespace: str) -> None:
    done = run(kafka, namespace, "thread=False")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 36
