"""A registered handler with its name, payload and policy: what `@app.job` makes of a function.

Two views of one object: producers call `enqueue`, workers read `handler`, `decode_payload` and `encode_result`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Generic, Literal, Protocol, TypeVar, Unpack, overload

from processor.broker.base import OutRecord
from processor.callables import kind_of, refuse_async, refuse_awaitable
from processor.client.handles import Enqueued, Handle
from processor.client.sender import Client
from processor.context import AsyncContext, Context
from processor.context.values import ResultCodec, encode_result, return_type
from processor.declarations import Declaration, Enqueue, EnqueueOptions, checked_lane, under_key
from processor.enqueueing import handle_of, prepared, published, start
from processor.errors import DefinitionError, NameInvalid, PayloadInvalid, ResultType
from processor.job import Job, Lane
from processor.job_ids import checked_id, checked_key, checked_type, uuid7
from processor.payloads import PayloadCodec, Upgrade, encode_untyped, is_version
from processor.policies import After
from processor.texts import shown
from processor.tracing import inside
from processor.wire.codec import encode
from processor.wire.headers import routing_headers
from processor.wire.topics import jobs_topic

P = TypeVar("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class JobType(Generic[P, R]):
    """A job type: call `enqueue` to start a job; calling the object itself runs the handler here and now, for tests."""

    def __init__(self, declared: Declaration, handler: Callable[..., Any]) -> None:
        self.name = declared.name
        self.queue = declared.queue.name
        self.version = declared.version
        self.options = declared.options
        self.executor = declared.executor
        """`thread` or `process`, for `def` handlers."""
        self.search = declared.search
        self.payload = declared.payload
        self.handler = handler
        self.kind: str = kind_of(handler, f"the handler of job type {declared.name}")
        self._declared = declared
        self._payloads: PayloadCodec[P] = PayloadCodec(declared.name, declared.payload, declared.version)
        self.takes_payload = self._payloads.takes_payload
        self._results: ResultCodec | None = None
        if declared.key is not None:
            refuse_async(declared.key, f"key= of job type {declared.name}")
        self.__doc__ = handler.__doc__
        self.__name__ = getattr(handler, "__name__", declared.name)
        self.__module__ = getattr(handler, "__module__", __name__)
        self.__qualname__ = getattr(handler, "__qualname__", declared.name)
        if self.kind == "async" and self.executor == "process":
            raise DefinitionError(
                f"job type {self.name}: an async handler cannot have executor='process'",
                hint="make the handler a def, or leave the executor out",
            )

    def __repr__(self) -> str:
        return f"JobType({self.name!r}, version={self.version})"

    def __call__(self, *args: Any) -> Any:
        """Run the handler, here and now."""
        return self.handler(*args)

    # -- the producers' view ---------------------------------------------------------------------------------------

    @overload
    def enqueue(self: JobType[None, R], payload: None = None, **how: Unpack[EnqueueOptions]) -> Handle[R]: ...
    @overload
    def enqueue(self, payload: P, **how: Unpack[EnqueueOptions]) -> Handle[R]: ...
    def enqueue(self, payload: Any = None, **how: Any) -> Handle[R]:
        """Start a job; returns when all in-sync replicas have it.

        Args:
            payload: what the handler gets.
            how: `id`: the job's id, to repeat an enqueue safely; `lane`: `high` or `low` if the queue has them;
                `wait=False`: return at once, what is left is flushed by `app.close()`; `delay` ("5m") or `at` (an aware
                datetime): not before then; `kill_after` ("24h" from now) or `kill_at` (an aware datetime): no attempt
                starts or goes on after that; `idempotency_key`: whoever enqueues the same key again gets the same job,
                and it runs once; `until="finished"`: the key is free again when that job has ended;
                `when_full`: at the limit of the queue, `raise` or `wait`, if not as the queue was declared.
                `session`: store it in this transaction of your database, to be sent after its commit.

        Raises:
            PayloadInvalid, PayloadTooLarge: the payload cannot be a job.
            NameInvalid: the id, the ordering key or the idempotency key cannot be one.
            EnqueueUnconfirmed: not confirmed in time; repeating with the error's id, or the same key, is safe.
            QueueFull: the queue has reached its limit.
            DefinitionError: the queue has no such lane, or the time or the options make no sense.
        """
        return self._start(payload, Enqueue(**how))

    @overload
    async def aenqueue(self: JobType[None, R], payload: None = None, **how: Unpack[EnqueueOptions]) -> Handle[R]: ...
    @overload
    async def aenqueue(self, payload: P, **how: Unpack[EnqueueOptions]) -> Handle[R]: ...
    async def aenqueue(self, payload: Any = None, **how: Any) -> Handle[R]:
        """`enqueue` for the event loop, which goes on while the job is being confirmed."""
        told = Enqueue(**how)
        if told.session is None:
            return await asyncio.to_thread(self._start, payload, told)
        from processor.outbox.table import store_async  # needs an extra

        lane, client = self._lane(told), self._declared.client()
        critical = self.options.critical if told.critical is None else told.critical
        with published(client, self.name, self.queue) as trace:
            job = self._job(payload, told.id, client)._replace(trace=trace)
            job = prepared(client, job, told, critical)
            await store_async(told.session, client.namespace, job, lane, told.keeps_out)
        return handle_of(client, job, None, self.decode_result, self.attempts)

    def enqueue_many(
        self,
        payloads: Iterable[P],
        *,
        ids: Callable[[P], str] | None = None,
        lane: str = "normal",
        idempotency_keys: Callable[[P], str] | None = None,
        until: Literal["window", "finished"] = "window",
        when_full: Literal["raise", "wait"] | None = None,
    ) -> Enqueued[R]:
        """Start a job for each payload; returns when all are confirmed. Gives their ids and handles, in order.

        Payloads are taken from the iterable as the log takes them, so it may be longer than memory; 16 bytes of each
        job stay, its id.

        Args:
            payloads: what the handlers get.
            ids: an id for each payload, so that a stream that failed half-way can be repeated safely.
            lane: as `enqueue`.
            idempotency_keys: an idempotency key for each payload, with `until` as `enqueue` has it.
            when_full: at the limit of the queue, `raise` or `wait`; None: as the queue was declared.

        Raises:
            PayloadInvalid, PayloadTooLarge, NameInvalid: for the first that cannot be a job; those before it are there.
            EnqueueUnconfirmed: `ids` of the error names those that may not be there; those before them are.
            QueueFull: the queue has reached its limit; the jobs before are there.
        """
        chosen = self._lane(Enqueue(lane=lane))
        client = self._declared.client()
        made: Enqueued[R] = Enqueued(self.handle)
        repeats = ids is not None or idempotency_keys is not None

        def jobs() -> Iterator[tuple[Job, Lane, bool, str | None]]:
            for payload in payloads:
                job_id = None if ids is None else checked_id(_told(ids, payload, "ids="))
                key = None if idempotency_keys is None else _told(idempotency_keys, payload, "idempotency_keys=")
                how = Enqueue(id=job_id, idempotency_key=key, until=until)
                job = self._job(payload, job_id, client)
                job = under_key(job if trace is None else job._replace(trace=trace), how, client.config.dedupe_window)
                made.add(job.id, chosen=repeats)
                yield job, chosen, repeats, how.keeps_out

        with published(client, self.name, self.queue) as trace:
            self._send_all(client, jobs(), when_full)
        return made

    def _send_all(
        self, client: Client, jobs: Iterator[tuple[Job, Lane, bool, str | None]], when_full: str | None
    ) -> None:
        critical = self.options.critical
        if critical is None:
            client.send_many(jobs, when_full)
            return
        send = client.reliability.send_critical if critical else client.reliability.offer
        for job, lane, derived, keeps_out in jobs:
            send(job, lane, derived=derived, until=keeps_out)

    @property
    def not_sent(self) -> int:
        """Jobs of this type that this process dropped since the app was opened, because of `critical=False`."""
        return self._declared.client().reliability.not_sent[self.name]

    def upgrade(self, version: int) -> Callable[[F], F]:
        """Decorator of a function that reads payloads of an older `version`: from its JSON to the model of today, or
        to the JSON of the next version. Old ones lie in the log, among dead letters and in replays.

        Raises:
            DefinitionError: that version is not an older one, or has an upgrade already.
        """

        def register(function: F) -> F:
            refuse_async(function, f"the upgrade of job type {self.name} from version {version}")
            upgrade: Upgrade = function
            self._payloads.add_upgrade(version, upgrade)
            return function

        return register

    def handle(self, job_id: str) -> Handle[R]:
        """The handle of a job of this type, by its id.

        Raises:
            NameInvalid: it cannot be the id of a job.
        """
        client = self._declared.client
        return Handle(
            checked_id(job_id),
            lambda: client().tail(),
            self.decode_result,
            cancel=lambda *told: client().cancel(*told),
            attempts=self.attempts,
            job_type=self.name,
        )

    @property
    def attempts(self) -> int | None:
        """Attempts that its policy allows, the first included; None: that depends on the error."""
        retry = self.options.retry
        if retry is None:
            return 1
        if self.options.critical:
            return None
        special = any(rule.times is not None or isinstance(rule.decision, After) for rule in retry.rules)
        return None if special else retry.times

    def start_checked(
        self, value: object, how: Enqueue, *, queue: str | None, version: int | None, key: str | None
    ) -> Handle[R]:
        """`enqueue` of data that the payload's model is to check first (enqueueing by name).

        Raises:
            DefinitionError: what is told beside is not what was declared; nothing of it is dropped in silence.
        """
        if queue not in (None, self.queue):
            raise DefinitionError(f"job type {self.name} belongs to queue {self.queue}, not {queue}")
        if key is not None or version not in (None, self.version):
            raise DefinitionError(
                f"job type {self.name} is declared here: its key and version ({self.version}) are known",
                hint="leave key= and version= out; the key is taken from the payload",
            )
        return self._start(self._payloads.checked(value), how)

    def _start(self, payload: P, how: Enqueue) -> Handle[R]:
        lane = self._lane(how)
        client = self._declared.client()
        job = self._job(payload, how.id, client)
        return start(client, job, lane, how, self.decode_result, self.attempts, self.options.critical)

    def _lane(self, how: Enqueue) -> Lane:
        lane = checked_lane(how, self.queue)
        if lane is not Lane.NORMAL and lane not in self._declared.queue.lanes:
            raise DefinitionError(
                f"queue {self.queue} has no lane {how.lane!r} to enqueue into",
                hint=f'declare it: app.queue("{self.queue}", lanes=("normal", "{how.lane}"))',
            )
        return lane

    def _job(self, payload: P, job_id: str | None, client: Client) -> Job:
        now_ms = client.clock.now_ms()
        return self._made(payload, uuid7(now_ms) if job_id is None else job_id, now_ms, client.config.payload_max_bytes)

    def _made(self, payload: P, job_id: str, now_ms: int, max_bytes: int) -> Job:
        job_id = checked_id(job_id)
        data = self._payloads.encode(payload, max_bytes)
        key = None
        if self._declared.key is not None:
            key = self._declared.key(payload)
            refuse_awaitable(key, f"key= of job type {self.name}", error=NameInvalid, hint="make it a def")
            key = checked_key(key)
        kill_after = self.options.kill_after
        kill_at = None if kill_after is None else now_ms + round(kill_after * 1000)
        return Job(job_id, self.name, self.version, self.queue, data, now_ms, key, kill_at=kill_at)

    def check(self) -> None:
        """Find out now, and not after a handler ran, what can never work; a worker asks this when it starts.

        Raises:
            DefinitionError: the payload's model names a class that is not there, or what the handler is annotated to
                return cannot be resolved, or not be read back from JSON.
        """
        self._payloads.check()
        try:
            self._result_codec()
        except ResultType as error:
            raise DefinitionError(f"job type {self.name}: {error}", hint=error.hint) from error

    # -- the workers' view -----------------------------------------------------------------------------------------

    def decode_payload(self, data: bytes, version: int) -> P:
        """The payload of a record, upgraded to the current version; None if the job type takes none.

        Raises:
            PayloadInvalid: the model or an upgrade refuses it.
            NewerRecord: written by newer code.
        """
        return self._payloads.decode(data, version)

    def encode_result(self, value: object, max_bytes: int = 256 * 1024) -> bytes | None:
        """JSON of what the handler returned; None if it returned None.

        Raises:
            ResultType: it does not survive the way to JSON and back.
            ResultTooLarge: it is longer than `max_bytes`.
        """
        return encode_result(self._result_codec(), value, max_bytes)

    def decode_result(self, data: bytes | None) -> R:
        """The result of a succeeded job, by the handler's return annotation."""
        result: R = self._result_codec().decode("null" if data is None else data.decode())
        return result

    def child_record(self, payload: P, *, child_id: str, parent: Job, now_ms: int, max_bytes: int) -> OutRecord:
        """The record of a job that a job starts (`ctx.spawn`).

        Raises:
            PayloadInvalid, PayloadTooLarge: the payload cannot be a job.
        """
        job = self._made(payload, child_id, now_ms, max_bytes)
        kills = [moment for moment in (job.kill_at, parent.kill_at) if moment is not None]
        spans = inside()
        trace = None if spans is None else spans.current()
        job = job._replace(parent=parent.id, parent_life=parent.life, kill_at=min(kills, default=None), trace=trace)
        topic = jobs_topic(self._declared.namespace, self.queue, Lane.NORMAL)
        key = (job.id if job.key is None else job.key).encode()
        return OutRecord(topic, key, encode(job), routing_headers(job, derived=True))

    def _result_codec(self) -> ResultCodec:
        # Not at import: the return annotation may name something defined further down in the module.
        if self._results is None:
            self._results = ResultCodec(return_type(self.handler), f"{self.__qualname__}()")
        return self._results


def _told(function: Callable[[P], str], payload: P, what: str) -> str:
    told = function(payload)
    refuse_awaitable(told, f"{what} of enqueue_many", error=NameInvalid, hint="make it a def")
    return told


def untyped_job(
    client: Client, name: str, payload: object, *, queue: str, version: int, key: str | None, job_id: str | None
) -> Job:
    """A job of a type that is not declared here.

    Raises:
        NameInvalid, PayloadInvalid, PayloadTooLarge: it cannot be one.
    """
    name = checked_type(name)
    if not is_version(version):
        raise PayloadInvalid(f"job type {name}: version {shown(version, 60)}", hint="versions count from 1")
    data = b"" if payload is None else encode_untyped(payload, name, client.config.payload_max_bytes)
    now_ms = client.clock.now_ms()
    chosen = uuid7(now_ms) if job_id is None else checked_id(job_id)
    return Job(chosen, name, version, queue, data, now_ms, None if key is None else checked_key(key))


def json_result(data: bytes | None) -> Any:
    """The result of a job whose type is not known here: plain JSON."""
    return None if data is None else json.loads(data)


class PayloadHandler(Protocol[P]):
    """What `@app.job(..., payload=Model)` decorates."""

    @overload
    def __call__(self, handler: Callable[[AsyncContext, P], Coroutine[Any, Any, R]], /) -> JobType[P, R]: ...
    @overload
    def __call__(self, handler: Callable[[Context, P], R], /) -> JobType[P, R]: ...


class BareHandler(Protocol):
    """What `@app.job(...)` without a payload decorates."""

    @overload
    def __call__(self, handler: Callable[[AsyncContext], Coroutine[Any, Any, R]], /) -> JobType[None, R]: ...
    @overload
    def __call__(self, handler: Callable[[Context], R], /) -> JobType[None, R]: ...
