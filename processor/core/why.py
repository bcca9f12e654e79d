"""Why a job is not running (or that it is): facts in, sentences out, the most decisive first. Pure.

Whoever asks has one question and wants one answer, with what to do about it. So the causes are a closed list, each with
a sentence and an advice in one table, and `reasons` says which of them hold, in the order in which somebody would have
to deal with them: what ends the job, what it waits for by itself, what operators ordered, who serves it, who is before
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from processor.core.control import PAUSED_TYPE
from processor.states import TERMINAL, State
from processor.wire.durations import moment, span


class Cause(StrEnum):
    """What may keep a job from running."""

    UNKNOWN = "unknown"
    ENDED = "ended"
    CANCELLING = "cancelling"
    KILL_DATE = "kill_date"
    RUNNING = "running"
    WORKER_GONE = "worker_gone"
    IN_DOUBT = "in_doubt"
    PARKED = "parked"
    DEPLOY = "deploy"
    GOES_ON = "goes_on"
    NOT_DUE = "not_due"
    RETRY = "retry"
    COMES_HOME = "comes_home"
    QUEUE_PAUSED = "queue_paused"
    TYPE_PAUSED = "type_paused"
    NO_WORKER = "no_worker"
    NO_OWNER = "no_owner"
    HELD = "held"
    KEY = "key"
    BEHIND = "behind"
    NEXT = "next"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What is known of a job and of what it depends on. Moments in milliseconds since the epoch."""

    id: str
    now: int
    state: State | None
    """`queued` for one that waits in a lane, also after a retry; None: nothing is known of it."""
    type: str = ""
    queue: str = ""
    since: int = 0
    """When it came to this state."""
    worker: str = ""
    """Who said so last; empty if nobody has."""
    note: str = ""
    """Why its state is what it is."""
    error: str = ""
    """Of its last attempt."""
    attempt: int = 0
    """Attempts made, in `running` the one that runs."""
    attempts: int | None = None
    """That its policy allows; None: that depends on the error, or is not known."""
    due_at: int | None = None
    until: int | None = None
    """Of a parked job: when its patience ends; None: only a person lets it go on."""
    kill_at: int | None = None
    cancelled: str = ""
    """Why it is to be cancelled, and by whom; empty: it is not."""
    queue_pause: str = ""
    """Why its queue rests, and by whom; empty: it does not."""
    type_pause: str = ""
    """The same of its job type."""
    workers: Sequence[str] = ()
    """Slots that serve its queue."""
    number: int | None = None
    """Its partition number, if it is known."""
    owner: str = ""
    """The slot that owns that number; empty: none does."""
    held: bool = False
    """Its number has an owner that has not claimed it, or has let go of it."""
    ahead: int = 0
    """Jobs before it in its lane that are not done; an upper bound."""
    key: str | None = None
    """Its ordering key."""
    key_holder: str = ""
    """The job whose turn it is in that key; empty: it is its own."""
    key_holder_state: str = ""

    def allowing(self, attempts: int | None) -> JobFacts:
        """The same, by somebody who knows how many attempts its policy allows."""
        return replace(self, attempts=attempts)


class Reason(NamedTuple):
    """One answer."""

    cause: Cause
    text: str
    """A sentence."""
    advice: str
    """What to do; empty: nothing."""


_SHOW = "processor job show {id}"
WORDS: dict[Cause, tuple[str, str]] = {
    Cause.UNKNOWN: (
        "nothing is known of job {id}",
        "is the namespace right? A status is kept for topics.status_retention (7 days unless changed)",
    ),
    Cause.ENDED: ("it has ended: {state}, {since}{note}", ""),
    Cause.CANCELLING: (
        "it is being cancelled: {cancelled}",
        "wait: a running one hears of it, and is ended by force else",
    ),
    Cause.KILL_DATE: (
        "its kill date came {kill_at}: it is killed when its turn comes",
        "nothing brings it back but a redrive, afterwards: processor dlq redrive {id}",
    ),
    Cause.RUNNING: ("it is running, attempt {attempt}, on {worker}; it said so last {since}{note}", _SHOW),
    Cause.WORKER_GONE: (
        "it was running on {worker}, last heard of {since}, and no worker serves queue {queue} now",
        "start one: processor worker MODULE:APP -q {queue}; the job goes on from what it saved",
    ),
    Cause.IN_DOUBT: (
        "it is in doubt{note}",
        "find out whether that has happened; processor job retry {id} does it again, processor job cancel {id} ends it",
    ),
    Cause.PARKED: (
        "it was parked{note}",
        "processor job retry {id} lets it go on, processor job cancel {id} ends it",
    ),
    Cause.DEPLOY: (
        "it waits until {until} for workers with newer code{note}",
        "deploy the code that knows this job type and version; after that moment the job is a dead letter",
    ),
    Cause.GOES_ON: (
        "job type {type} is no longer paused: it goes on within a second",
        "if it does not, processor queue list tells who serves queue {queue}",
    ),
    Cause.NOT_DUE: ("it is not due before {due_at}", "processor job retry {id} begins it now"),
    Cause.RETRY: (
        "attempt {attempt} failed{error}; the next one is due {due_at}",
        "processor job retry {id} begins it now",
    ),
    Cause.COMES_HOME: (
        "it was due {due_at}, and is on its way home from the retry topics",
        "that takes seconds; if it takes longer, the workers' forwarders stand still: processor queue lag {queue}",
    ),
    Cause.QUEUE_PAUSED: ("queue {queue} is paused: {queue_pause}", "processor queue resume {queue}"),
    Cause.TYPE_PAUSED: ("job type {type} is paused: {type_pause}", "processor queue resume --type {type}"),
    Cause.NO_WORKER: ("no worker serves queue {queue}", "start one: processor worker MODULE:APP -q {queue}"),
    Cause.NO_OWNER: (
        "no worker owns its partition {number} of queue {queue} now",
        "workers that come or go take seconds to share the partitions; if it lasts: processor doctor",
    ),
    Cause.HELD: (
        "its partition {number} of queue {queue} is held by {owner} because of a fault, or is just being taken over",
        "look for number.held in the log of {owner}; it is tried again by itself",
    ),
    Cause.KEY: (
        "it waits for its ordering key {key}: job {key_holder} is before it ({key_holder_state})",
        "processor job why {key_holder}",
    ),
    Cause.BEHIND: (
        "it is behind {ahead} in its lane, partition {number}",
        "more slots (--concurrency) or more workers start it sooner: processor queue lag {queue}",
    ),
    Cause.NEXT: ("it is next in its lane: it starts when a slot of {owner} is free", _SHOW),
}
"""Each cause as a sentence, and what to do about it."""
_AFTER_END: dict[State, str] = {
    State.SUCCEEDED: "processor job result {id}",
    State.DEAD: "processor dlq show {id} tells why, processor dlq redrive {id} sends it back",
    State.KILLED: "processor dlq redrive {id} gives it as long again",
    State.CANCELLED: "enqueue it anew if it is wanted after all",
    State.EXPIRED: "enqueue it anew if it is still wanted; queue_timeout= says how long it may wait",
    State.DISCARDED: "its retry policy says so: " + _SHOW,
}


def reasons(facts: JobFacts) -> list[Reason]:
    """Why a job is not running, or that it is: the first is the answer, the others hold as well."""
    if facts.state is None:
        return [_reason(Cause.UNKNOWN, facts)]
    if facts.state in TERMINAL:
        return [_reason(Cause.ENDED, facts)]
    first = [cause for cause, holds in _FIRST.items() if holds(facts)]
    causes = [*first, *_BY_STATE[facts.state](facts)]
    if facts.state is not State.RUNNING:
        causes += [cause for cause, holds in _ORDERS.items() if holds(facts) and cause not in causes]
    if facts.state is State.QUEUED and facts.workers:
        causes.append(_served(facts))
    return [_reason(cause, facts) for cause in causes]


_FIRST: dict[Cause, Callable[[JobFacts], bool]] = {
    Cause.CANCELLING: lambda facts: bool(facts.cancelled),
    Cause.KILL_DATE: lambda facts: facts.kill_at is not None and facts.now >= facts.kill_at,
}
_ORDERS: dict[Cause, Callable[[JobFacts], bool]] = {
    Cause.QUEUE_PAUSED: lambda facts: bool(facts.queue_pause),
    Cause.TYPE_PAUSED: lambda facts: bool(facts.type_pause),
    Cause.NO_WORKER: lambda facts: not facts.workers,
}


def _served(facts: JobFacts) -> Cause:
    """What keeps a job in its lane that may start."""
    if facts.number is not None and not facts.owner:
        return Cause.NO_OWNER
    if facts.held:
        return Cause.HELD
    if facts.key_holder:
        return Cause.KEY
    return Cause.BEHIND if facts.ahead else Cause.NEXT


def _waiting(facts: JobFacts) -> list[Cause]:
    if facts.note.startswith(PAUSED_TYPE):
        return [Cause.TYPE_PAUSED if facts.type_pause else Cause.GOES_ON]
    return [Cause.PARKED if facts.until is None else Cause.DEPLOY]


def _due(waits: Cause) -> Callable[[JobFacts], list[Cause]]:
    def causes(facts: JobFacts) -> list[Cause]:
        if facts.due_at is not None and facts.due_at > facts.now:
            return [waits]
        # Nobody brings it home where nobody works.
        return [Cause.COMES_HOME] if facts.workers else []

    return causes


_BY_STATE: dict[State, Callable[[JobFacts], list[Cause]]] = {
    State.QUEUED: lambda _: [],
    State.SCHEDULED: _due(Cause.NOT_DUE),
    State.RETRYING: _due(Cause.RETRY),
    State.RUNNING: lambda facts: [Cause.RUNNING if facts.workers else Cause.WORKER_GONE],
    State.WAITING: _waiting,
    State.IN_DOUBT: lambda _: [Cause.IN_DOUBT],
}


def _reason(cause: Cause, facts: JobFacts) -> Reason:
    text, advice = WORDS[cause]
    if cause is Cause.ENDED and facts.state is not None:
        advice = _AFTER_END[facts.state]
    said = _said(facts)
    return Reason(cause, text.format_map(said), advice.format_map(said))


def _said(facts: JobFacts) -> dict[str, str]:
    """The facts as words of a sentence."""
    most = "" if facts.attempts is None else f" of {facts.attempts}"
    detail = facts.note or facts.error
    return {
        **{name: str(getattr(facts, name)) for name in ("id", "state", "type", "queue", "number", "key")},
        **{name: getattr(facts, name) for name in ("cancelled", "queue_pause", "type_pause", "key_holder")},
        "key_holder_state": facts.key_holder_state or "not begun",
        "worker": facts.worker or "a worker",
        "owner": facts.owner or "its worker",
        "attempt": f"{facts.attempt}{most}",
        "note": f": {detail}" if detail else "",
        "error": f" ({facts.error})" if facts.error else "",
        "ahead": "1 other" if facts.ahead == 1 else f"up to {facts.ahead} others",
        "since": _when(facts.since, facts.now),
        "due_at": _when(facts.due_at, facts.now),
        "until": _when(facts.until, facts.now),
        "kill_at": _when(facts.kill_at, facts.now),
    }


def _when(at: int | None, now: int) -> str:
    if at is None:
        return "at once"
    far = span(abs(at - now) / 1000)
    return f"{moment(at)} ({f'{far} ago' if at <= now else f'in {far}'})"
