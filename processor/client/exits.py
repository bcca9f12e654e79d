"""The ends of a process. What was enqueued without waiting is sent at its end, or named on stderr.

A process can end in several ways, and each has a hook of its own:

- the interpreter ends: threads that are no daemons are joined, then `atexit` runs its hooks, the last registered first;
- a child that `multiprocessing` forked ends by `os._exit`, without `atexit`: it runs its own finalizers, and joins the
  threads after them;
- `os._exit` and signals without a handler run nothing. What was not sent then is lost, unnamed: nobody can catch that.

After the hook there is still code that enqueues: hooks of users that were registered earlier than ours, threads of a
forked child, daemon threads. Nothing flushes behind them any more, so from the hook on (`begun`) every enqueue waits
for its confirmation. A client looks *after* it has handed its record over: had the hook not begun by then, its flush,
which follows, takes the record along.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

from processor.texts import count

_LAST = -1_000_000
"""Priority of our finalizer in a child of multiprocessing: users' finalizers may enqueue, so they come first."""


class Ticket(Protocol):
    """A record that was handed over."""

    id: str
    done: threading.Event
    missed: Callable[[], None] | None
    """Who is told that it did not arrive; None: it is named at the end."""
    told: bool
    """Its caller was told already that it is not confirmed."""


class Sending(Protocol):
    """A client, as an exit sees it."""

    @property
    def namespace(self) -> str: ...
    def pending(self) -> Sequence[Ticket]:
        """What is not confirmed yet."""
        ...

    def close(self) -> list[str]:
        """Send what is left; ids of what could not be."""
        ...

    def forget_after_fork(self) -> None:
        """In the child of a fork: leave the parent's connections alone."""
        ...


_begun = threading.Event()
_clients: weakref.WeakSet[Sending] = weakref.WeakSet()
_over = False
"""Whether every client was closed, or what it had left was named."""
_guarded = 0
"""Id of the process of multiprocessing whose finalizer is registered."""

begun = _begun.is_set
"""Whether this process has come to its end: nothing will be flushed behind an enqueue any more."""


def watch(client: Sending) -> None:
    """Flush this client when the process ends, unless it is gone by then."""
    _clients.add(client)


def watched() -> list[Sending]:
    """The clients of this process."""
    return list(_clients)


def guard() -> None:
    """See that the end of this very process is noticed; asked before a producer is opened."""
    global _guarded
    pid = os.getpid()
    # Without an import of it this is no child of multiprocessing.
    if _guarded == pid or "multiprocessing.process" not in sys.modules:
        return
    from multiprocessing import parent_process, util

    if parent_process() is None:
        return
    _guarded = pid
    if util.is_exiting():
        _begun.set()  # a thread that uses us for the first time after the finalizers have run
    else:
        util.Finalize(None, _close_all, exitpriority=_LAST)


def _close_all() -> None:
    """1. From now on an enqueue waits for its confirmation. 2. Flush. 3. Name what is left and nobody was told of."""
    global _over
    if _over:
        return
    _begun.set()
    interrupt: KeyboardInterrupt | None = None
    for client in watched():
        pending = client.pending()
        left: Sequence[str] = ()
        try:
            if interrupt is None:
                left = client.close()
        except KeyboardInterrupt as caught:
            interrupt = caught
        if interrupt is not None:
            left = [ticket.id for ticket in pending if ticket.missed is None and not ticket.done.is_set()]
        told = {ticket.id for ticket in pending if ticket.told} - {t.id for t in pending if not t.told}
        _name(client.namespace, [job_id for job_id in dict.fromkeys(left) if job_id not in told])
    _over = True
    if interrupt is not None:
        sys.stderr.write("processor: interrupted\n")


def _name(namespace: str, left: Sequence[str]) -> None:
    if left:
        jobs = f"{count(len(left), 'enqueued job')} of {namespace} {'was' if len(left) == 1 else 'were'} not confirmed"
        sys.stderr.write(f"processor: {jobs}: {', '.join(left)}\n")


# At import, as the hooks of a fork: the sooner it is registered, the more hooks of others run before it, and they can
# still enqueue without waiting. Without a client it does nothing. Twice, because an interrupt can come between two
# hooks: Python raises it at the first instruction of the next one, before any `try` in it, and that hook is over.
atexit.register(_close_all)
atexit.register(_close_all)
