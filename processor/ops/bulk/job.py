"""The job that carries out a plan, on the engine as any user has it: it is checkpointed, resumed, cancelled and shown
like every other.

It lives in a queue of its own in the namespace of the app, served by whichever dashboard runs; the workers of the app
do not know it. Each page of the set is an item of a loop:

1. Whoever begins an attempt asks the audit log which jobs of the page this bulk has done already: a killed process
   may have got that far without its checkpoint.
2. The others are done; each leaves an audit record with the bulk's id.
3. The page's place is the checkpoint.

A job that has changed since the plan is not in a page any more, so what is missing at the end has changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from processor.admin.topics import apply_topics
from processor.app import App
from processor.client.orders import send
from processor.clock import Clock
from processor.context import Context
from processor.core.audit import BULK, noted
from processor.errors import RetryableError
from processor.job_types import JobType
from processor.ops.bulk.acting import Acting, Done
from processor.ops.bulk.plan import QUEUE, JobSet, Part, Plan
from processor.ops.errors import FilterInvalid
from processor.ops.search import search_names, search_of
from processor.ops.store import Store
from processor.policies import Backoff, Retry
from processor.wire.records import AuditRecord
from processor.wire.topics import parse_topic

TYPE = "processor.bulk"
OLDEST = 3_600_000
"""Milliseconds after which a plan is too old to be begun: look again."""
_EXAMPLES = 10
_EXAMPLE = 150
_WAIT, _PATIENCE = 0.5, 120.0
"""Seconds: between two looks at a projection that is not there yet, and until another attempt has to."""
TIMEOUT = 30.0


class Bulk(BaseModel):
    """A plan that somebody wants carried out."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    by: str
    reason: str


class Tally(BaseModel):
    """How far it is; and at the end what it has come to."""

    done: int = 0
    skipped: int = 0
    """Settled by somebody else after the plan."""
    refused: int = 0
    changed: int = 0
    """Left alone: they have changed since the plan. Known at the end."""
    examples: list[str] = Field(default=[])
    """Why some were refused."""

    def add(self, done: Done) -> None:
        """One more page."""
        self.done += done.done
        self.skipped += done.skipped
        self.refused += len(done.refused)
        free = max(0, _EXAMPLES - len(self.examples))
        self.examples += [f"{job_id}: {why}"[:_EXAMPLE] for job_id, why in done.refused[:free]]

    @property
    def words(self) -> str:
        """In a line."""
        told = [f"{self.done} done"]
        for amount, what in ((self.refused, "refused"), (self.skipped, "settled by others"), (self.changed, "changed")):
            told += [f"{amount} {what}"] if amount else []
        return ", ".join(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a bulk works with."""

    app: App
    """Whose jobs."""
    store: Store
    """A projection that somebody keeps up to date."""
    clock: Clock
    pause: Callable[[float], object] = threading.Event().wait
    page: int | None = None
    """Jobs between two checkpoints; None: as the settings say."""


class Bulks:
    """Bulk actions on the jobs of one app.

    Args:
        tools: what they work with.
        runs_in: the app whose workers run them; None: one of its own, served by `worker.BulkWorker`.
    """

    def __init__(self, tools: Tools, runs_in: App | None = None) -> None:
        self.tools = tools
        app = tools.app
        if runs_in is None:
            runs_in = App(app.namespace, settings=app.settings())
        self.app = runs_in
        self.begun = threading.Event()
        """Set when one is begun here."""
        self._job = _declared(runs_in, tools)

    def start(self, plan: Plan, by: str, reason: str) -> str:
        """Have a plan carried out; the id of the bulk. The same plan again is the same bulk.

        Raises:
            FilterInvalid: its filter cannot be read, or it is too old.
            EnqueueUnconfirmed: Kafka has not taken it; asking again is harmless.
        """
        JobSet(self.tools.store, plan, search_names(search_of(self.tools.app)))
        if not -OLDEST < self.tools.clock.now_ms() - plan.at < OLDEST:
            raise FilterInvalid("this plan is old: much may have changed", hint="make it anew")
        self.open()
        handle = self._job.enqueue(Bulk(plan=plan, by=by, reason=reason), idempotency_key=plan.name)
        self.begun.set()
        return handle.id

    def open(self) -> None:
        """Speak to the broker of the app whose jobs they are, and make the queue's topics."""
        app, broker = self.app, self.tools.app.broker()
        if app is not self.tools.app:
            app.bind(broker)
        wanted = [spec for spec in app.topic_plan() if (name := parse_topic(spec.name)) and name.queue == QUEUE]
        if len(broker.admin().topics([spec.name for spec in wanted])) < len(wanted):
            apply_topics(broker, wanted)

    def is_begun(self) -> bool:
        """Whether the topics of the queue are there, so that there may be something to run."""
        broker, app = self.tools.app.broker(), self.app
        names = [spec.name for spec in app.topic_plan() if (name := parse_topic(spec.name)) and name.queue == QUEUE]
        return len(broker.admin().topics(names)) == len(names)


def _declared(app: App, tools: Tools) -> JobType[Bulk, Tally]:
    app.queue(QUEUE, partitions=1, concurrency=4)

    @app.job(TYPE, queue=QUEUE, payload=Bulk, retry=Retry(30, Backoff("2s", "10s", "30s", "2m")))
    def carry_out(ctx: Context, p: Bulk) -> Tally:
        return _carry_out(ctx, p, tools)

    made: JobType[Any, Any] = carry_out
    return made


def _carry_out(ctx: Context, p: Bulk, tools: Tools) -> Tally:
    ctx.step("note", lambda: _note(ctx.id, p, tools))
    jobs = JobSet(tools.store, p.plan, search_names(search_of(tools.app)))
    acting = Acting(
        broker=tools.app.broker(),
        store=tools.store,
        clock=tools.clock,
        plan=p.plan,
        bulk=ctx.id,
        by=p.by,
        reason=p.reason,
    )
    tally = ctx.state(Tally)
    is_again = ctx.resumed or ctx.attempt > 1
    before = {audit.job_id for audit in acting.audited()} if is_again else set()
    for part in ctx.each("pages", lambda after: _there(ctx, jobs, after, tools), cursor=lambda part: part.place):
        if is_again:
            tally.done, is_again = len(before), False
        # Progress lags behind what was done, by some pages: that is not done again, nor counted as somebody else's.
        tally.add(acting.act(part, before.intersection(row["id"] for row in part.rows)))
        ctx.progress(tally.done + tally.skipped + tally.refused, p.plan.count, tally.words)
    # The log knows better than a count that a crash may have interrupted.
    done = sum(1 for _ in acting.audited())
    changed = max(0, p.plan.count - done - tally.skipped - tally.refused)
    return tally.model_copy(update={"done": done, "changed": changed})


def _there(ctx: Context, jobs: JobSet, after: str | None, tools: Tools) -> Iterator[Part]:
    waited = 0.0
    for part in jobs.parts(after or "", tools.page or tools.app.settings().dashboard.bulk_page):
        if part is not None:
            waited = 0.0
            yield part
            continue
        if waited >= _PATIENCE:
            raise RetryableError("the projection has not read what the plan goes by")
        ctx.heartbeat()
        tools.pause(_WAIT)
        waited += _WAIT


def _note(bulk: str, p: Bulk, tools: Tools) -> None:
    """That it has begun, in the audit log."""
    detail = f"{p.plan.action} of {p.plan.count} jobs: {p.plan.q or 'all'}"
    record = AuditRecord(
        *(BULK, f"bulk:{bulk}", tools.clock.now_ms(), p.by, p.reason), detail=detail, job_id=bulk, bulk=bulk
    )
    producer = tools.app.broker().producer()
    try:
        send(producer, [noted(tools.app.namespace, record)], TIMEOUT, f"the audit record of bulk {bulk}")
    finally:
        producer.close()
