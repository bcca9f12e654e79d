"""`processor topics`, on an app bound to the memory broker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from processor.app import App
from processor.broker.base import OutRecord
from processor.broker.memory import MemoryBroker
from processor.cli.topics import topics
from processor.clock import ManualClock
from processor.job import Job
from processor.states import State
from processor.wire.codec import encode
from processor.wire.headers import routing_headers
from processor.wire.records import CheckpointRecord, StatusRecord
from processor.wire.settings_sources import load_settings

MODULE = "shop_for_topics_test"
JOB = Job(id="j1", type="import", version=1, queue="bulk", payload=b'{"n": 1}', enqueued_at=1_000)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(ManualClock())


@pytest.fixture(autouse=True)
def _app(broker: MemoryBroker) -> Iterator[None]:
    app = App("shop", settings=load_settings(env={}), broker=broker)
    app.queue("bulk", partitions=2)
    module = ModuleType(MODULE)
    vars(module)["app"] = app
    sys.modules[MODULE] = module
    yield
    del sys.modules[MODULE]


def run(*args: str, app: str = f"{MODULE}:app") -> Result:
    return CliRunner().invoke(topics, [*args, "--app", app], env={"PROCESSOR_DEBUG": ""})


def rows(*args: str) -> Any:
    return json.loads(run(*args, "--json").stdout)


def append(broker: MemoryBroker, topic: str, key: bytes, value: bytes | None) -> None:
    producer = broker.producer()
    producer.append(OutRecord(topic, key, value, routing_headers(JOB), 0))
    producer.flush(1)


def test_plan_changes_nothing_and_apply_makes_it_so(broker: MemoryBroker) -> None:
    planned = rows("plan")
    assert {row["action"] for row in planned} == {"create"}
    assert broker.admin().topics() == {}
    assert rows("apply", "--dry-run") == planned
    assert rows("apply") == planned
    assert rows("apply") == []
    assert "shop.jobs.bulk" in broker.admin().topics()
    assert "all topics are as planned" in run("diff").stderr


def test_what_is_refused_is_said_and_ends_with_4(broker: MemoryBroker) -> None:
    run("apply")
    broker.admin().set_topic_config("shop.dlq", {"retention.ms": "-1"})
    result = run("apply")
    assert result.exit_code == 4
    assert "refused" in result.stdout
    assert "deletes what is older" in result.stdout
    assert run("apply", "--shorten-retention").exit_code == 0


def test_another_number_of_status_partitions_is_named_and_refused(broker: MemoryBroker) -> None:
    run("apply")
    broker.admin().add_partitions("shop.status", 9)
    for command in ("diff", "apply", "plan"):
        result = run(command)
        assert "topics.status_partitions = 9" in " ".join((result.stdout + result.stderr).split())
    assert run("apply").exit_code == 4


def test_diff_ends_with_4_where_work_could_be_lost(broker: MemoryBroker) -> None:
    run("apply")
    broker.admin().set_topic_config("shop.checkpoints.bulk", {"segment.ms": "5"})
    assert run("diff").exit_code == 0
    broker.admin().set_topic_config("shop.jobs.bulk", {"retention.ms": "5"})
    result = run("diff")
    assert result.exit_code == 4
    assert "retention.ms" in result.stdout
    assert "processor topics apply" in result.stderr


def test_describe_lists_topics_as_they_are(broker: MemoryBroker) -> None:
    run("apply")
    append(broker, "shop.jobs.bulk", b"j1", encode(JOB))
    found = {row["topic"]: row for row in rows("describe")}
    assert (found["shop.jobs.bulk"]["partitions"], found["shop.jobs.bulk"]["offsets"]) == (2, 1)
    result = run("describe", "shop.none")
    assert "warning: shop.none does not exist" in result.stderr


def test_tail_decodes_every_kind(broker: MemoryBroker) -> None:
    run("apply")
    end = StatusRecord("j1", 1, "import", "bulk", State.SUCCEEDED, 5, 1, "host/0")
    mark = CheckpointRecord("j1", 1, 0, 1, 1, 5, "shop.jobs.bulk", 0, 1, final=encode(end))
    append(broker, "shop.jobs.bulk", b"j1", encode(JOB))
    append(broker, "shop.checkpoints.bulk", b"j1", encode(mark))
    append(broker, "shop.checkpoints.bulk", b"j1", None)
    append(broker, "shop.dlq", b"j1", b"\xffgarbage")
    lines = run("tail", "jobs.bulk", "shop.checkpoints.bulk", "dlq", "--json").stdout.splitlines()
    by_kind = {row["kind"]: row for row in map(json.loads, lines)}
    assert set(by_kind) == {"Job", "Checkpoint", "tombstone", "undecodable"}
    assert by_kind["Job"]["value"]["payload"] == '{"n": 1}'
    assert by_kind["Job"]["headers"] == {"job-id": "j1", "job-type": "import"}
    assert by_kind["Checkpoint"]["value"]["final"]["state"] == "succeeded"
    assert by_kind["undecodable"]["value"]["raw"] == "\\xffgarbage"
    assert "shop.jobs.bulk-0@0 j1 Job type=import" in run("tail").stdout


def test_tail_counts_and_names_unknown_topics(broker: MemoryBroker) -> None:
    run("apply")
    for _ in range(5):
        append(broker, "shop.jobs.bulk", b"j1", encode(JOB))
    assert len(run("tail", "jobs.bulk", "-n", "2").stdout.splitlines()) == 2
    assert len(run("tail", "jobs.bulk", "-n", "2", "--from", "start").stdout.splitlines()) == 5
    result = run("tail", "jobs.bluk")
    assert result.exit_code == 2
    assert "shop.jobs.bulk" in result.stderr


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("", "PROCESSOR_APP"),
        ("no_such_module_here:app", "no module 'no_such_module_here'"),
        (f"{MODULE}:other", f"did you mean {MODULE}:app?"),
        ("json:dumps", "not an App"),
        ("no_such_file.py:app", "no file"),
    ],
)
def test_an_app_that_cannot_be_found_is_explained(app: str, said: str) -> None:
    result = run("plan", app=app)
    assert result.exit_code == 2
    assert said in result.stderr
