"""`processor job`: start jobs, look at them, wait for their results, cancel them or let them go on.

starting    enqueue
looking     list, show
why         why it does not run
waiting     watch, result
ordering    cancel, retry
following   one job, watched to its end
"""

from __future__ import annotations

import click

from processor.cli.job.looking import list_, show_
from processor.cli.job.ordering import cancel, retry
from processor.cli.job.starting import enqueue
from processor.cli.job.waiting import result, watch
from processor.cli.job.why import why


@click.group()
def job() -> None:
    """Start jobs, look at them, get their results."""


for _command in (enqueue, list_, show_, why, watch, result, cancel, retry):
    job.add_command(_command)
