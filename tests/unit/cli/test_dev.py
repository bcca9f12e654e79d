"""`processor dev` watches the right files and restarts the worker at a save."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor.cli import dev
from processor.cli.saves import Saves, stamps
from processor.errors import DefinitionError


class Interrupted(Exception):
    """Ends the endless loop."""


class FakeWorker(dev.DevWorker):
    """Notes what is done with it; each look at it runs the next act of the play."""

    def __init__(self, *acts: object) -> None:
        super().__init__("jobs.py:app", "localhost:9092")
        self.done: list[str] = []
        self._acts = list(acts)

    def start(self) -> int:
        self.done.append("start")
        return 0

    def restart(self) -> None:
        self.done.append("restart")

    def forget(self) -> None:
        self.done.append("forget")

    def ended(self) -> int | None:
        if not self._acts:
            raise Interrupted
        act = self._acts.pop(0)
        if callable(act):
            act()
            return None
        return act if isinstance(act, int) else None


def play(worker: dev.DevWorker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "_LOOK_EVERY", 0.0)
    with pytest.raises(Interrupted):
        dev.run(worker, Saves(folder))


def test_a_save_restarts_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.py").write_text("1")
    worker = FakeWorker(None, lambda: (tmp_path / "more.py").write_text("2"), None)
    play(worker, tmp_path, monkeypatch)
    assert worker.done == ["start", "restart"]


class Loaded(FakeWorker):
    """Has said what it has loaded."""

    def __init__(self, files: set[Path], *acts: object) -> None:
        super().__init__(*acts)
        self.files = files

    def loaded(self) -> set[Path] | None:
        return self.files


def test_only_a_loaded_file_restarts_a_worker_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, other, elsewhere = tmp_path / "app" / "jobs.py", tmp_path / "app" / "test_jobs.py", tmp_path / "lib.py"
    jobs.parent.mkdir()
    for path in (jobs, elsewhere):
        path.write_text("1")
    files = {jobs}
    worker = Loaded(files, lambda: other.write_text("1"), None, lambda: files.add(elsewhere), None)
    play(worker, jobs.parent, monkeypatch)
    assert worker.done == ["start"]
    saves = [None, lambda: elsewhere.write_text("22"), None, lambda: jobs.write_text("2"), None]
    worker = Loaded({jobs, elsewhere}, *saves)
    play(worker, jobs.parent, monkeypatch)
    assert worker.done == ["start", "restart", "restart"]


def test_a_worker_that_ends_waits_for_the_next_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = FakeWorker(1, None, lambda: (tmp_path / "jobs.py").write_text("1"))
    play(worker, tmp_path, monkeypatch)
    assert worker.done == ["start", "forget", "restart"]


def test_only_sources_are_watched(tmp_path: Path) -> None:
    for name in (
        "jobs.py",
        "deep/er.py",
        "notes.txt",
        ".hidden/x.py",
        "__pycache__/y.py",
        "env/z.py",
        "env/pyvenv.cfg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert {path.relative_to(tmp_path).as_posix() for path in stamps(tmp_path)} == {"jobs.py", "deep/er.py"}


def test_a_package_is_watched_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "watched_package").mkdir()
    (tmp_path / "watched_package" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert dev.source_folder("watched_package.inner.jobs:app") == tmp_path / "watched_package"


def test_a_missing_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError):
        dev.source_folder("nowhere.py:app")
    with pytest.raises(DefinitionError):
        dev.source_folder("nowhere_at_all:app")


class NotedDashboard(dev.DevDashboard):
    """Notes what is done with it."""

    def __init__(self) -> None:
        super().__init__("jobs.py:app", "localhost:9092")
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")


def test_the_dashboard_starts_with_the_worker_and_knows_the_code_as_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, dashboard = FakeWorker(None, lambda: (tmp_path / "jobs.py").write_text("1"), None), NotedDashboard()
    monkeypatch.setattr(dev, "_LOOK_EVERY", 0.0)
    with pytest.raises(Interrupted):
        dev.run(worker, Saves(tmp_path), dashboard)
    assert dashboard.done == ["start", "start"]


class Unloadable(FakeWorker):
    """Its module does not import."""

    def start(self) -> int:
        super().start()
        return 2


def test_an_app_that_cannot_be_loaded_at_the_start_ends_it(tmp_path: Path) -> None:
    worker = Unloadable()
    with pytest.raises(SystemExit) as end:
        dev.run(worker, Saves(tmp_path))
    assert end.value.code == 2
    assert worker.done == ["start"]


def test_the_program_to_run_is_named_as_it_is_typed() -> None:
    assert dev.DevWorker("jobs.py:app", "").program == "python jobs.py"
    assert dev.DevWorker("shop.jobs:app", "").program == "python -m shop.jobs"
