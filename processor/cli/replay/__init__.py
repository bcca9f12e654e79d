"""`processor replay`: history again.

wishing     the options that say what is meant
telling     a plan and an outcome, for machines and for people
commands    plan, run, list
"""

from __future__ import annotations

import click

from processor.cli.replay.commands import list_, plan, run


@click.group()
def replay() -> None:
    """Run jobs of a queue's history again: all of them, or those that are chosen, here or elsewhere."""


for _command in (plan, run, list_):
    replay.add_command(_command)
