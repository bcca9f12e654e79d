"""The chapters in their order: set the scene, work, kill a worker, freeze a worker, reckon.

Whatever happens, also on Ctrl-C: the workers end, the broker ends, the folder goes unless it is to be kept.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from processor.admin import apply_topics
from processor.broker.dev import DEFAULT_VERSION, DevBroker, DevBrokerConfig
from processor.broker.dev.artifacts import cache_dir, fetch, locked
from processor.demo.corpus import Words
from processor.demo.count import PlainCount
from processor.demo.failing import tell
from processor.demo.fleet import Fleet, wait_until_frozen
from processor.demo.jobs import ONCE, WALK, WALK_ID, WORDS, Demo, Walk, make_app, write_module
from processor.demo.odometer import Run, runs
from processor.demo.report import Reckoning
from processor.demo.screen import Screen
from processor.demo.watch import Watch
from processor.demo.work import look_through
from processor.errors import ProcessorError
from processor.logs import configure
from processor.wire.records import StatusRecord
from processor.wire.settings_sources import load_settings

WORDS_SECONDS = 20.0
"""Processor time that counting may take, as measured here at the start."""
WALK_SECONDS = 27.0
"""Processor time of the walk's digests, measured while the broker starts, so rather less; the loop itself comes on top,
some seconds."""
KILL_AT = 0.5
"""How far all work is when a worker is killed."""
FREEZE_AT = 0.65
"""How far the walk is, at least, when a worker is frozen."""
_PATIENCE = 90.0
"""Seconds without any progress after which the demo gives up waiting."""
_CHUNK = 500
PLAIN = "plain count"


class DemoStuck(ProcessorError):
    """Something that should happen within seconds did not happen."""

    code = "demo_stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a demonstration is told."""

    bootstrap: str | None = None
    """A cluster to use; None: one of its own."""
    keep: bool = False
    """Leave the folder with the log, the ledger and the workers' output."""
    words_seconds: float = WORDS_SECONDS
    walk_seconds: float = WALK_SECONDS


def demonstrate(options: DemoOptions, screen: Screen) -> Reckoning:
    """Tell the whole story; the reckoning.

    Raises:
        ProcessorError: the broker or the workers did not start, or nothing moved any more.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(screen.close)
        folder = stack.enter_context(_folder(options.keep, screen))
        configure(stream=stack.enter_context((folder / "demo.log").open("w")))
        if options.bootstrap is None:
            fetch(locked(DEFAULT_VERSION), cache_dir(), lambda done, total, name: _fetching(screen, done, total))
        began = time.monotonic()
        story = Story(folder, options, screen, stack)
        story.prepare()
        story.work()
        story.kill()
        story.freeze()
        story.fail()
        story.finish()
        reckoning = story.reckon(began)
        screen.close()
        reckoning.print()
        return reckoning


class Story:
    """One demonstration. Each public method is a chapter."""

    def __init__(self, folder: Path, options: DemoOptions, screen: Screen, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._options = options
        self._screen = screen
        self._stack = stack
        self._resume_seconds: float | None = None
        self._takeover_seconds: float | None = None
        self._walked = 0

    # -- chapters --------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """A broker, the input, the topics, two workers."""
        screen = self._screen
        screen.chapter("The scene")
        own = self._options.bootstrap is None
        screen.say(
            "A real Kafka starts on this machine, in a folder of its own, and the input is looked through."
            if own
            else f"The Kafka at {self._options.bootstrap} is used, and the input is looked through."
        )
        with ThreadPoolExecutor(1) as aside:
            looking = aside.submit(look_through, self._options.words_seconds, self._options.walk_seconds)
            # In this thread: the broker ends with the thread that started it.
            bootstrap = self._options.bootstrap or self._own_broker()
            self._work = work = looking.result()
        screen.event(f"Kafka answers at {bootstrap}")
        files, jobs = len(work.corpus.paths), len(work.pieces)
        screen.say(
            f"Input: the {files:,} Python files of {work.corpus.root}, {work.lines:,} lines. One job counts the "
            f"identifiers of each file, and one more those of each of {jobs - files:,} top-level definitions: as many "
            f"as this machine has time for. One long job walks over all lines "
            f"and digests each, {work.rounds} hashes a line: half a minute of work that nobody wants to do twice."
        )
        self._demo = self._open_app(bootstrap)
        self._start_workers()

    def work(self) -> None:
        """Publish the jobs; the plain count begins beside them."""
        screen, work = self._screen, self._work
        screen.chapter("The work")
        screen.say(
            "All jobs are published, each confirmed by the broker. Meanwhile this process counts everything once more, "
            "plainly and one after the other: what it finds, the jobs must have found in the end."
        )
        screen.bars({WORDS: len(work.pieces), WALK: work.lines, PLAIN: PlainCount.total(work.lines)})
        self._plain = PlainCount(work.corpus, work.pieces, work.rounds)
        self._stack.callback(self._plain.stop)
        self._watch = self._stack.enter_context(Watch(self._demo.app.broker(), self._demo.app.namespace))
        self._demo.walk.enqueue(Walk(rounds=work.rounds), id=WALK_ID)
        waiting = iter(work.pieces)
        while chunk := list(islice(waiting, _CHUNK)):
            self._demo.words.enqueue_many(chunk, ids=lambda piece: piece.id)
            self._look_around(0.0)
        screen.event(f"{len(work.pieces) + 1:,} jobs published")
        self._plain.start()

    def kill(self) -> None:
        """SIGKILL to the worker that runs the walk, half-way through everything."""
        screen = self._screen
        self._until(lambda: self._all_done() >= KILL_AT and self._walking() is not None, "half of the work")
        screen.chapter("kill -9")
        status, run = self._walk_status(), self._last_run()
        screen.say(
            f"Half of all work is done. Worker {status.worker} runs the walk and is somewhere near line "
            f"{status.done or 0:,.0f}. It is killed now, without a word: kill -9 {run.process}."
        )
        at = time.time_ns()
        self._fleet.kill(run.process)
        after = self._next_run(at)
        self._resume_seconds = (after.first_ns - at) / 1e9
        screen.event(
            f"the walk goes on after line {after.after:,}, {self._resume_seconds:.1f} s after the kill, "
            f"in process {after.process}"
        )

    def freeze(self) -> None:
        """SIGSTOP to the worker that runs the walk now; SIGCONT when another one has taken over."""
        screen = self._screen
        target = max(FREEZE_AT, self._walk_done() + 0.1)
        self._until(lambda: self._walk_done() >= target and self._walking() is not None, "the walk to go on")
        screen.chapter("A worker freezes")
        status, run = self._walk_status(), self._last_run()
        screen.say(
            f"A worse fault than death: worker {status.worker} (process {run.process}) runs the walk now, and is "
            "stopped in the middle of a line (SIGSTOP). Its connections stay open, so nobody hears of it. When it has "
            "been silent for 10 s, its session is over, and another worker goes on."
        )
        with self._demo.ledger.held():
            at = time.time_ns()
            self._fleet.freeze(run.process)
            wait_until_frozen()
        after = self._next_run(at)
        self._takeover_seconds = (after.first_ns - at) / 1e9
        seconds = f"{self._takeover_seconds:.1f} s after the freeze"
        screen.event(f"the walk goes on after line {after.after:,}, {seconds}, in process {after.process}")
        self._fleet.wake(run.process)
        screen.event(
            f"process {run.process} wakes up (SIGCONT) and believes that it still runs the walk. "
            "Nothing it says about it is accepted."
        )

    def fail(self) -> None:
        """A flaky service, a job that no attempt can do, its dead letter, and a redrive after the fix."""
        tell(self._demo.failing, self._demo.app, self._screen, self._watch, self._until)

    def finish(self) -> None:
        """Everything ends, in good order."""
        screen = self._screen
        everything = len(self._work.pieces) + 1
        self._until(lambda: self._ended() >= everything, "the rest of the work", give_up=True)
        if self._ended() >= everything:
            screen.event("the last job has ended")
        self._until(lambda: self._plain.complete, "the plain count", give_up=True)
        screen.event("the plain count is complete")
        # The frozen worker may have gone on for a moment: what it redid is known when it has ended.
        self._fleet.stop()
        self._look_around(0.5)
        screen.close()

    def reckon(self, began: float) -> Reckoning:
        """Compare what was promised with what came of it."""
        self._screen.chapter("The reckoning")
        work, watch, demo = self._work, self._watch, self._demo
        results, failed = watch.finished(), watch.failed()
        pieces = {piece.id for piece in work.pieces}
        published = pieces | {WALK_ID} | demo.failing.ids
        for status in failed[:5]:
            self._screen.say(f"failed: {status.id}: {status.error.message if status.error else status.state}")
        ledger = demo.ledger.count(ONCE)
        counted = {key: demo.words.decode_result(value) for key, value in results.items() if key in pieces}
        walked = demo.walk.decode_result(results[WALK_ID]) if WALK_ID in results else None
        handled = sum(run.lines for run in runs(demo.runs_folder))
        whole = [counted.get(path) for path in work.corpus.paths]
        completed_files = sum(1 for before, after in zip(work.starts, work.starts[1:], strict=False) if after > before)
        return Reckoning(
            published=len(published),
            finished=len(results),
            lost=len(published - results.keys() - {status.id for status in failed}),
            failed=len(failed),
            doubled=ledger.doubled,
            effects=ledger.effects,
            effects_expected=len(work.pieces) + completed_files + 1 + demo.failing.effects,
            effects_asked_again=ledger.applications - ledger.effects,
            once_runs=ledger.once_runs,
            retried=demo.failing.retried(watch),
            retried_expected=demo.failing.retried_expected,
            rows_imported_twice=demo.failing.rows_imported_twice,
            totals_equal=self._plain.complete and counted == self._plain.words and walked == self._plain.totals,
            resume_seconds=_rounded(self._resume_seconds),
            takeover_seconds=_rounded(self._takeover_seconds),
            items=work.lines,
            items_redone=max(0, handled - work.lines),
            identifiers=sum(count.identifiers for count in whole if isinstance(count, Words)),
            not_python=sum(isinstance(count, str) for count in whole),
            seconds=round(time.monotonic() - began, 1),
        )

    # -- the scene -------------------------------------------------------------------------------------------------

    def _own_broker(self) -> str:
        # Both workers come at once, so there is nobody to wait for before the first hand-out. On a busy machine
        # a broker is slow, not dead: with a session of 1 s its own controller fenced it (measured at a load of 19).
        properties = {"group.initial.rebalance.delay.ms": "0", "broker.session.timeout.ms": "9000"}
        kafka = DevBroker(DevBrokerConfig(data_dir=self._folder / "kafka", properties=properties))
        self._stack.callback(kafka.stop)
        kafka.start()
        return kafka.bootstrap

    def _open_app(self, bootstrap: str) -> Demo:
        namespace = "demo" if self._options.bootstrap is None else f"demo-{secrets.token_hex(4)}"
        config = self._folder / "processor.toml"
        config.write_text(
            f'[kafka]\nbootstrap = "{bootstrap}"\n\n[worker]\nsession_timeout = "10s"\nstate_dir = "{self._folder}"\n',
            "utf-8",
        )
        write_module(self._folder, namespace)
        # Not the environment: what is exported there may be meant for production.
        demo = make_app(namespace, self._folder, load_settings(toml_path=config, env={}))
        self._stack.callback(demo.app.close)
        demo.runs_folder.mkdir()
        demo.ledger.create()
        plan = demo.app.topic_plan()
        apply_topics(demo.app.broker(), plan)
        self._screen.event(f"{len(plan)} topics created, all named {namespace}.*")
        return demo

    def _start_workers(self) -> None:
        self._fleet = Fleet(self._folder)
        self._stack.callback(self._fleet.stop)
        self._fleet.start()
        self._screen.event(f"two workers start: {' '.join(self._fleet.command())}")

    # -- looking ---------------------------------------------------------------------------------------------------

    def _look_around(self, seconds: float) -> None:
        self._watch.read(seconds)
        self._fleet.check()
        # A worker that has just taken the walk over has not said yet where it is.
        self._walked = max(self._walked, round(self._walk_done() * self._work.lines))
        self._screen.show(
            {WORDS: self._watch.ended[WORDS], WALK: self._walked, PLAIN: self._plain.done(self._work.lines)}
        )

    def _until(self, done: Callable[[], bool], what: str, *, give_up: bool = False) -> None:
        """Look around until `done`. Without any progress for a long while: an error, or with `give_up` just go on."""
        last, since = None, time.monotonic()
        while not done():
            self._look_around(0.1)
            now = (sum(self._watch.ended.values()), self._walk_done(), self._plain.done(self._work.lines))
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > _PATIENCE:
                if give_up:
                    return
                raise DemoStuck(f"waited {_PATIENCE:.0f} s for {what} in vain", hint=f"see {self._fleet.log_path}")

    def _next_run(self, after_ns: int) -> Run:
        """The first run of the walk that handled a line after that moment."""
        found: list[Run] = []

        def seen() -> bool:
            found[:] = [run for run in runs(self._demo.runs_folder) if run.first_ns > after_ns]
            return bool(found)

        self._until(seen, "another run of the walk")
        return found[0]

    def _ended(self) -> int:
        """Jobs of the work that have ended."""
        return self._watch.ended[WORDS] + self._watch.ended[WALK]

    def _last_run(self) -> Run:
        return runs(self._demo.runs_folder)[-1]

    def _walking(self) -> StatusRecord | None:
        """The walk's status while it runs, with a line done; None otherwise."""
        status = self._watch.status(WALK_ID)
        return status if status is not None and status.state == "running" and status.done else None

    def _walk_status(self) -> StatusRecord:
        status = self._walking()
        assert status is not None  # waited for just before
        return status

    def _walk_done(self) -> float:
        """The walk, from 0 to 1."""
        status = self._watch.status(WALK_ID)
        if status is None:
            return 0.0
        return 1.0 if self._watch.ended[WALK] else (status.done or 0.0) / self._work.lines

    def _all_done(self) -> float:
        """All jobs, from 0 to 1."""
        return (self._watch.ended[WORDS] / len(self._work.pieces) + self._walk_done()) / 2


@contextlib.contextmanager
def _folder(keep: bool, screen: Screen) -> Iterator[Path]:
    """The demo's folder. It goes at the end, unless it is to be kept or is needed to see what went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="processor-demo-"))
    try:
        yield folder
    except Exception:
        keep = True
        raise
    finally:
        if keep:
            screen.say(f"Kept in {folder}: the ledger, Kafka's data, the output of the workers (workers.log).")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _fetching(screen: Screen, done: int, total: int) -> None:
    if done == 0:
        screen.say(f"Fetching Kafka: {total} files, once.")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
