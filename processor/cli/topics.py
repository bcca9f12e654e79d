"""`processor topics`: what the topics of an app are, should be, and hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Column, Output, moment, output_options, show
from processor.cli.target import app_option, load_app
from processor.errors import DefinitionError, RecordError, TopicMismatch

if TYPE_CHECKING:
    from processor.admin import TopicsReview
    from processor.broker.base import Record

_ACTIONS = {"create": "good", "widen": "good", "configure": "good", "refused": "bad"}
_SEVERITIES = {"warn": "warn", "refuse": "bad"}

_keyless = click.option(
    "--keyless", metavar="QUEUE", multiple=True, help="This queue has no keys: widen it while it holds jobs."
)
_shorten = click.option("--shorten-retention", is_flag=True, help="Lower retention too; older records will be deleted.")


@click.group()
def topics() -> None:
    """The topics of an app: what they are, should be, and hold."""


@topics.command()
@app_option
@_keyless
@_shorten
@output_options
def plan(out: Output, app_name: str | None, keyless: Sequence[str], shorten_retention: bool) -> None:
    """Say what `apply` would do. Changes nothing."""
    _apply(out, app_name, keyless, shorten_retention, dry_run=True)


@topics.command()
@app_option
@_keyless
@_shorten
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@output_options
def apply(out: Output, app_name: str | None, keyless: Sequence[str], shorten_retention: bool, dry_run: bool) -> None:
    """Create what is missing, widen and configure what differs. Deletes nothing. Exit code 4 if something is left."""
    _apply(out, app_name, keyless, shorten_retention, dry_run=dry_run)


def _apply(out: Output, app_name: str | None, keyless: Sequence[str], shorten: bool, *, dry_run: bool) -> None:
    from processor.admin import apply_topics

    app = load_app(app_name)
    review = apply_topics(app.broker(), app.topic_plan(), dry_run=dry_run, keyless=keyless, shorten=shorten)
    rows = [
        {"action": change.action, "topic": change.topic, "change": change.text, "config": change.config}
        for change in review.changes
    ]
    out.table(
        [Column(name="action", style=lambda action: _ACTIONS[action]), Column(name="change")],
        rows,
        empty="all topics are as planned",
    )
    _complain(review)


def _complain(review: TopicsReview) -> None:
    if review.refused:
        raise TopicMismatch(
            f"{len(review.refused)} of {len(review.changes)} changes are left to you",
            hint="each refused line above says why",
        )


@topics.command()
@app_option
@output_options
def diff(out: Output, app_name: str | None) -> None:
    """Show how the topics differ from the plan. Exit code 4 if work could be lost."""
    from processor.core.topic_plan import Aspect, Severity, compare

    app = load_app(app_name)
    plan_ = app.topic_plan()
    found = compare(plan_, app.broker().admin().topics([spec.name for spec in plan_], configs=True))
    rows = [
        {
            "severity": difference.severity,
            "topic": difference.topic,
            "setting": difference.setting,
            "wanted": difference.wanted,
            "found": difference.found,
            "text": difference.text,
        }
        for difference in found
    ]
    columns = [Column(name=name) for name in ("topic", "setting", "wanted", "found")]
    severity = Column(name="severity", style=lambda value: _SEVERITIES[value])
    out.table([severity, *columns], rows, empty="all topics are as planned")
    for difference in found:
        if difference.aspect is Aspect.PARTITIONS:
            out.note(difference.text)
    bad = [difference for difference in found if difference.severity is Severity.REFUSE]
    if bad:
        raise TopicMismatch(f"{len(bad)} differences could lose work", hint="processor topics apply")


@topics.command()
@app_option
@click.argument("names", nargs=-1)
@output_options
def describe(out: Output, app_name: str | None, names: Sequence[str]) -> None:
    """List the app's topics, or those named, as the cluster has them."""
    from processor.broker.base import Isolation, TopicPartition

    app = load_app(app_name)
    wanted = list(names) or [spec.name for spec in app.topic_plan()]
    admin = app.broker().admin()
    found = admin.topics(wanted, configs=True)
    places = [TopicPartition(name, number) for name, info in found.items() for number in range(info.partitions)]
    begins, ends = admin.begin_offsets(places), admin.end_offsets(places, Isolation.COMMITTED)
    rows: list[dict[str, Any]] = []
    for name in wanted:
        info = found.get(name)
        if info is None:
            out.warning(f"{name} does not exist")
            continue
        own = [place for place in places if place.topic == name]
        rows.append(
            {
                "topic": name,
                "partitions": info.partitions,
                "replicas": info.replication,
                "cleanup": info.config.get("cleanup.policy", ""),
                "offsets": sum(ends[place] - begins[place] for place in own),
                "config": dict(info.config),
            }
        )
    numbers = [Column(name=name, right=True) for name in ("partitions", "replicas", "offsets")]
    out.table([Column(name="topic"), *numbers, Column(name="cleanup")], rows, empty="no topics")


@topics.command()
@app_option
@click.argument("names", nargs=-1)
@click.option("-n", "--count", type=click.IntRange(0), default=10, show_default=True, help="Records per partition.")
@click.option("--from", "start", type=click.Choice(["start", "end"]), default="end", show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@output_options
def tail(out: Output, app_name: str | None, names: Sequence[str], count: int, start: str, follow: bool) -> None:
    """Print the last records of topics, decoded. NAMES may leave the namespace out: jobs.bulk, dlq."""
    from processor.admin import tail as read

    app = load_app(app_name)
    planned = [spec.name for spec in app.topic_plan()]
    chosen = [_full_name(app.namespace, name, planned) for name in names] or planned
    for record in read(app.broker(), chosen, count=count, from_start=start == "start", follow=follow):
        row = describe_record(record)
        out.record(row, _line(row))


def _full_name(namespace: str, name: str, planned: Iterable[str]) -> str:
    listed = list(planned)
    for candidate in (name, f"{namespace}.{name}"):
        if candidate in listed:
            return candidate
    raise DefinitionError(f"{name} is no topic of this app", hint=f"there are: {', '.join(listed)}")


def describe_record(record: Record) -> dict[str, Any]:
    """A record for people: place, key, headers, and the value decoded as far as it can be."""
    row: dict[str, Any] = {
        "topic": record.topic(),
        "partition": record.partition(),
        "offset": record.offset(),
        "at": moment(record.timestamp()[1]),
        "key": _text(record.key()),
        "headers": {name: _text(value) for name, value in record.headers() or ()},
        "kind": "tombstone",
        "value": None,
    }
    value = record.value()
    if value is not None:
        row["kind"], row["value"] = _decoded(value)
    return row


def _decoded(value: bytes) -> tuple[str, Any]:
    from processor.wire.codec import decode

    try:
        record = decode(value)
    except RecordError as error:
        return "undecodable", {"error": str(error), "raw": _text(value)}
    return type(record).__name__.removesuffix("Record"), {
        name: _inner(field) for name, field in record._asdict().items() if field is not None
    }


def _inner(value: Any) -> Any:
    """A field's value; a record within a record (a live job's job, an end mark's status) is opened too."""
    if isinstance(value, bytes):
        if value.startswith(b"\xc3\x01"):
            return _decoded(value)[1]
        return _text(value)
    if isinstance(value, list):
        return [_inner(item) for item in value]
    if isinstance(value, dict):
        return {name: _inner(item) for name, item in value.items()}
    return value._asdict() if hasattr(value, "_asdict") else value


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _line(row: dict[str, Any]) -> str:
    fields = row["value"] or {}
    told = " ".join(f"{name}={show(value)}" for name, value in fields.items() if name != "id")
    place = f"{row['topic']}-{row['partition']}@{row['offset']}"
    return f"{row['at']} {place} {show(row['key'])} {row['kind']} {told}".rstrip()
