"""What the demo counts, keeps and reckons with, each by itself. The whole story is tests/integration/test_demo.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from processor.demo.corpus import NOT_PYTHON, Corpus, Piece, Totals, Words, digest_line
from processor.demo.count import PlainCount
from processor.demo.jobs import ONCE, Walk, make_app
from processor.demo.ledger import Ledger
from processor.demo.odometer import Odometer, runs
from processor.demo.report import Reckoning
from processor.testing import Testbed

KEPT = Reckoning(
    published=3,
    finished=3,
    lost=0,
    failed=0,
    doubled=0,
    effects=5,
    effects_expected=5,
    effects_asked_again=1,
    once_runs=1,
    retried=10,
    retried_expected=10,
    rows_imported_twice=0,
    totals_equal=True,
    resume_seconds=1.0,
    takeover_seconds=11.0,
    items=100,
    items_redone=2,
    identifiers=7,
    not_python=1,
    seconds=60.0,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three files: one with a function, one empty, one that is not Python."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.py").write_text("import os\n\n\ndef f(x):\n    return os, x\n", "utf-8")
    (root / "b.py").write_text("", "utf-8")
    (root / "c.py").write_text('x = """\n', "utf-8")
    return Corpus(root=root, paths=["a.py", "b.py", "c.py"])


def test_identifiers_are_counted(corpus: Corpus) -> None:
    assert corpus.count(Piece(path="a.py")) == Words(identifiers=5, distinct=3)
    [function] = corpus.definitions("a.py")
    assert corpus.count(function) == Words(identifiers=4, distinct=3)
    assert corpus.count(Piece(path="c.py")) == NOT_PYTHON
    assert list(corpus.definitions("c.py")) == []


@pytest.mark.parametrize("after", [None, 0, 3, 4, 5])
def test_the_walk_goes_on_after_any_line(corpus: Corpus, after: int | None) -> None:
    starts = corpus.starts()
    assert starts == [0, 5, 5, 6]
    lines = list(corpus.lines(starts, None))
    assert [line.completes for line in lines] == ["", "", "", "", "a.py", "c.py"]
    assert list(corpus.lines(starts, after)) == lines[0 if after is None else after + 1 :]


def test_the_digest_sees_a_line_that_is_doubled_or_swapped() -> None:
    digests = set()
    for lines in ((b"a", b"b"), (b"b", b"a"), (b"a", b"b", b"b"), (b"a",)):
        totals = Totals()
        for line in lines:
            digest_line(totals, line, 2)
        digests.add(totals.digest)
    assert len(digests) == 4


def test_the_ledger_honours_keys_and_counts_what_was_asked(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.create()
    ledger.apply("key", "job", ONCE)
    ledger.apply("key", "job", ONCE)
    ledger.apply("other", "job", "step")
    count = ledger.count(ONCE)
    assert (count.effects, count.doubled, count.applications, count.once_runs) == (2, 0, 3, 2)
    ledger.apply("another key for the same step", "job", "step")
    assert ledger.count(ONCE).doubled == 1


def test_an_odometer_is_read_from_outside(tmp_path: Path) -> None:
    with Odometer(tmp_path) as odometer:
        odometer.resumed(41)
        assert runs(tmp_path)[0].first_ns == 0
        odometer.line()
        odometer.line()
        [run] = runs(tmp_path)
    assert (run.after, run.lines, run.first_ns >= run.began_ns) == (41, 2, True)


def test_the_plain_count_counts_everything(corpus: Corpus) -> None:
    plain = PlainCount(corpus, list(corpus.files()), rounds=1)
    plain.start()
    plain.join()
    assert plain.complete
    assert plain.totals.lines == 6
    assert plain.words["c.py"] == NOT_PYTHON


def test_a_killed_walk_ends_with_the_plain_totals(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.demo.jobs.standard_library", lambda: corpus)
    demo = make_app("demo", tmp_path)
    demo.runs_folder.mkdir()
    demo.ledger.create()
    plain = PlainCount(corpus, list(corpus.files()), rounds=3)
    plain.start()
    plain.join()
    with Testbed(demo.app) as bed:
        walk = bed.enqueue(demo.walk, Walk(rounds=3))
        words = bed.enqueue(demo.words, Piece(path="c.py"))
        bed.crash_worker(at="lines", after=5)
        bed.drain()
        assert bed.result(walk) == plain.totals
        assert bed.result(words) == NOT_PYTHON
    count = demo.ledger.count(ONCE)
    assert (count.effects, count.doubled, count.once_runs) == (4, 0, 1)


def test_a_broken_promise_is_named(tmp_path: Path) -> None:
    assert KEPT.ok
    assert replace(KEPT, lost=2).failures() == ["2 jobs were lost"]
    assert not replace(KEPT, totals_equal=False).ok
    assert not replace(KEPT, once_runs=2).ok
    assert not replace(KEPT, effects=4).ok
    KEPT.write(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text("utf-8"))["resume_seconds"] == 1.0
