"""A runtime that runs exactly one actor at a time, in an order drawn from a seed, on a manual clock.

Each actor is a thread, but it only runs while it holds the baton. It gives the baton away when it waits. When nobody
can run, the clock jumps to the earliest deadline. The same seed and the same program give the same run: simulation and
the Testbed stand on this.

Actors belong to groups, one for each simulated process: `kill` is its SIGKILL, `freeze` its SIGSTOP. The thread that
made the runtime is an actor as well, in the group `main`; what goes wrong anywhere is told to it.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from processor.clock import ManualClock
from processor.errors import ProcessEnded
from processor.runtime import Actor, Signal

MAIN: Final = "main"
_TICK: Final = 0.000_001


class ActorKilled(ProcessEnded):
    """Ends an actor of a killed group at its next wait: the simulation's SIGKILL."""


class Deadlock(RuntimeError):
    """Every actor waits without a deadline: nothing can ever happen again."""


class _SteppingActor:
    def __init__(self, runtime: SteppingRuntime, name: str, group: str) -> None:
        self.name = name
        self.group = group
        self.starts_in = group
        """The group of the actors that this one starts."""
        self.turn = threading.Lock()
        self.turn.acquire()
        self.alive = True
        self.killed = False
        self.ready: Callable[[], bool] | None = None
        """While waiting: whether it may go on before its deadline."""
        self.deadline = math.inf
        self._runtime = runtime

    def join(self, timeout: float | None = None) -> bool:
        return self._runtime.wait_for(lambda: not self.alive, timeout)


class _SteppingSignal:
    __slots__ = ("_flag", "_runtime")

    def __init__(self, runtime: SteppingRuntime) -> None:
        self._runtime = runtime
        self._flag = False

    def set(self) -> None:
        self._flag = True

    def _is_set(self) -> bool:
        return self._flag

    def wait(self, timeout: float | None) -> bool:
        self._runtime.wait_for(self._is_set, timeout)
        was, self._flag = self._flag, False
        return was


class SteppingRuntime:
    """Runs one actor at a time, in an order drawn from a seed, on a manual clock."""

    def __init__(self, *, seed: int = 0, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.random = random.Random(seed)  # noqa: S311  (decides who runs, not what is secret)
        self.steps = 0
        """How often the baton was passed."""
        self.trace: list[str] | None = None
        """Names of the actors in the order in which they ran, if somebody put a list here."""
        self.failures: list[tuple[str, BaseException]] = []
        """Actors that ended with an error, and were not killed."""
        self._choices = random.Random(seed)  # noqa: S311  (as above)
        """Apart from `random`: how often the program draws must not depend on how often the baton is passed."""
        self._main = _SteppingActor(self, MAIN, MAIN)
        self._actors: list[_SteppingActor] = [self._main]
        self._current = self._main
        self._frozen: set[str] = set()
        self._deadlock: str | None = None

    # --- processor.runtime.Runtime -------------------------------------------------------------------------

    def stopwatch(self) -> float:
        """The clock once more: what a program decides by the time it took must come out the same again."""
        return self.clock.monotonic()

    def start(self, name: str, run: Callable[[], None]) -> Actor:
        actor = _SteppingActor(self, name, self._current.starts_in)
        actor.ready = _always
        self._actors.append(actor)
        threading.Thread(target=self._live, args=(actor, run), name=name, daemon=True).start()
        return actor

    def signal(self) -> Signal:
        return _SteppingSignal(self)

    # --- processes ------------------------------------------------------------------------------------------------

    @contextmanager
    def group(self, name: str) -> Iterator[None]:
        """Actors that the current one starts inside belong to this group, as do those started by them."""
        actor = self._current
        before, actor.starts_in = actor.starts_in, name
        try:
            yield
        finally:
            actor.starts_in = before

    @property
    def current_group(self) -> str:
        """The group of the actor that holds the baton."""
        return self._current.group

    def kill(self, group: str) -> None:
        """Every actor of the group ends at its next wait; called by one of them, it ends at once.

        Raises:
            ActorKilled: the caller belongs to the group.
        """
        self._frozen.discard(group)
        for actor in self._actors:
            if actor.group == group:
                actor.killed = True
        if self._current.killed:
            raise ActorKilled(group)

    def freeze(self, group: str) -> None:
        """No actor of the group gets the baton any more until it is thawed; the caller itself from its next wait on."""
        self._frozen.add(group)

    def thaw(self, group: str) -> None:
        """Let a frozen group go on."""
        self._frozen.discard(group)

    def close(self) -> None:
        """Kill everything but the caller and wait until it is gone."""
        self._frozen.clear()
        for actor in self._actors:
            actor.killed = actor is not self._current
        self.wait_for(lambda: len(self._actors) == 1, None)

    # --- waiting --------------------------------------------------------------------------------------------------

    def wait_for(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Give the baton away until `ready()` holds or `timeout` virtual seconds passed; whether it holds.

        Raises:
            ActorKilled: the actor was killed meanwhile.
            Deadlock: nobody can ever run again; only the main actor hears of it.
        """
        me = self._current
        if me.killed:
            raise ActorKilled(me.name)
        if timeout is not None and timeout <= 0:
            return ready()
        me.ready = ready
        me.deadline = math.inf if timeout is None else self.clock.monotonic() + timeout
        if self._pass_baton(me):
            me.turn.acquire()
        if me.killed:
            raise ActorKilled(me.name)
        if me is self._main and self._deadlock is not None:
            text, self._deadlock = self._deadlock, None
            raise Deadlock(text)
        return ready()

    def pass_time(self, seconds: float) -> None:
        """Spend virtual time: others run meanwhile."""
        self.wait_for(_never, seconds)

    def breathe(self) -> None:
        """Let others run before going on."""
        self.wait_for(_always, _TICK)

    # --- the baton ------------------------------------------------------------------------------------------------

    def _live(self, actor: _SteppingActor, run: Callable[[], None]) -> None:
        actor.turn.acquire()
        try:
            if not actor.killed:
                run()
        except BaseException as error:  # noqa: BLE001  (an actor's end must pass the baton on, whatever ended it)
            if not actor.killed:
                self.failures.append((actor.name, error))
        finally:
            actor.alive = False
            self._actors.remove(actor)
            self._pass_baton(None)

    def _pass_baton(self, me: _SteppingActor | None) -> bool:
        """Choose who runs next; False if it is `me`."""
        chosen = self._choose()
        self.steps += 1
        if self.trace is not None:
            self.trace.append(chosen.name)
        self._current = chosen
        chosen.ready = None
        if chosen is me:
            return False
        chosen.turn.release()
        return True

    def _choose(self) -> _SteppingActor:
        while True:
            now = self.clock.monotonic()
            actors = [a for a in self._actors if a.group not in self._frozen] if self._frozen else self._actors
            runnable = [a for a in actors if a.killed or a.deadline <= now or (a.ready is not None and a.ready())]
            if runnable:
                return runnable[0] if len(runnable) == 1 else self._choices.choice(runnable)
            earliest = min([a.deadline for a in actors], default=math.inf)
            if earliest == math.inf:
                self._deadlock = "everybody waits for ever: " + ", ".join(sorted(a.name for a in self._actors))
                return self._main
            self.clock.advance(max(earliest - now, _TICK))


def _always() -> bool:
    return True


def _never() -> bool:
    return False
