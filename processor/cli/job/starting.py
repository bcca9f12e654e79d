"""`job enqueue`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from processor.cli.job.waiting import in_seconds, print_result
from processor.cli.output import Output, output_options
from processor.cli.payload import payload_of
from processor.cli.target import Target, target_options
from processor.errors import DefinitionError, TopicMissing, UnknownJobType
from processor.wire.names import fault_of_id

if TYPE_CHECKING:
    from processor.app import App
    from processor.client.handles import Handle
    from processor.declarations import NamedOptions

FOR_EVER = ""
"""`--wait-result` without a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be enqueued."""

    type: str
    payload: Any
    queue: str | None
    key: str | None
    id: str | None
    version: int | None
    delay: str | None
    idempotency_key: str | None
    until: Literal["window", "finished"]
    kill_after: str | None
    kill_at: datetime | None
    when_full: Literal["raise", "wait"] | None

    @property
    def how(self) -> NamedOptions:
        """What the enqueue is told beside the payload."""
        return {
            "id": self.id,
            "delay": self.delay,
            "kill_after": self.kill_after,
            "kill_at": self.kill_at,
            "idempotency_key": self.idempotency_key,
            "until": self.until,
            "when_full": self.when_full,
        }


@click.command()
@click.argument("type", metavar="TYPE")
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False)
@target_options
@click.option("-q", "--queue", help="Which queue's workers run it; known for the job types of an --app.")
@click.option("--key", help="Ordering key. The job types of an --app take it from the payload.")
@click.option(
    "--id",
    callback=lambda _ctx, _param, value: _checked_id(value),
    help="Its id. Enqueueing the same id again is safe: it runs once.",
)
@click.option(
    "--idempotency-key", metavar="KEY", help="Whoever enqueues the same key again gets the same job: it runs once."
)
@click.option(
    "--until",
    type=click.Choice(["window", "finished"]),
    default="window",
    show_default=True,
    help="How long the key keeps others out: the dedupe window (24 h) beyond the job's end, or that end.",
)
@click.option("--payload-version", "version", type=click.IntRange(1), help="Of the payload, if not 1; without --app.")
@click.option("--delay", metavar="TIME", help="Not before this time has passed, e.g. 5m.")
@click.option("--kill-after", metavar="TIME", help="Give it up after this time, whatever it does, e.g. 24h.")
@click.option(
    "--kill-at",
    metavar="MOMENT",
    callback=lambda _ctx, _param, value: _moment(value),
    help="Give it up at this moment, e.g. 2026-12-24T18:00+01:00.",
)
@click.option(
    "--when-full",
    type=click.Choice(["raise", "wait"]),
    help="At the limit of its queue (max_backlog): fail, or wait for room. Else as the --app declares it.",
)
@click.option(
    "--wait-result",
    is_flag=False,
    flag_value=FOR_EVER,
    metavar="[TIME]",
    help="Wait for its end, for ever or so long (--wait-result=30s), and print the result.",
)
@output_options
def enqueue(out: Output, /, target: Target, payload: str | None, wait_result: str | None, **options: Any) -> None:
    """Start a job of TYPE and print its id.

    The payload is JSON on the command line, in a file (@order.json) or on the standard input (-). With --app its model
    checks the payload before anything is sent.
    """
    from processor.client.backlog import QueueFull

    timeout = in_seconds("--wait-result", wait_result) if wait_result else None
    wanted = Wanted(payload=payload_of(payload), **options)
    app = target.app()
    try:
        handle = _enqueue(app, wanted)
    except QueueFull as error:
        error.hint = f"try again in {error.retry_after:.0f} s, or wait for room: --when-full wait"
        raise
    if wait_result is None:
        out.record({"id": handle.id, "type": wanted.type, "queue": _queue_of(app, wanted)}, handle.id)
        return
    out.note(f"enqueued {handle.id}")
    print_result(out, app, handle.id, timeout)


def _enqueue(app: App, wanted: Wanted) -> Handle[Any]:
    queue = _queue_of(app, wanted)
    _refuse_missing_queue(app, queue)
    known = wanted.type in app.job_types
    if known and (wanted.key is not None or wanted.version is not None):
        given = "--key" if wanted.key is not None else "--payload-version"
        raise DefinitionError(
            f"the app declares job type {wanted.type}: its key and version are known, {given} cannot change them",
            hint=f"leave {given} out, or go by --namespace and --queue instead of --app",
        )
    if known and wanted.queue is None:
        return app.enqueue(wanted.type, wanted.payload, **wanted.how)
    version = wanted.version or 1
    return app.enqueue(wanted.type, wanted.payload, queue=queue, version=version, key=wanted.key, **wanted.how)


def _queue_of(app: App, wanted: Wanted) -> str:
    known = app.job_types.get(wanted.type)
    if known is not None:
        return wanted.queue or known.queue
    if wanted.queue is not None:
        return wanted.queue
    if not app.job_types:
        raise UnknownJobType(
            f"which queue? nothing is known here of job type {wanted.type}",
            hint="say whose workers run it (--queue), or give --app, whose job types know their queues",
        )
    near = difflib.get_close_matches(wanted.type, app.job_types, n=1)
    raise UnknownJobType(
        f"the app has no job type {wanted.type}",
        hint=f"did you mean {near[0]}?" if near else f"it has: {', '.join(sorted(app.job_types)) or 'none'}",
    )


def _refuse_missing_queue(app: App, queue: str) -> None:
    """Ask before sending: a topic that does not exist is told at once, and a broker that is away as such."""
    from processor.admin import queues_of
    from processor.job import Lane
    from processor.wire.topics import check_name, jobs_topic

    topic = jobs_topic(app.namespace, check_name(queue, "queue"), Lane.NORMAL)
    if not app.broker().admin().topics([topic]):
        others = ", ".join(queues_of(app.broker(), app.namespace))
        raise TopicMissing(
            f"queue {queue} has no topic {topic}",
            hint=f"processor topics apply creates it; namespace {app.namespace} has "
            + (f"the queues {others}" if others else "no queues yet"),
        )


def _moment(value: str | None) -> datetime | None:
    try:
        moment = None if value is None else datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if value is not None and (moment is None or moment.tzinfo is None):
        raise click.BadParameter(f"{value!r} is no moment with a zone: write 2026-12-24T18:00+01:00, or end it with Z")
    return moment


def _checked_id(job_id: str | None) -> str | None:
    fault = None if job_id is None else fault_of_id(job_id)
    if fault is not None:
        raise click.BadParameter(f"{fault}; an id is not empty and holds no '#'")
    return job_id
