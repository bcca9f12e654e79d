"""One dead letter, whole: for machines, and for people."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from processor.cli.output import moment, show
from processor.errors import RecordError

if TYPE_CHECKING:
    from processor.admin.dead_letters import LetterRow
    from processor.job import Job
    from processor.wire.records import DeadLetterRecord

_LONG = 2000
"""Characters of a payload or state that people are shown; `--json` and `export` have it whole."""


def row_facts(row: LetterRow) -> dict[str, Any]:
    """What a list knows of a letter."""
    settled = row.settled
    return {
        "address": str(row.address),
        "id": row.id,
        "type": row.type,
        "queue": row.queue,
        "reason": row.reason,
        "state": row.state.value,
        "at": row.at,
        "life": row.life,
        "attempts": row.attempts,
        "error": row.error,
        "fingerprint": row.fingerprint,
        "size": row.size,
        "settled": None
        if settled is None
        else {"action": settled.action, "at": settled.at, "by": settled.by, "reason": settled.reason},
    }


def letter_facts(row: LetterRow, letter: DeadLetterRecord) -> dict[str, Any]:
    """Everything that a letter holds. Bytes that are no JSON come as base64."""
    from processor.core.redrive import job_of

    job = job_of(letter)
    return {
        **row_facts(row),
        "worker": letter.worker,
        "lay_in": {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        "job": None if job is None else _job_facts(job),
        "raw_base64": None if letter.raw is None or job is not None else _base64(letter.raw),
        "raw_key": None if letter.raw_key is None else letter.raw_key.decode("utf-8", "backslashreplace"),
        "failures": [failure._asdict() for failure in letter.failures or ()],
        "progress": _progress_facts(letter),
        "steps": _step_facts(letter),
        "children": letter.children or [],
    }


def _job_facts(job: Job) -> dict[str, Any]:
    facts = job._asdict()
    del facts["carried"], facts["payload"]
    try:
        payload, other = (json.loads(job.payload) if job.payload else None), None
    except (ValueError, RecursionError):
        payload, other = None, _base64(job.payload)
    return {**facts, "payload": payload, "payload_base64": other}


def _progress_facts(letter: DeadLetterRecord) -> dict[str, Any] | None:
    from processor.wire.codec import decode_checkpoint

    if letter.progress is None:
        return None
    try:
        record = decode_checkpoint(letter.progress)
    except RecordError as error:
        return {"unreadable": str(error)}
    return {
        "at": record.at,
        "attempt": record.attempt,
        "cursor": record.cursor,
        "state": record.state,
        "loops": {name: at._asdict() for name, at in (record.loops or {}).items()},
        "done": record.done,
        "total": record.total,
    }


def _step_facts(letter: DeadLetterRecord) -> list[dict[str, Any]]:
    from processor.wire.codec import decode_step

    found: list[dict[str, Any]] = []
    for value in letter.steps or ():
        try:
            step = decode_step(value)
        except RecordError as error:
            found.append({"unreadable": str(error)})
        else:
            found.append({"step": step.name, "phase": step.phase, "result": step.result, "error": step.error})
    return found


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def told(facts: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """A letter for people, without its failures; what is not there is left out."""
    from processor.cli.wording import age, size
    from processor.core.audit import REPLAY

    settled, job, lay = facts["settled"], facts["job"], facts["lay_in"]
    state = facts["state"]
    if settled is not None and state != "open":
        # A replay under the job's own id is its way back as well.
        state = "replayed" if settled["action"] == REPLAY else state
        state += f" by {settled['by']} at {moment(settled['at'])}" + (
            f": {settled['reason']}" if settled["reason"] else ""
        )
    lines = {
        "address": facts["address"],
        "state": state,
        "id": facts["id"],
        "type": facts["type"],
        "queue": facts["queue"],
        "reason": facts["reason"],
        "given up": f"{moment(facts['at'])} ({age(facts['at'], now_ms)} ago) by {facts['worker']}",
        "lay in": f"{lay['topic']}, partition {lay['partition']}"
        + (f", offset {lay['offset']}" if lay["offset"] >= 0 else ""),
        "size": size(facts["size"]),
    }
    if job is not None:
        lines |= _told_job(job)
    else:
        lines["job"] = "none that this version can read; processor dlq export has its bytes"
    lines |= _told_progress(facts)
    if facts["children"]:
        lines["children"] = _cut(", ".join(facts["children"]))
    return {name: value for name, value in lines.items() if value not in (None, "")}


def _told_job(job: Mapping[str, Any]) -> dict[str, Any]:
    payload = job["payload_base64"]
    if payload is None and job["payload"] is not None:
        payload = json.dumps(job["payload"], ensure_ascii=False)
    began = "replayed from" if "/" in (job["redriven_from"] or "") else "redriven from"
    return {
        "key": job["key"],
        "life": job["life"] if job["life"] > 1 else None,
        began: job["redriven_from"],
        "parent": job["parent"],
        "kill date": moment(job["kill_at"]) if job["kill_at"] is not None else None,
        "payload": _cut(payload),
    }


def _told_progress(facts: Mapping[str, Any]) -> dict[str, Any]:
    from processor.cli.wording import loops, progress
    from processor.job import LoopProgress

    saved = facts["progress"]
    if saved is None:
        return {"saved": "nothing: a redrive begins at the beginning" if facts["job"] else None}
    if "unreadable" in saved:
        return {"saved": f"unreadable: {saved['unreadable']}"}
    found = {name: LoopProgress(**at) for name, at in saved["loops"].items()}
    where = loops(found, saved["cursor"])
    return {
        "saved": where if where != "-" else "steps" if facts["steps"] else "yes, and no loop or cursor",
        "progress": progress(saved["done"], saved["total"]) if saved["done"] is not None else None,
        "job state": _cut(saved["state"]),
        "steps": ", ".join(show(step.get("step", "unreadable")) for step in facts["steps"]),
    }


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONG else f"{text[:_LONG]}... ({len(text):,} characters)"
