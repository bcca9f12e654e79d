"""What `processor doctor` looks at, and how it says what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from processor import admin
from processor.admin import LaneLag
from processor.broker.base import Broker, Member, TopicInfo, TopicSpec
from processor.core.topic_plan import topic_plan
from processor.errors import ProcessorError
from processor.job import Lane
from processor.wire import topics
from processor.wire.groups import queue_group
from processor.wire.topics import QueueSpec

if TYPE_CHECKING:
    from processor.app import App


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    check: str
    verdict: Verdict
    text: str
    hint: str = ""
    exit_code: int = 0
    """Of the command, if this fails."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """For machines."""

    @classmethod
    def of(cls, check: str, error: ProcessorError) -> Finding:
        """A check that could not be made."""
        return cls(check=check, verdict=Verdict.FAIL, text=str(error), hint=error.hint, exit_code=error.exit_code)

    def as_row(self) -> dict[str, Any]:
        """For machines."""
        row = {"check": self.check, "verdict": self.verdict, "text": self.text, "hint": self.hint}
        return {**row, "details": dict(self.details)}


@dataclass(kw_only=True)
class DoctorContext:
    """What is examined; each question is asked once."""

    app: App
    has_code: bool
    """The app's own declarations are known, not only its namespace."""
    pause: Callable[[float], None] = time.sleep

    @property
    def broker(self) -> Broker:
        """Where it lives."""
        return self.app.broker()

    @property
    def now_ms(self) -> int:
        """This machine's clock."""
        return self.app.client().clock.now_ms()

    @cached_property
    def lanes(self) -> dict[str, list[Lane]]:
        """Queues that exist, with their lanes."""
        return admin.queues_of(self.broker, self.app.namespace)

    @cached_property
    def plan(self) -> list[TopicSpec]:
        """What the topics should be; without the app's code, queues are taken as they are."""
        if self.has_code:
            return self.app.topic_plan()
        namespace = self.app.namespace
        normal = {name: topics.jobs_topic(namespace, name, Lane.NORMAL) for name in self.lanes}
        found = self.broker.admin().topics(normal.values())
        queues = [
            QueueSpec(name=name, partitions=found[topic].partitions, lanes=tuple(self.lanes[name]))
            for name, topic in normal.items()
            if topic in found
        ]
        return topic_plan(namespace, queues, shape=self.app.settings().topics.shape())

    @cached_property
    def topics(self) -> dict[str, TopicInfo]:
        """The planned topics that exist."""
        return self.broker.admin().topics([spec.name for spec in self.plan], configs=True)

    @cached_property
    def members(self) -> dict[str, list[Member]]:
        """Who serves each queue."""
        asked = self.broker.admin()
        return {queue: asked.members(queue_group(self.app.namespace, queue)) for queue in self.lanes}

    @cached_property
    def lags(self) -> list[LaneLag]:
        """What waits, by lane and partition."""
        return admin.queue_lag(self.broker, self.app.namespace)
