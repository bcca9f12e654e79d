"""docs/job-states.md, generated from the transitions that the code obeys."""

from __future__ import annotations

from processor.states import TERMINAL, TRANSITIONS, State

MEANINGS: dict[State, str] = {
    State.SCHEDULED: "enqueued with a delay; walks the retry topics until it is due",
    State.QUEUED: "in its lane, not started; also what a job without any status is",
    State.RUNNING: "a worker runs an attempt; written only for jobs that outlive a flush",
    State.RETRYING: "an attempt failed, the next one waits in a retry topic",
    State.WAITING: "parked without a slot: for children, an event, an operator or a deploy",
    State.IN_DOUBT: "a `once` step started and nobody knows whether it ended; a person decides",
    State.SUCCEEDED: "the handler returned",
    State.DEAD: "no attempt left, or a terminal error; the whole job is in the dead-letter topic",
    State.CANCELLED: "somebody cancelled it",
    State.KILLED: "its kill date passed",
    State.EXPIRED: "it was not started in time",
    State.DISCARDED: "its policy or an operator dropped it",
}


def render_states_markdown() -> str:
    """The whole page."""
    lines = [
        "# Job states",
        "",
        "Generated from `processor/states.py`; a test holds the two together.",
        "",
        "| state | ends a life | means |",
        "|---|---|---|",
        *(f"| `{state}` | {'yes' if state in TERMINAL else ''} | {MEANINGS[state]} |" for state in State),
        "",
        "These are the moves within one life. The first terminal state of a life is final. A redrive, a replay or a",
        "repeated enqueue after the dedupe window starts the next life, in `queued` or `scheduled`.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {State.QUEUED}",
        f"    [*] --> {State.SCHEDULED}",
        *(f"    {old} --> {new}" for old in State for new in State if new in TRANSITIONS[old]),
        *(f"    {state} --> [*]" for state in State if state in TERMINAL),
        "```",
        "",
    ]
    return "\n".join(lines)
