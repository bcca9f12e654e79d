"""What a job has saved, asked of the log: of a dead one from its letter, of a living one from the checkpoint topic."""

from __future__ import annotations

from collections.abc import Iterable

from processor.admin.dead_letters import read_letters
from processor.admin.jobs import saved_progress
from processor.app import App
from processor.errors import RecordError
from processor.ops.actions import letter_row
from processor.ops.queries import JobFacts
from processor.ops.roles import Permission, User
from processor.ops.wording import moment, number
from processor.wire.codec import decode_checkpoint, decode_step
from processor.wire.records import CheckpointRecord, StepRecord

_STEPS = 200
"""Steps that are shown."""


def saved_facts(app: App, facts: JobFacts, user: User) -> list[tuple[str, str]]:
    """What is saved, as (name, value); empty: nothing. States and results are for those who may operate.

    Raises:
        BrokerError: Kafka does not answer.
    """
    job, whole = facts.job, user.may(Permission.OPERATE)
    letters = [letter for letter in facts.letters if letter["life"] == job["life"]]
    if letters:
        for _, letter in read_letters(app.broker(), app.namespace, [letter_row(letters[-1])]):
            try:
                record = None if letter.progress is None else decode_checkpoint(letter.progress)
                return _told(record, [decode_step(step) for step in letter.steps or ()], whole=whole)
            except RecordError as error:
                return [("unreadable", str(error))]
        return []
    found = saved_progress(app.broker(), app.namespace, job["queue"], job["id"], number=job["number"])
    return [] if found is None else _told(found.progress, found.steps, whole=whole)


def _told(record: CheckpointRecord | None, steps: Iterable[StepRecord], *, whole: bool) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if record is not None:
        rows.append(("saved", f"{moment(record.at)}, in attempt {record.attempt}"))
        for name, loop in (record.loops or {}).items():
            of = "" if loop.total is None else f" of {number(loop.total)}"
            where = "finished" if loop.exhausted else f"at {loop.cursor}" if loop.cursor is not None else "not begun"
            rows.append((f"loop {name}", f"{number(loop.items)}{of} items, {where}"))
        if record.cursor is not None:
            rows.append(("cursor", record.cursor))
        if record.state is not None:
            rows.append(("state", record.state if whole else "•••"))
    for step in list(steps)[:_STEPS]:
        told = step.error or (step.result if whole else None)
        rows.append((f"step {step.name}", f"{step.phase}{': ' + told if told else ''}"))
    return rows
