"""The app of the run: one job type whose jobs do as was drawn for them, until a file says that the fix is out."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from pydantic import BaseModel

from processor import App, Backoff, Context, Retry
from tests.ledger.fates import FAILS_AT, ROWS, Fate, failures_of, fate_of

FOLDER = Path(os.environ.get("LEDGER_FOLDER", "."))
app = App(os.environ.get("LEDGER_NAMESPACE", "ledger"))
app.queue("work", partitions=6, concurrency=50)

_lines = None
_lock = threading.Lock()


class Work(BaseModel):
    """One job of the run."""

    seed: int
    number: int


def note(*words: object) -> None:
    """One line of the ledger, whole even if this process dies right after it."""
    global _lines
    with _lock:
        if _lines is None:
            _lines = os.open(FOLDER / f"ledger.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(_lines, (" ".join(map(str, words)) + "\n").encode())


@app.job("work", payload=Work, queue="work", retry=Retry(3, Backoff("1s", "2s")))
def work(ctx: Context, p: Work) -> int:
    """Some rows; in the middle it does what was drawn for it."""
    fate = fate_of(p.seed, p.number)
    life = ctx.fencing_token[0]
    done = 0
    for row in ctx.each("rows", lambda after: range((after or 0) + 1, ROWS + 1), every="50ms"):
        note("row", ctx.id, life, row)
        if row == FAILS_AT - 1 and fate is Fate.KILLS:
            time.sleep(0.1)  # longer than `every`: when the next row begins, this one is saved
        if row == FAILS_AT and not (FOLDER / "fixed").exists():
            misbehave(ctx, fate)
        done += 1
    return done


def misbehave(ctx: Context, fate: Fate) -> None:
    """Fail, or take the process along."""
    if fate is Fate.KILLS:
        time.sleep(0.3)  # until a flush has taken what is saved
        note("dies", ctx.id)
        os.kill(os.getpid(), signal.SIGKILL)
    if fate is Fate.ALWAYS or ctx.attempt <= failures_of(fate):
        raise ConnectionError(f"the service of {fate} does not answer")
