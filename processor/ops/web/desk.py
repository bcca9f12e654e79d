"""What the pages and the API work with, and how a route says what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Request

from processor.admin.queues import QueueRow, list_queues
from processor.app import App
from processor.clock import Clock
from processor.core.control import ControlTable
from processor.ops.actions import Actions, Why
from processor.ops.bulk.job import Bulks
from processor.ops.errors import NotAllowed
from processor.ops.filters import Filter, parse, quoted
from processor.ops.kept import Kept
from processor.ops.live import Live
from processor.ops.payload_fields import secret_fields
from processor.ops.queries import JobFacts, Queries
from processor.ops.roles import Permission, Role, User, shown_payload
from processor.ops.search import search_names, search_of
from processor.ops.store import Store
from processor.ops.web.feed import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One app as operators see it, of all queues or of some."""

    app: App
    store: Store
    queries: Queries
    actions: Actions
    clock: Clock
    live: Live
    kept: Kept
    feed: Feed
    bulks: Bulks
    queues: frozenset[str] | None = None
    """Whose jobs it shows; None: all."""
    narrowed: dict[frozenset[str], Desk] = field(default_factory=dict)
    """Those that show some queues only, of all users that are limited to some."""

    @classmethod
    def opened(cls, app: App, store: Store, clock: Clock, bulks: Bulks) -> Desk:
        """All queues of an app."""
        queries, live = Queries(store), Live(store)
        return cls(
            app=app,
            store=store,
            queries=queries,
            actions=Actions(app, queries, clock),
            clock=clock,
            live=live,
            kept=Kept(store),
            feed=Feed(live),
            bulks=bulks,
        )

    def of(self, user: User) -> Desk:
        """As this user may see it."""
        if user.queues is None:
            return self
        # Made once for all requests. There are no more than lines in the users' file.
        if user.queues not in self.narrowed:
            queries, live = Queries(self.store, user.queues), Live(self.store, user.queues)
            actions = Actions(self.app, queries, self.clock)
            self.narrowed[user.queues] = replace(
                self, queries=queries, actions=actions, live=live, queues=user.queues, narrowed={}
            )
        return self.narrowed[user.queues]

    def shows(self, queue: str) -> bool:
        """Whether this queue is among them."""
        return self.queues is None or queue in self.queues

    def queue_rows(self, orders: ControlTable | None = None) -> list[QueueRow]:
        """Its queues, asked of Kafka now. `orders`: those that hold now, if they are known already."""
        return [row for row in list_queues(self.app.broker(), self.app.namespace, orders) if self.shows(row.queue)]

    def paused_types(self, orders: ControlTable) -> list[tuple[str, str]]:
        """Paused job types and why; of some queues, those that have jobs there."""
        seen = None if self.queues is None else set(self.queries.types())
        return [(name, why) for name, why in sorted(orders.paused_types().items()) if seen is None or name in seen]

    @property
    def fields(self) -> list[str]:
        """Payload fields that can be searched by."""
        return search_names(search_of(self.app))

    def filter(self, text: str) -> Filter:
        """A filter as somebody wrote it.

        Raises:
            FilterInvalid: it cannot be read.
        """
        return parse(text, self.clock.now_ms(), self.fields)

    def words(self, text: str) -> Filter:
        """What somebody typed, as one thing to look for."""
        return parse(quoted(text), self.clock.now_ms())

    def whole_payload(self, facts: JobFacts) -> Any:
        """A job's payload, nothing masked: to compare with, never to show."""
        return shown_payload(facts.payload, User(name="", role=Role.ADMIN), search=(), secret=())

    def payload(self, facts: JobFacts, user: User) -> Any:
        """A job's payload as this user may see it."""
        type_ = str(facts.job["type"])
        search = search_of(self.app).get(type_, ())
        return shown_payload(facts.payload, user, search=search, secret=secret_fields(self.app, type_))


def desk_of(request: Request) -> Desk:
    """The desk of this application, as whoever asks may see it."""
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk.of(user_of(request))


def user_of(request: Request) -> User:
    """Who asks."""
    user = request.state.user
    assert isinstance(user, User)
    return user


def why_of(request: Request, reason: str) -> Why:
    """Who asks, and why.

    Raises:
        FilterInvalid: no reason was given.
    """
    return Why(user=user_of(request), reason=reason)


def needs(permission: Permission) -> Callable[[Request], None]:
    """A dependency: whoever asks must have this permission."""

    def check(request: Request) -> None:
        user = user_of(request)
        if not user.may(permission):
            raise NotAllowed(f"{user.name} is {user.role} and may not do that", hint="ask an operator")

    check.permission = permission  # type: ignore[attr-defined]  # read by the test that every route has one
    return check
