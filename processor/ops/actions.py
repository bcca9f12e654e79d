"""What operators do, from the dashboard or its API: by the same functions as the command line, with who and why.

Everything lands in the audit topic. A set of dead letters is chosen from the projection, and sent only if it is as
large as whoever asked was shown: nobody redrives 5,000 letters who saw 57.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from processor.admin import orders
from processor.admin.dead_letters import LetterRow
from processor.admin.orders import Operator
from processor.admin.redrive import Item, Order, Settlement, discard_letters, plan_redrive, redrive_letters
from processor.app import App
from processor.clock import Clock, SystemClock
from processor.core.control import QUEUE, TYPE
from processor.core.redrive import Address, LetterState, Redrive
from processor.errors import DeadLetterError, OrderRefused, PayloadInvalid
from processor.ops.errors import FilterInvalid, NotAllowed, SetChanged
from processor.ops.queries import LetterSet, Queries, Row
from processor.ops.roles import User
from processor.payloads import encode_untyped

_SAME = ("type", "queue", "reason", "at", "life", "attempts", "error", "fingerprint", "size")
MOST = 10_000
"""Dead letters that one request may send back or discard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Who wants it, and why."""

    user: User
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise FilterInvalid("no reason was given", hint="say why: it stays with the job and in the audit log")

    @property
    def by(self) -> str:
        """As audit records have it."""
        return f"{self.user.name}@dashboard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done, in a sentence and in numbers."""

    text: str
    done: int = 1
    skipped: int = 0
    refused: Sequence[str] = ()


class Actions:
    """What can be done to the jobs of one app."""

    def __init__(self, app: App, queries: Queries, clock: Clock | None = None) -> None:
        self._app = app
        self._queries = queries
        self._clock = clock or SystemClock()

    def retry(self, job_id: str, why: Why) -> Outcome:
        """Let a waiting job go on now.

        Raises:
            OrderRefused: it does not wait for anything that could be cut short.
            NotThere: it is of a queue that is not the user's.
            BrokerError: not confirmed; asking again is harmless.
        """
        self._check_job(job_id, why)
        how = orders.go_on(self._app.broker(), self._app.namespace, job_id, self._operator(why))
        return Outcome(text=f"job {job_id} goes on: {how}")

    def cancel(self, job_id: str, why: Why) -> Outcome:
        """Cancel a job, wherever it is.

        Raises as `retry`.
        """
        self._check_job(job_id, why)
        status = orders.cancel(self._app.broker(), self._app.namespace, job_id, self._operator(why))
        where = f"it was {status.state}" if status else "it ends as soon as its turn comes"
        return Outcome(text=f"job {job_id} is being cancelled: {where}")

    def pause(self, target: str, why: Why) -> Outcome:
        """Let `queue:NAME` or `type:NAME` rest.

        Raises:
            UnknownQueue: there is no such queue.
            NotAllowed: it is not the user's, or a job type, which other queues may have as well.
            BrokerError: not confirmed; asking again is harmless.
        """
        _check_target(target, why.user)
        orders.pause(self._app.broker(), self._app.namespace, _checked(target), self._operator(why))
        return Outcome(text=f"{_told(target)} rests: nothing of it starts")

    def resume(self, target: str, why: Why) -> Outcome:
        """Take a pause back.

        Raises:
            OrderRefused: it is not paused.
            NotAllowed: as `pause`.
            BrokerError: not confirmed; asking again is harmless.
        """
        _check_target(target, why.user)
        orders.resume(self._app.broker(), self._app.namespace, _checked(target), self._operator(why))
        return Outcome(text=f"{_told(target)} goes on")

    # -- dead letters ----------------------------------------------------------------------------------------------

    def redrive_job(self, job_id: str, why: Why, *, from_zero: bool = False, payload: object = None) -> Outcome:
        """Send the open dead letter of a job back.

        Raises:
            DeadLetterError: it has none, or it cannot be sent back.
            PayloadInvalid, PayloadTooLarge: the new payload cannot be one of its type.
            BrokerError: Kafka does not answer; asking again is harmless.
        """
        letters = [row for row in self._queries.job(job_id).letters if row["state"] != LetterState.REDRIVEN]
        if not letters:
            raise DeadLetterError(
                f"job {job_id} has no dead letter that could be sent back",
                hint="was it sent back already? Its page tells how that goes",
            )
        row = max(letters, key=lambda row: (row["life"], row["at"]))
        how = Redrive(from_zero=from_zero)
        if payload is not None:
            how = self._with_payload(str(row["type"]), payload, from_zero=from_zero)
        result = redrive_letters(self._app.broker(), self._app.namespace, [letter_row(row)], how, self._order(why))
        if result.refused:
            raise result.refused[0][1]
        return self._settled(result, f"job {job_id} is on its way again")

    def redrive(self, letters: LetterSet, expected: int, why: Why, *, from_zero: bool = False) -> Outcome:
        """Send the chosen letters back.

        Raises:
            SetChanged: they are not as many as expected.
            DeadLetterError: another operator redrives letters at the same time.
            BrokerError: Kafka does not answer; asking again is harmless.
        """
        rows = self._chosen(letters, expected)
        how = Redrive(from_zero=from_zero)
        result = redrive_letters(self._app.broker(), self._app.namespace, rows, how, self._order(why))
        return self._settled(result, f"{result.done} of {len(rows)} dead letters sent back")

    def discard(self, letters: LetterSet, expected: int, why: Why) -> Outcome:
        """Note that the chosen letters need nothing more.

        Raises as `redrive`.
        """
        rows = self._chosen(letters, expected)
        result = discard_letters(self._app.broker(), self._app.namespace, rows, self._order(why))
        return self._settled(result, f"{result.done} of {len(rows)} dead letters discarded")

    def plan(self, letters: LetterSet, *, from_zero: bool = False) -> Outcome:
        """What `redrive` would do now. Changes nothing."""
        rows = [letter_row(row) for row in self._queries.letter_set(letters, MOST)]
        order = Order(by="", clock=self._clock)
        plan = list(plan_redrive(self._app.broker(), self._app.namespace, rows, Redrive(from_zero=from_zero), order))
        refused = [str(each[1]) for each in plan if not isinstance(each, Item)]
        would = len(plan) - len(refused)
        return Outcome(text=f"{would} of {len(rows)} dead letters would be sent back", done=would, refused=refused[:50])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _chosen(self, letters: LetterSet, expected: int) -> list[LetterRow]:
        rows = [letter_row(row) for row in self._queries.letter_set(letters, MOST + 1)]
        if len(rows) > MOST:
            raise SetChanged(f"more than {MOST} dead letters at once", hint="choose fewer, or: processor dlq redrive")
        if len(rows) != expected:
            raise SetChanged(
                f"{len(rows)} dead letters are meant now, and {expected} were when you looked", hint="look again"
            )
        return rows

    def _check_job(self, job_id: str, why: Why) -> None:
        if why.user.queues is not None:
            # The projection tells the queue; the others may also act on what it does not know yet.
            self._queries.job(job_id)

    def _with_payload(self, type_: str, payload: object, *, from_zero: bool) -> Redrive:
        data = encode_untyped(payload, type_, self._app.settings().client.payload_max_bytes)
        known = self._app.job_types.get(type_)
        if known is None:
            return Redrive(from_zero=from_zero, payload=data)
        if not known.takes_payload:
            raise PayloadInvalid(f"job type {type_} takes no payload", hint="leave it out")
        known.decode_payload(data, known.version)
        return Redrive(from_zero=from_zero, payload=data, version=known.version)

    def _settled(self, result: Settlement, text: str) -> Outcome:
        refused = [f"{row.address}: {error}" for row, error in result.refused]
        return Outcome(text=text, done=result.done, skipped=result.skipped, refused=refused[:50])

    def _operator(self, why: Why) -> Operator:
        return Operator(reason=why.reason, by=why.by, clock=self._clock)

    def _order(self, why: Why) -> Order:
        return Order(by=why.by, reason=why.reason, clock=self._clock)


def letter_row(row: Row) -> LetterRow:
    """A letter as the admin functions take it; what became of it since is asked by them."""
    return LetterRow(
        address=Address(row["partition"], row["offset"]),
        state=LetterState(row["state"]),
        id=row["job_id"],
        **{
            name: row[name]
            for name in ("type", "queue", "reason", "at", "life", "attempts", "error", "fingerprint", "size")
        },
    )


def _checked(target: str) -> str:
    if not target.startswith((QUEUE, TYPE)) or len(target) > 250:
        raise OrderRefused(f"{target[:60]!r} cannot be paused", hint="queues and job types can")
    return target


def check_queue(queue: str, user: User) -> None:
    """Refuse what is of another queue.

    Raises:
        NotAllowed: this user's role does not hold for it, whether there is such a queue or not.
    """
    if not user.has(queue):
        own = ", ".join(sorted(user.queues or ()))
        raise NotAllowed(f"{user.name} may do nothing in queue {queue[:100]}", hint=f"yours: {own}; or ask an operator")


def check_all(user: User, what: str) -> None:
    """Refuse what concerns all queues.

    Args:
        user: who asks.
        what: what was asked for, as the beginning of a sentence.

    Raises:
        NotAllowed: this user's role is limited to some.
    """
    if user.queues is not None:
        own = ", ".join(sorted(user.queues))
        raise NotAllowed(
            f"{what} concerns all queues, and {user.name} is here for {own}", hint="ask an operator of all"
        )


def _check_target(target: str, user: User) -> None:
    kind, _, name = target.partition(":")
    if kind == "queue":
        check_queue(name, user)
    else:
        check_all(user, f"job type {name[:100]}")


def _told(target: str) -> str:
    kind, _, name = target.partition(":")
    return f"{'queue' if kind == 'queue' else 'job type'} {name}"
