"""`App`: the registry of queues and job types, and the composition root of producers.

    app = App("shop")
    app.queue("bulk", concurrency=50)

    @app.job("import.file", queue="bulk", payload=Import)
    def import_file(ctx: Context, p: Import) -> Tally: ...

Declaring has no effect outside the process and needs no broker: a module of jobs can be imported anywhere. Kafka is
opened at the first enqueue or question, unless the app was bound to another broker.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from processor.broker.base import Broker, TopicSpec
from processor.callables import refuse_async
from processor.client.backlog import Limit
from processor.client.handles import Handle
from processor.client.sender import Client, ClientConfig, keep_for_ever
from processor.core.topic_plan import topic_plan
from processor.declarations import (
    Declaration,
    Enqueue,
    NamedOptions,
    Queue,
    checked_executor,
    checked_options,
    declared_queue,
)
from processor.enqueueing import start
from processor.errors import DefinitionError, UnknownJobType, UnknownQueue
from processor.job import OVERTAKING_LANES, Lane
from processor.job_ids import checked_id
from processor.job_types import BareHandler, JobType, PayloadHandler, json_result, untyped_job
from processor.policies import Retry
from processor.schedules import Schedules
from processor.texts import shown
from processor.wire.durations import Duration
from processor.wire.names import NAME_BYTES, fault_of
from processor.wire.topics import QueueSpec, check_name

if TYPE_CHECKING:
    from processor.wire.settings import Settings

P = TypeVar("P")
F = TypeVar("F", bound=Callable[[], object])


class App(Schedules):
    """One application: a namespace with its queues and job types.

    Args:
        namespace: prefix of all its topics: 1 to 60 of a-z, 0-9 and '-'.
        settings: how to reach Kafka and how to behave; None: from the environment and files, at the first use.
        broker: use this instead of Kafka (tests).

    Raises:
        DefinitionError: the namespace is not allowed.
    """

    def __init__(self, namespace: str, *, settings: Settings | None = None, broker: Broker | None = None) -> None:
        self.namespace = check_name(namespace, "namespace")
        self._queues: dict[str, Queue] = {"default": Queue(name="default")}
        self._default_is_implied = True
        self.job_types: dict[str, JobType[Any, Any]] = {}
        self.start_hooks: list[Callable[[], object]] = []
        """Run once per worker process and per process-executor child."""
        super().__init__()
        self._settings = settings
        self._bound = broker
        self._kafka: Broker | None = None
        self._client: Client | None = None
        self._lock = threading.Lock()
        _apps.add(self)

    # -- declaring -------------------------------------------------------------------------------------------------

    @property
    def queues(self) -> dict[str, Queue]:
        """The queues that there are: the declared ones, and `default` if a job type uses it or nothing is declared."""
        others = len(self._queues) > 1 or bool(self.job_types)
        if self._default_is_implied and others and not any(t.queue == "default" for t in self.job_types.values()):
            return {name: queue for name, queue in self._queues.items() if name != "default"}
        return dict(self._queues)

    def queue(
        self,
        name: str,
        *,
        partitions: int = 12,
        concurrency: int = 100,
        order: Literal["block", "release"] = "block",
        lanes: Sequence[str] = ("normal",),
        max_backlog: int | None = None,
        when_full: Literal["raise", "wait"] = "raise",
    ) -> Queue:
        """Declare a queue. Job types find `default` without that; declaring it changes its settings.

        Args:
            name: 1 to 60 of a-z, 0-9 and '-'.
            partitions: how many workers can share it; can grow later, never shrink.
            concurrency: jobs that run at a time in one worker process.
            order: in queues with keys, what a failed job does to its key: hold it (`block`) or let it go (`release`).
            lanes: `high` and `low` beside `normal`; not in queues with keys. `due` is always there.
            max_backlog: how many jobs may wait in it; None: no limit. Producers keep to it, to within a tenth.
            when_full: what an enqueue beyond that does: `raise` (`QueueFull`), or `wait` until there is room.

        Raises:
            DefinitionError: the name is taken or not allowed, or an option makes no sense.
        """
        known = self._queues.get(name)
        if known is not None and (name != "default" or any(t.queue == name for t in self.job_types.values())):
            raise DefinitionError(
                f"queue {name} is declared twice", hint="declare each queue once, before the jobs that use it"
            )
        declared = declared_queue(
            name,
            partitions=partitions,
            concurrency=concurrency,
            order=order,
            lanes=cast("Sequence[Lane]", lanes),
            max_backlog=max_backlog,
            when_full=when_full,
        )
        self._queues[name] = declared
        if name == "default":
            self._default_is_implied = False
        return declared

    @overload
    def job(
        self,
        name: str,
        *,
        payload: type[P],
        queue: str = "default",
        version: int = 1,
        key: Callable[[P], str] | None = None,
        search: Sequence[str] = (),
        retry: Retry | None = None,
        attempt_timeout: Duration | None = None,
        stall_timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        kill_after: Duration | None = None,
        critical: bool | None = None,
        executor: Literal["thread", "process"] = "thread",
    ) -> PayloadHandler[P]: ...
    @overload
    def job(
        self,
        name: str,
        *,
        queue: str = "default",
        version: int = 1,
        retry: Retry | None = None,
        attempt_timeout: Duration | None = None,
        stall_timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        kill_after: Duration | None = None,
        critical: bool | None = None,
        executor: Literal["thread", "process"] = "thread",
    ) -> BareHandler: ...
    def job(  # noqa: PLR0913  (as above)
        self,
        name: str,
        *,
        payload: Any = None,
        queue: str = "default",
        version: int = 1,
        key: Callable[[Any], str] | None = None,
        search: Sequence[str] = (),
        retry: Retry | None = None,
        attempt_timeout: Duration | None = None,
        stall_timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        kill_after: Duration | None = None,
        critical: bool | None = None,
        executor: Literal["thread", "process"] = "thread",
    ) -> Any:
        """Decorator that registers a handler as a job type.

        Args:
            name: what it is called in the log, for instance `import.file`. It never changes.
            payload: the model of its payload; without one the handler gets the context alone.
            queue: a declared queue.
            version: of the payload's model, counted from 1. Older ones need an `upgrade`.
            key: ordering key of a payload: jobs of one (queue, key) run one at a time, in order.
            search: payload fields that the dashboard finds jobs by: `order_id`, or `customer.id` for an inner one.
            retry: how often and when to try again; None: `Retry()`, five attempts. `Retry(1)`: no second one.
            attempt_timeout: the longest one attempt may take; then it counts as failed.
            stall_timeout: the longest a handler may go without saving anything or a heartbeat; as above.
            queue_timeout: a job that has not begun so long after it was due is `expired`.
            kill_after: how long after its enqueue a job is given up (`killed`), whatever it does.
            critical: True: tried until its kill date, alerts when dead, its enqueue never fails in silence; False: its
                enqueue never fails and may drop the job; see `processor.client.critical`.
            executor: `process` runs each `def` handler in a child process that can be killed.

        Raises:
            DefinitionError, UnknownQueue: the name is taken, an option makes no sense, or the queue does not fit.
        """
        declared = Declaration(
            namespace=self.namespace,
            name=self._checked_name(name),
            queue=self._queue_for(name, queue, keyed=key is not None),
            payload=payload,
            version=version,
            key=key,
            search=(search,) if isinstance(search, str) else tuple(search),
            options=checked_options(name, retry, attempt_timeout, stall_timeout, queue_timeout, kill_after, critical),
            executor=checked_executor(name, executor),
            client=self.client,
        )

        def register(handler: Callable[..., Any]) -> JobType[Any, Any]:
            job_type: JobType[Any, Any] = JobType(declared, handler)
            self.job_types[self._checked_name(name)] = job_type
            return job_type

        return register

    def on_start(self, hook: F) -> F:
        """Decorator: run `hook`, a `def`, when a worker process or a child of it starts: pools, clients."""
        refuse_async(hook, f"the start hook {getattr(hook, '__qualname__', hook)}")
        self.start_hooks.append(hook)
        return hook

    def topic_plan(self) -> list[TopicSpec]:
        """Every topic this app needs, in the order of creation."""
        specs = [QueueSpec(name=q.name, partitions=q.partitions, lanes=q.lanes) for q in self.queues.values()]
        return topic_plan(self.namespace, specs, shape=self.settings().topics.shape())

    # -- producing -------------------------------------------------------------------------------------------------

    def enqueue(
        self,
        name: str,
        payload: object = None,
        *,
        queue: str | None = None,
        version: int | None = None,
        key: str | None = None,
        **how: Unpack[NamedOptions],
    ) -> Handle[Any]:
        """Start a job by the name of its type: this process need not import the handler.

        One that is registered here checks the payload, and knows its queue, version and key. For others `payload` is
        sent as JSON, and the worker checks it. `options` are those of `JobType.enqueue`.

        Raises:
            UnknownJobType: not registered here, and no queue given.
            DefinitionError: registered here, and with another queue, version or key.
            PayloadInvalid, PayloadTooLarge, EnqueueUnconfirmed: as `JobType.enqueue`.
        """
        wanted = Enqueue(**how)
        known = self.job_types.get(name)
        if known is not None:
            return known.start_checked(payload, wanted, queue=queue, version=version, key=key)
        if queue is None:
            raise UnknownJobType(
                f"job type {name} is not registered in this process",
                hint="import the module that declares it, or say which queue its workers serve: queue=...",
            )
        client = self.client()
        version = 1 if version is None else version
        job = untyped_job(
            client, name, payload, queue=check_name(queue, "queue"), version=version, key=key, job_id=wanted.id
        )
        return start(client, job, Lane.NORMAL, wanted, json_result)

    def handle(self, job_id: str) -> Handle[Any]:
        """The handle of a job by its id (else NameInvalid): also later, and elsewhere. Its result is plain JSON."""
        chosen, client = checked_id(job_id), self.client
        return Handle(chosen, lambda: client().tail(), json_result, cancel=lambda *told: client().cancel(*told))

    def close(self) -> list[str]:
        """Send what is left and close the connections; ids of the jobs that could not be confirmed (none: all is well).

        Using the app again opens them anew.
        """
        with self._lock:
            client, kafka = self._client, self._kafka
            self._client = self._kafka = None
        left = [] if client is None else client.close()
        if kafka is not None:
            kafka.close()
        return left

    # -- composing -------------------------------------------------------------------------------------------------

    def bind(self, broker: Broker, client: Client | None = None) -> None:
        """Use this broker from now on, and this client if given, instead of Kafka. What was open is closed."""
        self.close()
        with self._lock:
            self._bound = broker
            self._client = client

    def unbind(self) -> None:
        """Go back to Kafka. What was open is closed."""
        self.close()
        with self._lock:
            self._bound = None

    def settings(self) -> Settings:
        """The settings of this process, loaded at the first use."""
        if self._settings is None:
            from processor.wire.settings_sources import load_settings  # only now: reads files and the environment

            self._settings = load_settings()
        return self._settings

    def broker(self) -> Broker:
        """The broker this app speaks to, opened at the first use."""
        if self._bound is not None:
            return self._bound
        with self._lock:
            if self._kafka is None:
                self._kafka = _open_kafka(self.settings())
            return self._kafka

    def client(self) -> Client:
        """The producers' client, opened at the first use."""
        with self._lock:
            if self._client is None:
                chosen = self.settings().client
                config = ClientConfig(
                    namespace=self.namespace,
                    enqueue_timeout=chosen.enqueue_timeout,
                    close_timeout=chosen.close_timeout,
                    payload_max_bytes=chosen.payload_max_bytes,
                    critical_timeout=chosen.critical_timeout,
                    spool_dir=chosen.spool_dir,
                    tracing=chosen.tracing,
                    dedupe_window=self.settings().topics.dedupe_window,
                )
                self._client = Client(config, self.broker, limit_of=self._limit_of)
                # What a process that died has left is sent by the next one, whatever that does.
                _ = chosen.spool_dir and self._client.reliability
            return self._client

    def _limit_of(self, queue: str) -> Limit | None:
        known = self._queues.get(queue)
        return None if known is None else known.limit

    def forget_after_fork(self) -> None:
        """In the child of a fork: the parent's connections are the parent's. The client has already let go of them."""
        keep_for_ever(self._kafka)
        self._lock = threading.Lock()
        self._kafka = None

    def _checked_name(self, name: str) -> str:
        fault = fault_of(name, NAME_BYTES)
        if fault is not None:
            raise DefinitionError(
                f"job type name {shown(name, 100)} is not allowed: {fault}", hint="use something like import.file"
            )
        if name in self.job_types:
            raise DefinitionError(f"job type {name} is declared twice", hint="give each handler a name of its own")
        return name

    def _queue_for(self, name: str, queue: str, *, keyed: bool) -> Queue:
        known = self._queues.get(queue)
        if known is None:
            raise UnknownQueue(
                f"job type {name}: queue {queue} is not declared", hint=f'declare it first: app.queue("{queue}")'
            )
        if keyed and OVERTAKING_LANES & set(known.lanes):
            raise DefinitionError(
                f"job type {name} has a key, and queue {queue} has a high or low lane",
                hint="a lane would overtake the order of a key: use a queue without such lanes for keyed jobs",
            )
        return known


def _open_kafka(settings: Settings) -> Broker:
    # Only now: a module that declares jobs is imported without librdkafka.
    from processor.broker.kafka import KafkaBroker, from_settings

    return KafkaBroker(from_settings(settings))


_apps: weakref.WeakSet[App] = weakref.WeakSet()


def apps() -> list[App]:
    """Every app of this process."""
    return list(_apps)


def _after_fork_in_child() -> None:
    for app in list(_apps):
        app.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
