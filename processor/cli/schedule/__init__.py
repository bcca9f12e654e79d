"""`processor schedule`: jobs that the clock starts.

looking     list, next: nothing is changed
changing    add, remove, pause, resume
running     trigger, backfill: jobs beside or behind the clock
"""

from __future__ import annotations

import click

from processor.cli.schedule.changing import add, pause, remove, resume
from processor.cli.schedule.looking import list_, next_
from processor.cli.schedule.running import backfill, trigger


@click.group()
def schedule() -> None:
    """Schedules: jobs that the clock starts."""


for _command in (list_, next_, add, remove, pause, resume, trigger, backfill):
    schedule.add_command(_command)
