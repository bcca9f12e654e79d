"""`processor dlq`: dead letters.

looking     list, show, export: nothing is changed
changing    redrive, discard
choosing    which letters a command means
facts       a letter for machines and for people
"""

from __future__ import annotations

import click

from processor.cli.dlq.changing import discard, redrive
from processor.cli.dlq.looking import export, list_, show_


@click.group()
def dlq() -> None:
    """Dead letters: what was given up, why, and its way back."""


for _command in (list_, show_, redrive, discard, export):
    dlq.add_command(_command)
