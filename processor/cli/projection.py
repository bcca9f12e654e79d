"""`processor projection`: the copy of the log in SQL that the dashboard asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from processor.cli.extras import needs_sql
from processor.cli.output import Column, Output, moment, output_options
from processor.cli.target import Target, target_options
from processor.cli.wording import age, count, state_style

if TYPE_CHECKING:
    from processor.app import App
    from processor.ops.projector import Projector
    from processor.ops.store import Store

needs_dashboard = needs_sql("dashboard", "the projection")
database_option = click.option(
    "--database",
    metavar="URL",
    help="Where the projection lives: sqlite:///FILE or postgresql://USER@HOST/NAME.",
    show_default="dashboard.database",
)


@click.group()
def projection() -> None:
    """The copy of the log in SQL that the dashboard asks: rebuilt at any time, it holds nothing of its own."""


@projection.command()
@target_options
@database_option
@output_options
@needs_dashboard
def show(out: Output, target: Target, database: str | None) -> None:
    """How fresh it is, and how many jobs it holds in each state."""
    from processor.ops.queries import Queries

    app = target.app()
    with opened(app, database) as store:
        if not store.facts():
            out.record({"database": _where(store)}, "there is none yet: processor projection run makes it")
            return
        queries = Queries(store)
        fresh, states = queries.freshness(), queries.states()
        now = app.client().clock.now_ms()
        facts = {"database": _where(store), "as_of": fresh.as_of, "behind": fresh.behind, "jobs": states}
        if out.as_json:
            out.facts(facts)
            return
        told = "never caught up" if not fresh.as_of else f"{moment(fresh.as_of)} ({age(fresh.as_of, now)} ago)"
        jobs = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none"
        behind = count(max(0, fresh.behind), "record")
        out.facts({"database": facts["database"], "as of": told, "behind": behind, "jobs": jobs})


@projection.command()
@target_options
@database_option
@click.option("--once", is_flag=True, help="End when everything that is there now has been read.")
@output_options
@needs_dashboard
def run(out: Output, target: Target, database: str | None, once: bool) -> None:
    """Keep it up to date until stopped; `processor dashboard` does the same by itself."""
    app = target.app()
    with opened(app, database) as store, projecting(app, store) as projector:
        with out.progress("reading the log") as tick:
            read = projector.catch_up(tick)
        out.note(f"{count(read, 'record')} read; it is up to date")
        if not once:
            forever(projector)


@projection.command()
@target_options
@database_option
@output_options
@needs_dashboard
def rebuild(out: Output, target: Target, database: str | None) -> None:
    """Forget everything and read it from the log again. Nothing is lost by it, and a running dashboard goes on."""
    app = target.app()
    with opened(app, database) as store:
        store.wipe()
        with projecting(app, store) as projector, out.progress("reading the log") as tick:
            read = projector.catch_up(tick)
    out.record({"read": read}, f"rebuilt from {count(read, 'record')}")


@projection.command()
@click.argument("words", nargs=-1, metavar="[FILTER]...")
@target_options
@database_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Jobs at most.")
@output_options
@needs_dashboard
def find(out: Output, target: Target, words: tuple[str, ...], database: str | None, limit: int) -> None:
    """Find jobs as the dashboard does: `state:dead order_id:123 since:2h`."""
    from processor.ops.filters import parse
    from processor.ops.queries import Queries
    from processor.ops.search import search_names, search_of

    app = target.app()
    now = app.client().clock.now_ms()
    where = parse(" ".join(words), now, search_names(search_of(app)))
    with opened(app, database) as store:
        rows = [dict(row) for row in Queries(store).jobs(where, limit=limit).rows] if store.facts() else []
    columns = [
        Column(name="id", whole=True),
        Column(name="type"),
        Column(name="state", style=state_style),
        Column(name="attempt", right=True),
        Column(name="changed"),
        Column(name="error"),
    ]
    for row in rows:
        row["changed"] = f"{age(row['changed_at'], now)} ago"
        row["error"] = f"{row['error_kind']}: {row['error_message']}".partition("\n")[0] if row["error_kind"] else ""
    out.table(columns, rows, empty="no job is meant; processor projection show tells how fresh this is")


# -- parts, also of `processor dashboard` ------------------------------------------------------------------------------


@contextmanager
def opened(app: App, database: str | None) -> Iterator[Store]:
    """The projection of an app."""
    from processor.ops.store import Store, default_url

    named = database or app.settings().dashboard.database.get_secret_value()
    store = Store(named or default_url(app.namespace), app.namespace)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def projecting(app: App, store: Store) -> Iterator[Projector]:
    """What keeps it up to date, and watches the saved filters that are alerts while it runs."""
    from processor.ops.projector import Projector
    from processor.ops.search import search_of
    from processor.ops.watching.watch import FilterWatch

    search = search_of(app)
    watch = FilterWatch(app.broker(), store, search)
    keep = round(app.settings().topics.status_retention * 1000)
    projector = Projector(app.broker(), store, search=search, keep_ms=keep, beside=watch.turn)
    try:
        yield projector
    finally:
        projector.close()


def forever(projector: Projector) -> None:
    """Go on until SIGTERM or Ctrl-C."""
    import signal
    import threading

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    projector.run(stop)


def _where(store: Store) -> str:
    return store.engine.url.render_as_string(hide_password=True)
