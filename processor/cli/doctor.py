"""`processor doctor`: ordered checks of settings, cluster, topics and workers, each with what to do about it.

It only reads. Each check is a function in `admin.doctor`; the first that fails in a way that makes the rest
useless (no settings, no broker) ends the examination.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from processor.cli.output import Output, output_options, show
from processor.cli.target import Target, target_options
from processor.cli.wording import count
from processor.errors import ProcessorError

if TYPE_CHECKING:
    from processor.admin.doctor import Finding
    from processor.app import App

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "unknown": "bright_black"}


@click.command()
@target_options
@output_options
def doctor(out: Output, target: Target) -> None:
    """Check settings, cluster, topics and workers, and say what to do.

    Exit code 0 if nothing failed (warnings do not count), 2 for settings, 3 for the broker, 4 for topics that do not
    fit the app.
    """
    found: list[Finding] = []
    for finding in _examine(target):
        found.append(finding)
        if not out.as_json:
            _print(out, finding)
    if out.as_json:
        out.table([], [finding.as_row() for finding in found])
    else:
        counts = {verdict: sum(finding.verdict == verdict for finding in found) for verdict in _COLOURS}
        out.line(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    failed = [finding.exit_code for finding in found if finding.verdict == "fail"]
    if failed:
        sys.exit(failed[0])


def _examine(target: Target) -> Iterator[Finding]:
    from processor.admin.doctor import DoctorContext, Finding, examine

    try:
        app = target.app()
        yield _check_settings(app, target)
    except ProcessorError as error:
        yield Finding.of("settings", error)
        return
    yield from examine(DoctorContext(app=app, has_code=target.has_code))


def _check_settings(app: App, target: Target) -> Finding:
    """Whether the settings can be read."""
    from processor.admin.doctor import Finding, Verdict
    from processor.wire.settings_sources import origins

    changed = [row.name for row in origins(app.settings()) if row.origin != "default"]
    code = f"app {target.app_name}" if target.has_code else f"namespace {target.namespace}"
    bootstrap = target.bootstrap or app.settings().kafka.bootstrap
    text = f"{code}, {count(len(changed), 'setting')} changed, bootstrap {bootstrap}"
    return Finding(check="settings", verdict=Verdict.OK, text=text, details={"changed": changed})


def _print(out: Output, finding: Finding) -> None:
    verdict = click.style(finding.verdict.ljust(7), fg=_COLOURS[finding.verdict])
    out.line(f"{verdict}  {finding.check.ljust(12)}  {show(finding.text)}")
    if finding.hint:
        out.line(f"{' ' * 23}-> {show(finding.hint)}")
    # Checks take seconds: whoever reads along sees each at once.
    sys.stdout.flush()
