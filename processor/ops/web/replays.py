"""The replay wizard: say which part of the history, look at what would be sent, then send exactly that."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from processor.admin import queues_of
from processor.admin.replay import Plan, plan_replay, run_replay
from processor.admin.transactions import Order
from processor.core.replay.spec import STATES, Spec, parse_moment
from processor.errors import OrderRefused, ProcessorError
from processor.ops.actions import Outcome, Why, check_queue
from processor.ops.errors import FilterInvalid, SetChanged
from processor.ops.roles import Permission
from processor.ops.web.desk import Desk, desk_of, needs, user_of, why_of
from processor.ops.web.forms import Sent, lead_back
from processor.ops.web.pages import render
from processor.ops.wording import count, iso
from processor.states import TERMINAL

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1")
SEE = [Depends(needs(Permission.SEE))]
OPERATE = [Depends(needs(Permission.OPERATE))]
MOST = 5_000
"""Jobs that one request may send again: more than that is the command line's, which goes on where it was stopped."""
CHOICES = [state for state in STATES if state in {ended.value for ended in TERMINAL}]


class Wish(BaseModel):
    """Which part of a queue's history."""

    model_config = ConfigDict(extra="forbid")

    queue: str = Field(max_length=100)
    since: str = Field(default="24h", max_length=60)
    """Enqueued at this moment or later: ISO 8601, or a length of time ago."""
    until: str = Field(default="", max_length=60)
    """Enqueued before this moment; empty: now."""
    types: list[Annotated[str, Field(max_length=300)]] = Field(default=[], max_length=50)
    states: list[Annotated[str, Field(max_length=20)]] = Field(default=[], max_length=20)
    where: list[Annotated[str, Field(max_length=300)]] = Field(default=[], max_length=20)
    """Payload tests, `PATH=VALUE`; all must hold."""
    from_checkpoint: bool = False
    """Go on from what a job had saved, where that is still kept."""

    def spec(self, namespace: str, now_ms: int) -> Spec:
        """As a replay is asked for; its moments are fixed, so that asking later means the same jobs.

        Raises:
            FilterInvalid: a state that there is not.
            ReplayError: it makes no sense.
        """
        strange = [state for state in self.states if state not in STATES]
        if strange:
            raise FilterInvalid(f"there is no state {strange[0][:40]!r}", hint=f"there are: {', '.join(STATES)}")
        since = parse_moment(self.since, now_ms, "since")
        until = parse_moment(self.until, now_ms, "until") if self.until else now_ms
        return Spec(
            namespace=namespace,
            queues=(self.queue,),
            since=iso(since),
            until=iso(until),
            types=tuple(self.types),
            states=tuple(self.states),
            where=tuple(self.where),
            from_checkpoint=self.from_checkpoint,
        )


class WishRun(Wish):
    """The same, to be done."""

    reason: str = Field(min_length=1, max_length=500)
    expected: int = Field(ge=0)
    """How many jobs the plan had: if they are not as many now, nothing is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A plan as the page shows it."""

    plan: Plan
    left: int
    cli: str
    left_out: list[tuple[int, str]]
    gone: int


@router.get("/replay", dependencies=SEE)
def wizard(
    request: Request,
    queue: Annotated[str, Query(max_length=100)] = "",
    since: Annotated[str, Query(max_length=60)] = "24h",
    until: Annotated[str, Query(max_length=60)] = "",
    type: Annotated[str, Query(max_length=1000)] = "",
    state: Annotated[list[str], Query(max_length=20)] = [],  # noqa: B006  # FastAPI copies it
    where: Annotated[str, Query(max_length=1000)] = "",
    from_checkpoint: bool = False,
) -> Response:
    """Which part of the history, and what a replay of it would send. Nothing is sent."""
    desk = desk_of(request)
    values: dict[str, Any] = {
        "queue": queue,
        "since": since,
        "until": until,
        "type": type,
        "chosen": state,
        "where": where,
        "from_checkpoint": from_checkpoint,
        "queues": sorted(filter(desk.shows, queues_of(desk.app.broker(), desk.app.namespace))),
        "states": CHOICES,
        "most": MOST,
        "look": None,
        "problem": "",
    }
    if queue:
        try:
            wish = Wish(
                queue=queue,
                since=since or "24h",
                until=until,
                types=type.split(),
                states=state,
                where=where.split(),
                from_checkpoint=from_checkpoint,
            )
            check_queue(queue, user_of(request))
            values["look"] = _look(planned(desk, wish))
        except ProcessorError as error:
            values |= {"problem": str(error), "hint": error.hint}
    return render(request, "replay.html", title="Replay", **values)


@router.post("/do/replay", dependencies=OPERATE)
def send(request: Request, form: Sent) -> Response:
    """Send what the plan said."""
    wish = Wish(
        queue=form.one("queue"),
        since=form.one("since"),
        until=form.one("until"),
        types=form.all("type"),
        states=form.all("state"),
        where=form.all("where"),
        from_checkpoint=bool(form.one("from_checkpoint")),
    )
    return lead_back(form, replay(desk_of(request), wish, form.number("expected"), why_of(request, form.one("reason"))))


@api.post("/replays/plan", dependencies=SEE)
def plan(request: Request, wanted: Wish) -> dict[str, Any]:
    """What a replay would send, by type and state. Nothing is sent."""
    check_queue(wanted.queue, user_of(request))
    look = _look(planned(desk_of(request), wanted))
    return {"name": look.plan.name, "jobs": look.left, "counts": _counts(look.plan), "gone": look.gone}


@api.post("/replays/run", dependencies=OPERATE)
def run(request: Request, wanted: WishRun) -> dict[str, Any]:
    """Send it. Give the moments of the plan: a length of time means other jobs a minute later."""
    done = replay(desk_of(request), wanted, wanted.expected, why_of(request, wanted.reason))
    return {"text": done.text, "done": done.done, "refused": done.refused}


def planned(desk: Desk, wish: Wish) -> Plan:
    """What is meant."""
    now = desk.clock.now_ms()
    return plan_replay(desk.app.broker(), wish.spec(desk.app.namespace, now), now)


def replay(desk: Desk, wish: Wish, expected: int, why: Why) -> Outcome:
    """Send what was shown.

    Raises:
        NotAllowed: the queue is not the user's.
        SetChanged: other jobs are meant by now.
        OrderRefused: too many for one request.
        ReplayError: as `plan_replay` and `run_replay`.
    """
    check_queue(wish.queue, why.user)
    made = planned(desk, wish)
    left = len(made.left)
    if left != expected:
        raise SetChanged(f"{left} jobs are meant now, and {expected} were when you looked", hint="look again")
    if left > MOST:
        raise OrderRefused(f"{left} jobs are more than one request sends", hint=_cli(made))
    outcome = run_replay(desk.app.broker(), made, Order(by=why.by, reason=why.reason, clock=desk.clock))
    refused = [f"{chosen.name}: {error}" for chosen, error in outcome.refused]
    return Outcome(
        text=f"{count(outcome.sent, 'job')} sent again, as replay {made.name}", done=outcome.sent, refused=refused
    )


def _look(made: Plan) -> Look:
    return Look(
        plan=made,
        left=len(made.left),
        cli=_cli(made),
        left_out=[(jobs, reason.words) for reason, jobs in made.choice.left_out.items()],
        gone=sum(gone.records for gone in made.gone),
    )


def _counts(made: Plan) -> list[dict[str, Any]]:
    counts = made.choice.counts().items()
    return [{"queue": queue, "type": type_, "state": state, "jobs": jobs} for (queue, type_, state), jobs in counts]


def _cli(made: Plan) -> str:
    spec = made.frozen.spec
    words = [
        "processor",
        "replay",
        "run",
        "--queue",
        *spec.queues,
        "--since",
        str(spec.since),
        "--until",
        str(spec.until),
    ]
    for option, values in (("--type", spec.types), ("--state", spec.states), ("--where", spec.where)):
        for value in values:
            words += [option, value]
    return shlex.join([*words, *(["--from-checkpoint"] if spec.from_checkpoint else [])])
