"""Which files were saved: of the folder, of what is loaded, and never of what is not the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from processor.cli.saves import Saves, stamps


def save(path: Path, at: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1")
    os.utime(path, ns=(at, at))
    return path


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("jobs.py", True),
        ("deep/er/jobs.py", True),
        ("jobs.txt", False),
        ("jobs", False),
        (".hidden.py", False),
        (".git/hooks.py", False),
        ("__pycache__/jobs.py", False),
        ("node_modules/x/setup.py", False),
        ("lib/site-packages/x.py", False),
        ("build.py", True),
        ("build/jobs.py", False),
    ],
)
def test_which_files_are_sources(name: str, seen: bool, tmp_path: Path) -> None:
    path = save(tmp_path / name, 1)
    assert (path in stamps(tmp_path)) is seen


def test_environments_and_links_to_folders_are_left_out(tmp_path: Path) -> None:
    save(tmp_path / "env" / "jobs.py", 1)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    assert stamps(tmp_path) == {}


def test_a_save_a_new_file_and_a_deleted_one_are_told_once(tmp_path: Path) -> None:
    jobs, old = save(tmp_path / "jobs.py", 1), save(tmp_path / "old.py", 1)
    saves = Saves(tmp_path)
    assert saves.look(None) == []
    save(jobs, 2)
    new = save(tmp_path / "a.py", 1)
    old.unlink()
    assert saves.look(None) == [new, jobs, old]
    assert saves.look(None) == []
    save(jobs, 1)
    assert saves.look(None) == [jobs], "an older version put back is a change too"


def test_only_what_is_loaded_counts_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    jobs, other = save(folder / "jobs.py", 1), save(folder / "other.py", 1)
    outside = save(tmp_path / "elsewhere" / "lib.py", 1)
    saves = Saves(folder)
    assert saves.look({jobs, outside}) == [], "to be looked at for the first time is no save"
    for path in (jobs, other, outside):
        save(path, 2)
    assert saves.look({jobs, outside}) == sorted([jobs, outside])
    assert saves.look({jobs, outside}) == []


def test_a_folder_that_goes_meanwhile_holds_nothing(tmp_path: Path) -> None:
    jobs = save(tmp_path / "shop" / "jobs.py", 1)
    saves = Saves(tmp_path / "shop")
    jobs.unlink()
    jobs.parent.rmdir()
    assert saves.look(None) == [jobs]
    assert stamps(tmp_path / "shop") == {}
