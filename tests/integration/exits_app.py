"""Programs that enqueue without waiting and end, each in a way of its own.

    python -m tests.integration.exits_app BOOTSTRAP NAMESPACE HOW COUNT FILE

The id of every job whose `enqueue` has returned is appended to FILE by one `write`, so it is there however the process
ends.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Literal

_EARLY: list[Callable[[], object]] = []
# Registered before the package is imported: it runs after every hook of the package's own.
atexit.register(lambda: [hook() for hook in _EARLY])

from processor import App, Context  # noqa: E402  (see above)
from processor.wire.settings_sources import load_settings  # noqa: E402

FEW = {"topics.status_partitions": "1", "topics.retry_partitions": "1", "topics.replication": "1"}


def build(bootstrap: str, namespace: str) -> App:
    """The app of these programs."""
    app = App(namespace, settings=load_settings({**FEW, "kafka.bootstrap": bootstrap}))

    app.queue("default", partitions=1)

    @app.job("noop")
    def noop(ctx: Context) -> None: ...

    return app


def send(count: int) -> None:
    """Enqueue without waiting, and note each id at once."""
    for _ in range(count):
        handle = APP.enqueue("noop", wait=False)
        os.write(NOTES, f"{handle.id}\n".encode())


Method = Literal["fork", "forkserver", "spawn"]


def child(method: Method, count: int) -> None:
    """A process of multiprocessing; the parent has used the app before."""
    send(1)
    context = multiprocessing.get_context(method)
    process: BaseProcess = context.Process(target=send, args=(count - 1,))  # type: ignore[attr-defined]  # all have it
    process.start()
    process.join()
    sys.exit(process.exitcode)


def childs_thread(used: bool, count: int) -> None:
    """In a process of multiprocessing, a thread that goes on after its main thread."""
    process = multiprocessing.get_context("fork").Process(target=after_main, args=(count, used))
    process.start()
    process.join()
    sys.exit(process.exitcode)


def pool(count: int) -> None:
    """A worker process of concurrent.futures."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as workers:
        workers.submit(send, count).result()


def fork(count: int) -> None:
    """A child that ends by itself."""
    send(1)
    pid = os.fork()
    if pid:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    send(count - 1)


def hook(early: bool, used: bool, count: int) -> None:
    """The user's own hook: before or after those of the package, of an app that was used or not."""
    if used:
        send(1)
        count -= 1
    if early:
        _EARLY.append(partial(send, count))
    else:
        atexit.register(send, count)


def after_main(count: int, used: bool = False) -> None:
    """A thread that begins when the main thread has ended."""
    if used:
        send(1)
        count -= 1
    main = threading.main_thread() if multiprocessing.parent_process() is None else None
    ended = threading.Event()

    def go_on() -> None:
        if main is not None:
            main.join()
        else:
            ended.wait()
        send(count)

    threading.Thread(target=go_on).start()
    if main is None:
        # Threads of a child of multiprocessing are joined after its finalizers have run, whatever their priority.
        threading._register_atexit(ended.set)  # type: ignore[attr-defined]  # what concurrent.futures uses


def told(count: int) -> None:
    """The last hook before that of the package says on stdout that it is the package's turn."""
    atexit.register(os.write, 1, b"ending\n")
    send(count)


def interrupted(count: int) -> None:
    """An interrupt comes between two hooks: the last before that of the package is a timer that goes off at once."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 1e-6)
    send(count)


def daemon(count: int) -> None:
    """A daemon thread that is in the middle of it when the interpreter ends."""
    begun = threading.Event()

    def for_ever() -> None:
        while True:
            send(1)
            begun.set()

    threading.Thread(target=for_ever, daemon=True).start()
    begun.wait()
    send(count)


WAYS: dict[str, Callable[[int], object]] = {
    "plain": send,
    "multiprocessing-fork": partial(child, "fork"),
    "multiprocessing-forkserver": partial(child, "forkserver"),
    "multiprocessing-spawn": partial(child, "spawn"),
    "multiprocessing-thread": partial(childs_thread, True),
    "multiprocessing-thread-first-use": partial(childs_thread, False),
    "process-pool": pool,
    "fork": fork,
    "hook-before-ours": partial(hook, False, True),
    "hook-after-ours": partial(hook, True, True),
    "hook-after-ours-first-use": partial(hook, True, False),
    "thread-after-main": partial(after_main, used=True),
    "thread-after-main-first-use": after_main,
    "daemon-thread": daemon,
    "told": told,
    "interrupted": interrupted,
}

if __name__ in ("__main__", "__mp_main__"):
    APP = build(*sys.argv[1:3])
    NOTES = os.open(sys.argv[5], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
if __name__ == "__main__":
    WAYS[sys.argv[3]](int(sys.argv[4]))
