"""`processor outbox`: jobs that were stored in a database with what they are about, and are to be sent."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from processor.cli.extras import needs_sql
from processor.cli.output import Column, Output, moment, output_options
from processor.cli.target import Target, target_options
from processor.cli.wording import age, count

if TYPE_CHECKING:
    from processor.outbox.relay import Relay

needs_outbox = needs_sql("outbox", "the outbox")
database_option = click.option(
    "--database",
    metavar="URL",
    envvar="PROCESSOR_OUTBOX_DATABASE",
    required=True,
    help="Your database: postgresql://USER@HOST/NAME or sqlite:///FILE.",
)


@click.group()
def outbox() -> None:
    """Jobs stored in your database, in one transaction with your rows, and sent to Kafka after it."""


@outbox.command()
@database_option
@output_options
@needs_outbox
def create(out: Output, database: str) -> None:
    """Make the table `processor_outbox`, unless it is there."""
    from processor.outbox.relay import create as make
    from processor.outbox.relay import open_database

    engine = open_database(database)
    make(engine)
    out.record({"database": engine.url.render_as_string(hide_password=True)}, "the table processor_outbox is there")


@outbox.command()
@target_options
@database_option
@click.option("--once", is_flag=True, help="End when nothing waits; exit code 1 if a job can never be sent.")
@output_options
@needs_outbox
def run(out: Output, target: Target, database: str, once: bool) -> None:
    """Send what was committed, once per row, until stopped. Several may run at once."""
    with _opened(target, database) as relay:
        relay.waiting()  # a wrong address is told at once, not tried for ever
        if once:
            with out.progress("sending", relay.waiting().rows) as tick:
                seen = [0]

                def told(total: int) -> None:
                    tick(total - seen[0])
                    seen[0] = total

                done = relay.drain(told)
            refused = f", {done.refused:,} refused: processor outbox show tells why" if done.refused else ""
            out.record(done._asdict(), f"{count(done.sent, 'job')} sent{refused}")
            if done.refused:
                sys.exit(1)
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        out.note("sending what is committed; Ctrl-C ends it")
        relay.run(stop)


@outbox.command()
@target_options
@database_option
@output_options
@needs_outbox
def show(out: Output, target: Target, database: str) -> None:
    """How many jobs wait to be sent, since when, and what will not be sent."""
    with _opened(target, database) as relay:
        waiting, refused = relay.waiting(), relay.refused()
        now = target.app().client().clock.now_ms()
    rows = [{"id": job_id, "stored": moment(at), "why": why} for job_id, at, why in refused]
    if out.as_json:
        out.facts({**waiting._asdict(), "refused_rows": rows})
        return
    since = "" if waiting.oldest_at is None else f", the oldest for {age(waiting.oldest_at, now)}"
    out.line(f"{count(waiting.rows, 'job')} to be sent{since}")
    if rows:
        columns = [Column(name="id", whole=True), Column(name="stored"), Column(name="why", style=lambda _: "bad")]
        out.table(columns, rows)
        out.note("processor outbox retry tries them again, after the cause is mended")


@outbox.command()
@target_options
@database_option
@output_options
@needs_outbox
def retry(out: Output, target: Target, database: str) -> None:
    """Let rows that were refused be tried once more."""
    with _opened(target, database) as relay:
        again = relay.retry_refused()
    out.record({"again": again}, f"{count(again, 'row')} will be tried again")


@contextmanager
def _opened(target: Target, database: str) -> Iterator[Relay]:
    from processor.outbox.relay import Relay, open_database

    app = target.app()
    engine = open_database(database)
    try:
        yield Relay(engine, app.client())
    finally:
        engine.dispose()
        app.close()
