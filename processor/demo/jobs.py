"""The demo's app. The demo writes a small module that calls `make_app`; its workers load that like anybody's app."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from processor.app import App
from processor.context import Context
from processor.demo.corpus import Corpus, Count, Line, Piece, Totals, digest_line, standard_library
from processor.demo.failing import Failing, declare_failing
from processor.demo.ledger import Ledger
from processor.demo.odometer import Odometer
from processor.job_types import JobType
from processor.wire.settings import Settings

WORDS = "words"
WALK = "walk"
WALK_ID = "the-walk"
ONCE = "open the books"
"""The step of the walk that must not run twice."""
MODULE = "demo_jobs"


class Walk(BaseModel):
    """The long job."""

    rounds: int
    """Hashes per line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The app with its job types and the places it works on."""

    app: App
    words: JobType[Piece, Count]
    walk: JobType[Walk, Totals]
    failing: Failing
    corpus: Corpus
    ledger: Ledger
    runs_folder: Path


def make_app(namespace: str, folder: Path, settings: Settings | None = None) -> Demo:
    """The demo's app; `folder` holds its ledger and the odometers of its walk."""
    app = App(namespace, settings=settings)
    # Few partitions and threads: the broker is small, and counting keeps a processor busy all by itself.
    app.queue(WORDS, partitions=4, concurrency=2)
    app.queue(WALK, partitions=2, concurrency=1)
    corpus = standard_library()
    ledger = Ledger(folder / "ledger.sqlite")
    runs_folder = folder / "runs"

    @app.job("words.count", queue=WORDS, payload=Piece)
    def words(ctx: Context, piece: Piece) -> Count:
        count = corpus.count(piece)
        ledger.apply(ctx.idempotency_key("count"), ctx.id, "count")
        return count

    @app.job("walk.lines", queue=WALK, payload=Walk)
    def walk(ctx: Context, p: Walk) -> Totals:
        starts = ctx.step("index", corpus.starts)
        ctx.once(ONCE, ledger.apply, ctx.idempotency_key(ONCE), ctx.id, ONCE)
        totals = ctx.state(Totals)
        with Odometer(runs_folder) as odometer:

            def source(after: int | None) -> Iterator[Line]:
                odometer.resumed(after)
                return corpus.lines(starts, after)

            for line in ctx.each("lines", source, cursor=lambda line: line.number, total=starts[-1]):
                odometer.line()
                digest_line(totals, line.text, p.rounds)
                if line.completes:
                    ctx.step("file done", ledger.apply, ctx.idempotency_key("file done"), ctx.id, line.completes)
        return totals

    failing = declare_failing(app, ledger, folder)
    return Demo(
        app=app,
        words=words,
        walk=walk,
        failing=failing,
        corpus=corpus,
        ledger=ledger,
        runs_folder=runs_folder,
    )


def write_module(folder: Path, namespace: str) -> Path:
    """The module that the workers load."""
    path = folder / f"{MODULE}.py"
    path.write_text(
        '"""The jobs of one run of `processor demo`; see processor.demo.jobs."""\n\n'
        "from pathlib import Path\n\n"
        "from processor.demo.jobs import make_app\n\n"
        f"app = make_app({namespace!r}, Path(__file__).parent).app\n",
        "utf-8",
    )
    return path
