"""Where a job stands and why, in sentences: for operators, and for people who only know an order number. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from processor.ops.queries import JobFacts, Row
from processor.ops.wording import ago, count, first_line, moment, number, short, span
from processor.states import State

WORDS = {
    State.SCHEDULED: "scheduled",
    State.QUEUED: "queued",
    State.RUNNING: "running",
    State.RETRYING: "retrying",
    State.WAITING: "waiting",
    State.IN_DOUBT: "in doubt",
    State.SUCCEEDED: "succeeded",
    State.DEAD: "failed for good",
    State.CANCELLED: "cancelled",
    State.KILLED: "killed",
    State.EXPIRED: "expired",
    State.DISCARDED: "discarded",
}
SIGNS = dict(zip(WORDS, "◷…▶↻‖?✓✕⊘✕⊗⊘", strict=True))
TONES = {
    State.RUNNING: "good",
    State.SUCCEEDED: "good",
    State.RETRYING: "warn",
    State.WAITING: "warn",
    State.IN_DOUBT: "bad",
    State.DEAD: "bad",
    State.KILLED: "bad",
    State.EXPIRED: "bad",
}
"""Colours of the states; the others have none."""


def why(facts: JobFacts, now_ms: int) -> list[str]:
    """Where it stands and why, for somebody who knows what queues and attempts are."""
    job = facts.job
    lines = [_standing(facts, now_ms)]
    for order in facts.orders:
        if order["action"] == "pause" and job["state"] in (
            State.QUEUED,
            State.SCHEDULED,
            State.RETRYING,
            State.WAITING,
        ):
            kind, _, name = str(order["target"]).partition(":")
            what = f"Its queue {name}" if kind == "queue" else f"Its job type {name}"
            lines.append(f"{what} is paused by {order['by']}{_because(order['reason'])}.")
        if order["action"] == "cancel" and job["state"] not in _ENDED and order["life"] >= job["life"]:
            lines.append(f"{order['by']} asked for its cancel{_because(order['reason'])}.")
    # Beside its progress a note is kept up to date there.
    beside = job["state"] == State.RUNNING and job["done"] is not None
    if job["note"] and job["state"] != State.SUCCEEDED and not beside:
        lines.append(f"Note: {first_line(job['note'])}")
    return lines


def _standing(facts: JobFacts, now_ms: int) -> str:
    job, state = facts.job, State(facts.job["state"])
    error, then = _error(job), ago(job["changed_at"], now_ms)
    since = span((now_ms - job["changed_at"]) / 1000)
    texts = {
        State.SCHEDULED: f"It starts {_when(job['due_at'], now_ms)}.",
        State.QUEUED: f"It waits for its turn in queue {job['queue']}, since {since}.",
        State.RUNNING: f"Attempt {job['attempt']} runs on {job['worker']}.",
        State.RETRYING: f"Attempt {job['attempt']} failed{error}. The next one begins {_when(job['due_at'], now_ms)}.",
        State.WAITING: f"It is parked{' until ' + moment(job['due_at']) if job['due_at'] else ''}.",
        State.IN_DOUBT: "A step that must not run twice may have run: a person must look and decide.",
        State.SUCCEEDED: f"It succeeded {then}, in attempt {job['attempt']}.",
        State.DEAD: f"It was given up {then} after {count(_tries(facts), 'attempt')}{error}.",
        State.KILLED: f"Its time was over {then}{error}.",
        State.EXPIRED: "It had not begun when its time was over.",
        State.CANCELLED: f"It was cancelled {then}.",
        State.DISCARDED: "It was discarded.",
    }
    return texts[state]


def _error(job: Row) -> str:
    return f": {short(job['error_kind'])}: {first_line(job['error_message'])}" if job["error_kind"] else ""


def plainly(facts: JobFacts, now_ms: int) -> list[str]:
    """The same for somebody who has a customer on the phone."""
    job = facts.job
    state = State(job["state"])
    done = (
        f" {number(job['done'])} of {number(job['total'])} are done."
        if job["total"] and job["done"] is not None
        else ""
    )
    texts = {
        State.SCHEDULED: f"This is planned and begins {_when(job['due_at'], now_ms)}.",
        State.QUEUED: "This waits for its turn and begins by itself.",
        State.RUNNING: f"This is being worked on right now.{done}",
        State.RETRYING: f"This did not work yet. It is tried again by itself {_when(job['due_at'], now_ms)}.",
        State.WAITING: "This waits for something else and goes on by itself.",
        State.IN_DOUBT: "This needs somebody from operations to look at it.",
        State.SUCCEEDED: f"This is done, {ago(job['changed_at'], now_ms)}.",
        State.DEAD: f"This did not work after {count(_tries(facts), 'try', 'tries')} and is not tried again by itself.",
        State.KILLED: "This took too long and was stopped.",
        State.EXPIRED: "This could not begin in time and was given up.",
        State.CANCELLED: "This was cancelled by somebody.",
        State.DISCARDED: "This was set aside by somebody.",
    }
    lines = [texts[state]]
    if state in (State.DEAD, State.RETRYING) and job["error_message"]:
        lines.append(f"The reason: {first_line(job['error_message'])}.")
    if any(order["action"] == "pause" for order in facts.orders) and state not in _ENDED:
        lines.append("Jobs of this kind are paused at the moment.")
    return lines


def story(facts: JobFacts) -> list[dict[str, object]]:
    """What happened to a job, oldest first: its statuses, and what people did."""
    found = [_moved(move) for move in facts.moves]
    for record in facts.audit:
        asked = f"{record['action']} asked for"
        found.append(_happened(record["at"], asked, "", record["by"], record["reason"] or record["detail"]))
    return sorted(found, key=lambda step: int(str(step["at"])))


def _moved(move: Row) -> dict[str, object]:
    state = State(move["state"])
    text = WORDS[state]
    if state in (State.RUNNING, State.RETRYING):
        text = f"attempt {move['attempt']} {'failed' if state is State.RETRYING else 'runs'}"
    if move["life"] > 1:
        text += f", life {move['life']}"
    return _happened(
        move["at"], text, TONES.get(state, ""), move["worker"], _error(move).removeprefix(": ") or move["note"]
    )


def _happened(at: int, text: str, tone: str, by: str, detail: str) -> dict[str, object]:
    return {"at": at, "text": text, "tone": tone, "by": by, "detail": detail}


def possible(facts: JobFacts) -> list[str]:
    """What can be done to the job as it stands."""
    state = facts.job["state"]
    if state in (State.DEAD, State.KILLED, State.EXPIRED, State.CANCELLED, State.DISCARDED):
        return ["redrive"] if _open_letters(facts.letters, facts.job["life"]) else []
    if state in _ENDED:
        return []
    waits = state in (State.RETRYING, State.SCHEDULED, State.WAITING, State.IN_DOUBT)
    return ["retry", "cancel"] if waits else ["cancel"]


_NOT_BEGUN = frozenset({State.QUEUED, State.SCHEDULED, State.RETRYING, State.WAITING})
_ENDED = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED, State.KILLED, State.EXPIRED, State.DISCARDED})


def _open_letters(letters: Sequence[Row], life: int) -> bool:
    return any(letter["state"] != "redriven" and letter["life"] == life for letter in letters)


def _tries(facts: JobFacts) -> int:
    return max([int(facts.job["attempt"]), *(int(letter["attempts"]) for letter in facts.letters[-1:])])


def _because(reason: object) -> str:
    return f": {reason}" if reason else ""


def _when(at: int | None, now_ms: int) -> str:
    if at is None:
        return "when its turn comes"
    return f"in {span((at - now_ms) / 1000)} ({moment(at)})" if at > now_ms else "now, as soon as a worker has room"
