"""What fails in the demo: a flaky mail server, and an import that no attempt can do before somebody mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from processor.admin.dead_letters import list_letters
from processor.admin.redrive import Order, redrive_letters
from processor.app import App
from processor.context import Context
from processor.core.redrive import Redrive
from processor.demo.ledger import Ledger
from processor.demo.screen import Screen
from processor.demo.watch import Watch
from processor.identity import operator
from processor.job_types import JobType
from processor.policies import Backoff, Retry
from processor.states import State

FAILURES = "failures"
MAILS = 30
REFUSED_AT_FIRST = 3
"""Every third mail."""
IMPORT_ID = "the-import"
ROWS = 1000
BAD_ROW = 900
FIX = "the-fix"
"""The file whose presence mends the import."""

Until = Callable[[Callable[[], bool], str], None]
"""Looks around until something is so."""


class Mail(BaseModel):
    """One mail to a server that is not always there."""

    number: int

    @property
    def id(self) -> str:
        """Of its job."""
        return f"mail-{self.number}"

    @property
    def is_refused_at_first(self) -> bool:
        """Whether the server will not take it at once."""
        return self.number % REFUSED_AT_FIRST == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """The job types that fail, and where they work."""

    mail: JobType[Mail, None]
    imports: JobType[None, int]
    ledger: Ledger
    folder: Path

    @property
    def mails(self) -> list[Mail]:
        """All of them."""
        return [Mail(number=number) for number in range(1, MAILS + 1)]

    @property
    def ids(self) -> set[str]:
        """Of all their jobs."""
        return {IMPORT_ID, *(mail.id for mail in self.mails)}

    @property
    def effects(self) -> int:
        """What they do to the world outside."""
        return MAILS + ROWS

    def retried(self, watch: Watch) -> int:
        """Mails that were sent in a later attempt than the first."""
        found = (watch.status(mail.id) for mail in self.mails)
        return sum(status is not None and status.attempt > 1 for status in found)

    @property
    def retried_expected(self) -> int:
        """How many of them that should be."""
        return sum(mail.is_refused_at_first for mail in self.mails)

    @property
    def rows_imported_twice(self) -> int:
        """Rows of the import that ran again, of all its attempts and lives."""
        return self.ledger.applications_of(IMPORT_ID) - ROWS


def declare_failing(app: App, ledger: Ledger, folder: Path) -> Failing:
    """Declare the job types; `folder` is where the fix will lie."""
    app.queue(FAILURES, partitions=2, concurrency=4)

    @app.job("mail.send", queue=FAILURES, payload=Mail, retry=Retry(3, Backoff("1s")))
    def mail(ctx: Context, p: Mail) -> None:
        if p.is_refused_at_first and ctx.attempt == 1:
            raise ConnectionError("the mail server is away for a moment")
        ledger.apply(ctx.idempotency_key("mail"), ctx.id, "mail")

    @app.job("rows.import", queue=FAILURES, retry=Retry(2, Backoff("1s")))
    def imports(ctx: Context) -> int:
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, ROWS + 1), total=ROWS):
            if row == BAD_ROW and not (folder / FIX).exists():
                raise ValueError(f"row {row}: the amount 'twelve' is no number")
            ledger.apply(ctx.idempotency_key("row"), ctx.id, f"row {row}")
        return ROWS

    return Failing(mail=mail, imports=imports, ledger=ledger, folder=folder)


def tell(failing: Failing, app: App, screen: Screen, watch: Watch, until: Until) -> None:
    """The chapter: retries, a dead letter, the fix, a redrive."""
    screen.chapter("What fails")
    screen.say(
        f"{MAILS} mails go to a server that refuses every third one at first, and an import has a row that no attempt "
        "can digest. What fails waits in a retry topic, with its progress, and blocks nobody behind it."
    )
    failing.mail.enqueue_many(failing.mails, ids=lambda mail: mail.id)
    failing.imports.enqueue(id=IMPORT_ID)

    def is_now(state: State, job_id: str) -> bool:
        status = watch.status(job_id)
        return status is not None and status.state is state

    until(lambda: is_now(State.DEAD, IMPORT_ID), "the import to be given up")
    until(lambda: all(is_now(State.SUCCEEDED, mail.id) for mail in failing.mails), "the mails")
    screen.event(f"all {MAILS} mails are sent, {failing.retried(watch)} of them in a second attempt")
    (letter,) = list_letters(app.broker(), app.namespace)
    screen.event(f"dead letter {letter.address}: {letter.id}, {letter.attempts} attempts, {letter.error}")
    screen.say(f"Somebody repairs row {BAD_ROW}, and sends the job back: processor dlq redrive {IMPORT_ID}")
    (failing.folder / FIX).touch()
    order = Order(by=operator(), reason=f"row {BAD_ROW} is repaired")
    redrive_letters(app.broker(), app.namespace, [letter], Redrive(), order)
    until(lambda: is_now(State.SUCCEEDED, IMPORT_ID), "the import to end after the fix")
    screen.event(f"the import went on at row {BAD_ROW} and is done; rows imported twice: {failing.rows_imported_twice}")
