"""`processor alerts`: what workers say that somebody should look at, and who hears of it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from processor.cli.output import Column, Output, moment, output_options
from processor.cli.projection import database_option, needs_dashboard, opened
from processor.cli.target import Target, target_options
from processor.cli.wording import count
from processor.errors import ProcessorError, SettingsError

if TYPE_CHECKING:
    from processor.app import App
    from processor.wire.settings import AlertRule

_HINT = "in processor.toml: [[alerts.rules]] with name and to; see docs/alerts.md"


@click.group()
def alerts() -> None:
    """What workers say that somebody should look at, and who hears of it."""


@alerts.command("list")
@target_options
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only this kind; several times for more.")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows at most.")
@output_options
def list_(out: Output, target: Target, kinds: Sequence[str], limit: int) -> None:
    """List alerts, the newest last."""
    from processor.admin.reading import partitions_of, read_to_end
    from processor.wire.codec import decode_alert
    from processor.wire.topics import alerts_topic

    app = target.app()
    places = partitions_of(app.broker(), [alerts_topic(app.namespace)])
    found = [decode_alert(record.value() or b"") for record in read_to_end(app.broker(), places)]
    chosen = [alert for alert in found if not kinds or alert.kind in kinds][-limit:]
    rows = [alert._asdict() for alert in chosen]
    if not out.as_json:
        rows = [{**row, "at": moment(row["at"])} for row in rows]
    columns = [Column(name="at"), Column(name="kind", style=lambda _: "bad"), Column(name="text")]
    out.table(columns, rows, empty=f"no {'such ' if kinds else ''}alerts in namespace {app.namespace}")


@alerts.command()
@target_options
@output_options
def run(out: Output, target: Target) -> None:
    """Deliver alerts by the rules of the settings, until stopped. Several may run: one delivers, others stand by."""
    from processor.alerts.alerter import Alerter
    from processor.alerts.watch import Watch

    app = target.app()
    rules = _rules(app)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    failures: list[ProcessorError] = []

    alerters = [Alerter(app.broker(), app.namespace, rule) for rule in rules]

    def serve(alerter: Alerter) -> None:
        try:
            alerter.run(stop)
        except ProcessorError as error:
            failures.append(error)
            stop.set()

    threads = [
        threading.Thread(target=serve, args=(alerter,), name=f"alerter-{rule.name}")
        for rule, alerter in zip(rules, alerters, strict=True)
    ]
    for thread in threads:
        thread.start()
    out.note(f"delivering alerts by {count(len(rules), 'rule')}: {', '.join(rule.name for rule in rules)}")
    watch = Watch(app.broker(), app.namespace, app.settings().alerts, lambda: alerters[0].delivers)
    while any(thread.is_alive() for thread in threads):
        watch.turn()
        stop.wait(0.2)
        if stop.is_set():
            for thread in threads:
                thread.join()
    watch.close()
    app.close()
    if failures:
        raise failures[0]


@alerts.command()
@click.argument("rule_name", metavar="RULE")
@target_options
@output_options
def test(out: Output, rule_name: str, target: Target) -> None:
    """Send a test alert to the recipients of a rule, now."""
    from processor.alert_kinds import AlertKind
    from processor.alerts.delivery import AlertUndelivered, deliver
    from processor.alerts.routing import folded
    from processor.wire.records import AlertRecord

    app = target.app()
    rule = next((rule for rule in _rules(app) if rule.name == rule_name), None)
    if rule is None:
        known = ", ".join(rule.name for rule in _rules(app))
        raise SettingsError(f"there is no alert rule {rule_name}", hint=f"there are: {known}")
    now = time.time_ns() // 1_000_000
    alert = AlertRecord(AlertKind.TEST, "test", now, "", f"a test of the rule {rule_name}: nothing is wrong")
    secret = rule.secret.get_secret_value() if rule.secret is not None else ""
    failed = 0
    for address in rule.addresses():
        try:
            deliver(
                address,
                folded([alert]),
                namespace=app.namespace,
                rule=rule_name,
                delivery=f"{rule_name}-test-{now}",
                secret=secret,
            )
        except AlertUndelivered as error:
            failed += 1
            out.error(error)
    if failed:
        raise AlertUndelivered(f"{failed} of {count(len(rule.to), 'recipient')} did not take it")
    out.record({"delivered": len(rule.to)}, f"delivered to {count(len(rule.to), 'recipient')}")


@alerts.command()
@target_options
@database_option
@output_options
@needs_dashboard
def filters(out: Output, target: Target, database: str | None) -> None:
    """List the dashboard's saved filters, and which of them are alerts."""
    from processor.ops.kept import Kept
    from processor.ops.watching.wishing import told_filters

    app = target.app()
    with opened(app, database) as store:
        rows = [dict(row) for row in told_filters(Kept(store))]
    if not out.as_json:
        rows = [{**row, **_standing(row["alert"])} for row in rows]
    columns = [Column(name="name"), Column(name="alert"), Column(name="stands"), Column(name="filter")]
    out.table(columns, rows, empty="no filter is saved: the dashboard saves them, on its page Jobs")


@alerts.command()
@click.argument("name", metavar="FILTER")
@click.option("--at-least", type=click.IntRange(1, 10_000), help="Tell when so many jobs match, and when fewer do.")
@click.option("--for", "hold", metavar="TIME", default="", help="Only after so long: 5m, 1h.", show_default="at once")
@click.option("--each", is_flag=True, help="Tell of each job that comes to match.")
@target_options
@database_option
@output_options
@needs_dashboard
def watch(
    out: Output, /, target: Target, name: str, at_least: int | None, hold: str, each: bool, database: str | None
) -> None:
    """Make a saved filter of the dashboard an alert. The process that keeps the projection watches it."""
    from processor.admin.orders import Operator
    from processor.ops.kept import Kept
    from processor.ops.watching import wishing

    if each == (at_least is not None):
        raise SettingsError("when is it told?", hint="give --at-least N, with --for TIME if you like, or --each")
    app, who = target.app(), Operator()
    wish = wishing.wish_of(at_least, hold)
    with opened(app, database) as store:
        wishing.watch(app, Kept(store), name, wish, by=who.by, at=who.clock.now_ms())
    told = wishing.wished(wish)
    out.record({"filter": name, "alert": told}, f"filter {name} is an alert: {told}")


@alerts.command()
@click.argument("name", metavar="FILTER")
@target_options
@database_option
@output_options
@needs_dashboard
def unwatch(out: Output, name: str, target: Target, database: str | None) -> None:
    """Make a saved filter no alert any more. The filter stays."""
    from processor.admin.orders import Operator
    from processor.ops.kept import Kept
    from processor.ops.watching import wishing

    app, who = target.app(), Operator()
    with opened(app, database) as store:
        wishing.unwatch(app, Kept(store), name, by=who.by, at=who.clock.now_ms())
    out.record({"filter": name, "alert": None}, f"filter {name} is no alert any more")


def _standing(alert: Mapping[str, Any] | None) -> dict[str, str]:
    if alert is None:
        return {"alert": "-", "stands": "-"}
    stands = f"cannot be read: {alert['problem']}" if alert["problem"] else "open" if alert["open"] else "quiet"
    return {"alert": alert["text"], "stands": stands}


def _rules(app: App) -> tuple[AlertRule, ...]:
    rules = app.settings().alerts.rules
    if not rules:
        raise SettingsError("there are no alert rules", hint=_HINT)
    return rules
