"""`processor demo`: the whole story on real input."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from processor.cli.output import Output


@click.command()
@click.option("--bootstrap", metavar="HOST:PORT", help="Use this Kafka; its demo topics stay there.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the reckoning as one JSON object.",
)
@click.option("--keep", is_flag=True, help="Keep the folder: the log, the ledger, the workers' output.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def demo(bootstrap: str | None, json_path: Path | None, keep: bool, debug: bool) -> None:
    """The whole story on real input: a real Kafka, thousands of jobs, a killed worker, a frozen one.

    Counts the identifiers of every source file of Python's standard library, walks over all its lines in one long job,
    and shows that nothing is lost and nothing takes effect twice. Takes about two minutes. Exit code 1 if a promise was
    not kept.
    """
    from processor.demo.screen import Screen
    from processor.demo.story import DemoOptions, demonstrate

    with Output(debug=debug).errors():
        signal.signal(signal.SIGTERM, _interrupt)
        reckoning = demonstrate(DemoOptions(bootstrap=bootstrap, keep=keep), Screen())
        if json_path is not None:
            reckoning.write(json_path)
        for failure in reckoning.failures():
            click.secho(f"promise not kept: {failure}", err=True, fg="red")
    if not reckoning.ok:
        sys.exit(1)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM stops like Ctrl-C: in good order, leaving nothing behind."""
    raise KeyboardInterrupt
