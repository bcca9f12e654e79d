"""The owning thread: it polls, decides and freezes. Handlers, Kafka transactions and restores run elsewhere.

One turn of the loop:

1. Take what executors, flusher, restorer and rereader have posted (`Outcomes`, `Outbox`, `Ownership`).
2. Hand out attempts to the pools (`Dispatch`): the next of a key waits for it, so it comes before what costs time.
3. Serve the group: the callbacks of `Ownership` run here.
4. Take records from the lanes, as far as there is room, and admit them (`Intake`).
5. Freeze a batch and give it to the flusher, if it is time.
6. Look after what goes by the clock (`Timers`).
7. Nothing happened: wait a millisecond for something to be posted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, cast

from processor import events
from processor.broker.base import Batch, Broker, Reader
from processor.core.ordering import Spilled
from processor.engine.attempt import Attempt, Sync
from processor.engine.batch import FlushBatch, FlushResult, Part
from processor.engine.config import WorkerConfig
from processor.engine.control_topic import ControlNews, ControlWatch
from processor.engine.dispatch import Dispatch
from processor.engine.flush import Flusher
from processor.engine.groups import Groups
from processor.engine.guard import Guard
from processor.engine.hold_back import HoldBack
from processor.engine.intake import Intake
from processor.engine.operators import Operators
from processor.engine.orphans import OrphanWatch
from processor.engine.outbox import Outbox
from processor.engine.outcomes import Outcomes
from processor.engine.ownership import Ownership
from processor.engine.pace import Pace
from processor.engine.pool import Pool
from processor.engine.precedents import Precedent, Precedents, answered
from processor.engine.queue_partition import PartitionPhase, QueuePartition
from processor.engine.refetch import Refetch, Refetcher
from processor.engine.registry import JobTypes
from processor.engine.restore import Restored, Restorer
from processor.engine.roles import Roles
from processor.engine.state import EngineState
from processor.engine.timers import Timers
from processor.engine.upkeep import LaneEnds, Members, Upkeep
from processor.engine.watchdog import Watchdog
from processor.errors import BrokerError, BrokerUnavailable, MemberFenced, RetriableBrokerError
from processor.job import Lane
from processor.runtime import Runtime

if TYPE_CHECKING:
    MakePool = Callable[[EngineState, str, int, str], Pool]

log = events.logger(__name__)

READ_ORDER = (Lane.HIGH, Lane.DUE, Lane.NORMAL, Lane.LOW)
HAND_OVER_FLUSH = 5.0
"""Seconds a revoke waits for its last flush, after the jobs have yielded."""


class Worker:
    """One worker process' engine. `run` is the loop; `stop` may be called from a signal handler or another thread."""

    def __init__(
        self, runtime: Runtime, broker: Broker, config: WorkerConfig, registry: JobTypes, make_pool: MakePool
    ) -> None:
        self.config = config
        self.state = engine = EngineState(runtime, broker, config, registry)
        post = engine.inbox.post
        lanes = {lane for queue in config.queues for lane in queue.lanes}
        # A reader for each kind of lane: behind a backlog in a shared fetch queue a due record waits its turn
        # (measured: over 13 s against 0.1 s).
        self.readers: dict[Lane, Reader] = {lane: broker.reader() for lane in READ_ORDER if lane in lanes}
        self.restorer = Restorer(runtime, broker, config, post)
        self.refetcher = Refetcher(runtime, broker, post)
        self.precedents = Precedents(runtime, broker, post)
        self.flusher: Flusher[Part] = Flusher(runtime, broker, config.transactional_id(), post)
        self.dispatch = Dispatch(
            engine,
            lambda queue, slots, kind: make_pool(engine, queue, slots, kind),
            self._refetch,
            self.precedents.ask,
        )
        self.outcomes = Outcomes(engine, self.dispatch)
        self.dispatch.settle_by(self.outcomes)
        self.intake = Intake(engine, self.dispatch)
        self.outbox = Outbox(engine, self.dispatch, self.outcomes)
        self.ownership = Ownership(engine, self.dispatch, self.restorer, self.readers, self._hand_over)
        engine.guard = self.guard = Guard(engine, self.dispatch, self.outcomes, self.ownership.hold_unwritten)
        self.hold_back = HoldBack(engine, self.ownership)
        self.operators = Operators(engine, self.dispatch, self.outcomes, self.ownership)
        self.timers = Timers(engine, self.dispatch, self.outcomes, self.ownership)
        self.upkeep = Upkeep(runtime, broker, config, post)
        self.control = ControlWatch(runtime, broker, config, post)
        self.roles = Roles(runtime, broker, config, engine.counters)
        self.orphans = OrphanWatch(engine, self.upkeep)
        self.watchdog = Watchdog(engine, self.dispatch, self.ownership, self.upkeep)
        self.groups = Groups(broker, config, self.ownership.listener)
        self._flushing = False
        self._in_flight: FlushBatch[Part] | None = None
        self._pace = Pace(config.membership_proof)
        self._flush_began = 0.0
        self._busy_at = 0.0
        self._stopping = False
        self._rejoin: set[str] = set()
        """Queues whose groups are to be left and joined again."""
        self._leave = True
        self.last_turn = 0.0
        """Monotonic seconds of the last turn of the loop: the liveness probe looks at it."""
        self.prepared = False
        self.recycled = False
        """It stopped to get rid of threads that could not be ended."""

    # --- from outside --------------------------------------------------------------------------------------------

    def recycle(self) -> None:
        """End the process in good order, to be started anew: threads that nobody can end are ended with it."""
        if not self._stopping:
            log.error("worker.recycles", extra={"stuck": self.timers.stuck})
            self.recycled = True
            self.stop(leave=False)

    def stop(self, *, leave: bool = True) -> None:
        """Ask the loop to end in good order. `leave` False: the same slot restarts at once, without a rebalance."""
        self._stopping = True
        self._leave = leave
        self.state.inbox.wake()

    @property
    def ready(self) -> bool:
        """Whether every number this worker owns is restored, and the group has spoken at least once."""
        standings = {number.phase for number in list(self.state.numbers.values())}
        heard = all(fence.callbacks for fence in self.state.fences.values())
        return heard and not standings & {PartitionPhase.RESTORING, PartitionPhase.CLAIMING}

    def run(self) -> None:
        """Serve until stopped.

        Raises:
            MemberFenced: another process runs with this instance id.
            BrokerRefused: wrong password or missing permission.
        """
        self.flusher.prepare()
        subscribed = False
        try:
            while not self._stopping:
                # No job starts before what operators want is known.
                if self.prepared and self.operators.informed and not subscribed:
                    self.groups.subscribe_all()
                    subscribed = True
                self._turn(subscribed=subscribed)
            self._shut_down(subscribed=subscribed)
        except BaseException as error:
            log.error("worker.ended", extra={"error": repr(error)})
            self._drop_everything()
            raise

    # --- one turn ------------------------------------------------------------------------------------------------

    def _turn(self, *, subscribed: bool) -> None:
        engine = self.state
        now = self.last_turn = engine.clock.monotonic()
        busy = self._take_posts()
        if self._rejoin and not self._stopping:
            # Not among the posts: behind this one there may be the result of the flush under way.
            self._join_again(self._rejoin.pop())
        busy += self.dispatch.hand_out()
        if subscribed:
            self._poll_groups()
        busy += self._fetch()
        self._flush_if_due(now, idle=not busy)
        self.timers.turn(now)
        self.operators.burials.turn(now)
        if self.timers.too_many_abandoned:
            self.recycle()
        self.watchdog.turn(now)
        self.orphans.turn(now)
        if not busy:
            config = self.config
            quiet = not engine.inflight_records and now - self._busy_at > config.idle_after
            engine.inbox.wait(config.idle_wait_max if quiet else config.idle_wait)
        else:
            self._busy_at = now

    def _poll_groups(self) -> None:
        try:
            self.groups.poll()
        except MemberFenced:
            raise
        except BrokerError as error:
            if error.code == "broker_refused":
                raise
            log.warning("group.poll_failed", extra={"error": str(error)})

    def _fetch(self) -> int:
        engine = self.state
        if not engine.lanes:
            return 0
        self.hold_back.turn()
        if not engine.has_room:
            return 0
        fresh, due = self.dispatch.lacks(), self.dispatch.lacks(due=True)
        got = 0
        for lane, reader in self.readers.items():
            limit = min(self.config.fetch_records, due if lane is Lane.DUE else fresh)
            if limit <= 0:
                continue
            room = self.config.inflight_max_records - engine.inflight_records
            if room <= 0:
                break
            try:
                batch = reader.fetch(min(limit, room), 0.0)
            except (RetriableBrokerError, BrokerUnavailable) as error:
                log.warning("lanes.fetch_failed", extra={"error": str(error)})
                continue
            if batch.records:
                self.intake.take(batch.records)
                got += len(batch.records)
            if batch.ends or batch.faults:
                self._take_events(batch)
        return got

    def _take_events(self, batch: Batch) -> None:
        lanes = self.state.lanes
        for partition, offset in batch.ends:
            lane = lanes.get(partition)
            if lane is not None and lane.window.read_mark < offset:
                lane.window.reached(offset)
                lane.changed = True
        for fault in batch.faults:
            lane = lanes.get(fault.partition)
            if lane is not None:
                self.ownership.hold(lane.number, f"{fault.partition}: {fault.error}")

    def _take_posts(self) -> int:
        posts = self.state.inbox.take()
        for kind, run in groupby(posts, type):
            if kind is Attempt:
                self.outcomes.all_reported(cast("Iterable[Attempt]", run))
            else:
                for post in run:
                    self._other_post(post)
        return len(posts)

    def _other_post(self, post: object) -> None:
        engine = self.state
        if isinstance(post, Sync):
            self.outcomes.synced(post)
        elif isinstance(post, FlushResult):
            self._flushed(post)
        elif isinstance(post, Restored):
            self.guard.number_act(post.number, "it was restored", lambda: self.ownership.restored(post))
        elif isinstance(post, Refetch):
            self.intake.refetched(post, self.ownership.hold)
        elif isinstance(post, Precedent):
            act = partial(answered, engine, self.dispatch, self.outcomes, self.ownership.hold, post)
            self.guard.number_act(post.attempt.number, "a repeat was looked for", act)
        elif isinstance(post, ControlNews):
            self.operators.heard(post)
        elif isinstance(post, Members):
            self._rejoin |= self.orphans.counted(post)
        elif isinstance(post, LaneEnds):
            self.watchdog.seen(post)

    # --- flushing ------------------------------------------------------------------------------------------------

    def _flush_if_due(self, now: float, *, idle: bool) -> None:
        engine = self.state
        if self.flusher.is_stuck(now):
            self._replace_flusher()
        outbox = engine.outbox_load
        oldest = outbox.oldest_at
        if self._flushing or oldest is None or not self._pace.allows(now):
            return
        linger = self.config.linger
        asked = outbox.urgent or outbox.group_commit.due(now)
        due = asked or now - oldest >= linger or not engine.has_room
        # At low load a lone record need not wait for company.
        if due or (idle and now - self._flush_began >= linger):
            self._flush(now)

    def _flush(self, now: float) -> None:
        batch = self.outbox.freeze()
        if batch is None:
            return
        self._flushing, self._in_flight = True, batch
        self._flush_began = now
        self.flusher.submit(batch)

    def _flushed(self, result: FlushResult[Part]) -> None:
        if not result.batch.parts:
            self.prepared = result.error is None
            if result.error is not None:
                raise result.error
            return
        if result.batch is not self._in_flight:
            return  # of a flusher that was given up as stuck, and came back after all
        self._flushing, self._in_flight = False, None
        self._pace.ended(result.error, self.state.clock.monotonic())
        if result.error is None:
            for number in self.outbox.committed(result):
                if number.phase is PartitionPhase.CLAIMING and not number.released:
                    self.guard.number_act(number, "it was claimed", partial(self.ownership.claimed, number))
            return
        self.outbox.failed(result)

    def _replace_flusher(self) -> None:
        self.flusher, result = self.flusher.replaced()
        if result.batch.parts:
            self._flushed(result)
        else:
            self.flusher.prepare()

    def _join_again(self, queue: str) -> None:
        """Leave and join: the group rebalances, and what had no owner finds one."""
        log.error("group.orphans", extra={"slot": self.config.slot, "queue": queue})
        self.state.counters.events["rejoined"] += 1
        self.groups.leave(queue)
        self._serve_until(lambda: not any(name == queue for name, _ in self.state.numbers), 5.0, poll=True)
        self.groups.subscribe(queue)

    # --- giving up -----------------------------------------------------------------------------------------------

    def _hand_over(self, numbers: Sequence[QueuePartition]) -> None:
        """Wait until the jobs of these numbers have yielded (bounded), then until their last flush is committed."""
        self._serve_until(lambda: not any(number.running for number in numbers), self.config.revoke_wait)
        self._serve_until(lambda: self._is_flushed(numbers), HAND_OVER_FLUSH, flush=True)

    def _is_flushed(self, numbers: Sequence[QueuePartition]) -> bool:
        flushable = [n for n in numbers if n.phase is PartitionPhase.YIELDING]
        return not self._flushing and not any(n.touched or n.outbox for n in flushable)

    def _serve_until(
        self, done: Callable[[], bool], seconds: float, *, flush: bool = False, poll: bool = False
    ) -> bool:
        """Keep serving posts (and the group, if `poll`) until `done()` or the time is over; whether it is done."""
        engine = self.state
        deadline = engine.clock.monotonic() + seconds
        while not done():
            now = self.last_turn = engine.clock.monotonic()
            if now >= deadline:
                return False
            if poll:
                self._poll_groups()
            if not self._take_posts():
                engine.inbox.wait(0.002)
            if flush and not self._flushing and self._pace.allows(now):
                self._flush(now)
            else:
                self._flush_if_due(now, idle=False)
            for ready_queue in self.dispatch.ready_queues.values():
                ready_queue.pool.nudge()
        return True

    def _shut_down(self, *, subscribed: bool) -> None:
        """Stop: yield, wait (bounded by the grace), flush as released, leave the group, close."""
        self.ownership.leaving = True
        numbers = list(self.state.numbers.values())
        self.ownership.yield_numbers(numbers)
        finished = self._serve_until(lambda: not self.dispatch.awaited, self.config.grace, poll=subscribed)
        if not finished:
            log.warning("worker.grace_over", extra={"running": len(self.dispatch.awaited)})
        self.timers.save_running()
        self._serve_until(lambda: self._is_flushed(numbers), HAND_OVER_FLUSH, flush=True, poll=subscribed)
        if subscribed and self._leave:
            # With static membership a plain close would leave partitions idle until the session times out
            # (measured: 10 s against 0.9 s).
            self.groups.leave_all()
            self._serve_until(lambda: not self.state.numbers, 2.0, poll=True)
        self._close()

    def _drop_everything(self) -> None:
        for number in list(self.state.numbers.values()):
            self.state.drop_number(number)
        self._close()

    def _close(self) -> None:
        for ready_queue in self.dispatch.ready_queues.values():
            ready_queue.pool.stop(0.5)
        self.flusher.stop(2.0)
        self.roles.stop(3.0)
        self.control.stop(1.0)
        self.restorer.stop(1.0)
        self.refetcher.stop(1.0)
        self.precedents.stop(1.0)
        self.upkeep.stop(1.0)
        for reader in self.readers.values():
            reader.close()
        self.groups.close()

    # --- wiring --------------------------------------------------------------------------------------------------

    def _refetch(self, number: QueuePartition, key: str, places: Sequence[Spilled]) -> None:
        self.refetcher.ask(Refetch(number, number.assignment, key, places))
