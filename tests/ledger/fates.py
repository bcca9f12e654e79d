"""What is drawn for each job, the same in the harness and in the handlers: from the seed and the job's number alone."""

from __future__ import annotations

import random
from enum import StrEnum

ROWS = 20
FAILS_AT = 10
"""The row at which whoever fails or dies does it, with the rows before it saved."""


class Fate(StrEnum):
    """What a job does until the fix."""

    FINE = "fine"
    ONCE = "fails once"
    TWICE = "fails twice"
    ALWAYS = "fails always"
    KILLS = "kills its process"


ODDS = {Fate.ONCE: 0.20, Fate.TWICE: 0.09, Fate.ALWAYS: 0.01, Fate.KILLS: 0.001}
"""Of all jobs: 30 % fail once or more, 1 % of all of them always; 0.1 % kill their process."""


def fate_of(seed: int, number: int) -> Fate:
    """What becomes of job `number` of the run `seed`."""
    draw = random.Random(f"{seed}/{number}").random()
    for fate, odds in ODDS.items():
        draw -= odds
        if draw < 0:
            return fate
    return Fate.FINE


def failures_of(fate: Fate) -> int:
    """Attempts that fail before one succeeds, of fates that come to an end."""
    return {Fate.ONCE: 1, Fate.TWICE: 2}.get(fate, 0)
