"""An app on a memory log, importable by name, and what workers would have written: shared by the commands' tests."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import click
from click.testing import CliRunner, Result
from pydantic import BaseModel

from processor.app import App
from processor.broker.base import OutRecord
from processor.broker.memory import MemoryBroker
from processor.context import Context
from processor.job import ErrorInfo, Failure, Job, Lane, LoopProgress
from processor.states import State
from processor.wire import topics
from processor.wire.codec import encode
from processor.wire.records import (
    AnyRecord,
    CheckpointRecord,
    DeadLetterRecord,
    LiveJobRecord,
    StatusRecord,
    StepRecord,
)
from processor.wire.settings_sources import load_settings

MODULE = "shop_for_cli_tests"
AT = 1_767_225_600_000
"""2026-01-01, the moment of all records."""


class Import(BaseModel):
    url: str


class Shop:
    """Topics exist, nothing runs."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.app = App("shop", settings=load_settings(env={}), broker=self.broker)
        self.app.queue("bulk", partitions=2)
        self.app.queue("default")
        self.broker.admin().create_topics(self.app.topic_plan())

        @self.app.job("import.file", queue="bulk", payload=Import)
        def import_file(ctx: Context, p: Import) -> int:
            return len(p.url)

        module = ModuleType(MODULE)
        vars(module)["app"] = self.app
        sys.modules[MODULE] = module

    def close(self) -> None:
        """Forget the module."""
        self.app.close()
        del sys.modules[MODULE]

    def run(self, command: click.Command, *args: str, stdin: str | None = None) -> Result:
        """Run a command of this app."""
        return CliRunner().invoke(command, [*args, "--app", MODULE], input=stdin, env={"PROCESSOR_DEBUG": ""})

    def json(self, command: click.Command, *args: str) -> Any:
        """What it prints with `--json`."""
        return json.loads(self.run(command, *args, "--json").stdout)

    def write(self, topic: str, key: str, record: AnyRecord | bytes | None, partition: int = -1) -> None:
        """Append a record."""
        producer = self.broker.producer()
        value = encode(record) if isinstance(record, tuple) else record
        producer.append(OutRecord(topic, key.encode(), value, None, partition))
        assert producer.flush(1) == 0
        producer.close()

    def status(self, job_id: str, state: State, **fields: Any) -> None:
        """A worker said where a job stands."""
        record = StatusRecord(job_id, 1, "import.file", "bulk", state, AT, 1, "host-0")
        self.write(topics.status_topic("shop"), job_id, record._replace(**fields))

    def died(self, job_id: str) -> None:
        """A job failed for good."""
        self.status(job_id, State.DEAD, error=ErrorInfo("builtins.ValueError", "no such customer", "Traceback ..."))

    def letter(self, job_id: str, **fields: Any) -> None:
        """A job was given up at item 501 of 1000, with one step saved."""
        job = fields.pop("job", Job(job_id, "import.file", 1, "bulk", b'{"url":"a"}', AT, attempt=2))
        failures = [
            Failure("builtins.ValueError", "no such customer", "Traceback ...\n  pay()", "f1", attempt, "host-0", AT)
            for attempt in (1, 2, 3)
        ]
        rows = {"rows": LoopProgress("501", 501, 1000, False)}
        saved = CheckpointRecord(job_id, 1, 0, 2, 7, AT, "shop.jobs.bulk", 17, 1, state='{"good": 3}', loops=rows)
        steps = [encode(StepRecord(job_id, 1, 0, 2, 3, "head", "finished", "7"))]
        place = (job_id, "exhausted", AT, "host-0", "shop.jobs.bulk", 1, 17)
        record = DeadLetterRecord(*place, encode(job), None, None, failures, encode(saved), steps)
        self.write(topics.dlq_topic("shop"), job_id or "x", record._replace(**fields))

    def saved(self, job_id: str, *, promoted: bool = False) -> None:
        """A job is at item 501 of 1000 and has one step."""
        topic = topics.checkpoints_topic("shop", "bulk")
        home = (topics.jobs_topic("shop", "bulk", Lane.NORMAL), 17)
        if promoted:
            home = (topic, -1)
            job = Job(job_id, "import.file", 1, "bulk", b"{}", AT)
            live = LiveJobRecord(job_id, 1, 0, 2, 9, encode(job), *home, AT)
            self.write(topic, f"{job_id}#job", live, 1)
        rows = {"rows": LoopProgress("501", 501, 1000, False)}
        record = CheckpointRecord(job_id, 1, 0, 2, 7, AT, *home, 1, state='{"good": 3}', loops=rows)
        self.write(topic, job_id, record, 1)
        self.write(topic, f"{job_id}#step:head", StepRecord(job_id, 1, 0, 2, 3, "head", "finished", "7"), 1)
