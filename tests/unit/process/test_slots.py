"""Slots: the lowest free number of the host, locked; names of one's own; the lock dies with its holders."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from processor.errors import SettingsError
from processor.process.slots import take_slots

HOST = socket.gethostname()


def test_the_lowest_free_number_is_taken(tmp_path: Path) -> None:
    (first,) = take_slots("shop", str(tmp_path))
    (second,) = take_slots("shop", str(tmp_path))
    assert (first.name, second.name) == (f"{HOST}-0", f"{HOST}-1")
    first.close()
    assert [slot.name for slot in take_slots("shop", str(tmp_path), 2)] == [f"{HOST}-0", f"{HOST}-2"]


def test_another_namespace_counts_for_itself(tmp_path: Path) -> None:
    (here,) = take_slots("shop", str(tmp_path))
    (there,) = take_slots("bank", str(tmp_path))
    assert here.name == there.name


def test_a_taken_name_is_refused_and_says_by_whom(tmp_path: Path) -> None:
    held = take_slots("shop", str(tmp_path), instance="pod-7")
    with pytest.raises(SettingsError, match=f"slot pod-7 is taken by process {os.getpid()}"):
        take_slots("shop", str(tmp_path), instance="pod-7")
    held[0].close()
    assert take_slots("shop", str(tmp_path), instance="pod-7")[0].name == "pod-7"


def test_several_of_one_name_are_numbered_and_taken_all_or_none(tmp_path: Path) -> None:
    (second,) = take_slots("shop", str(tmp_path), instance="w-1")
    with pytest.raises(SettingsError, match="w-1 is taken"):
        take_slots("shop", str(tmp_path), 2, instance="w")
    second.close()
    assert [slot.name for slot in take_slots("shop", str(tmp_path), 2, instance="w")] == ["w-0", "w-1"]


def test_a_slot_is_held_until_the_last_process_with_it_ends(tmp_path: Path) -> None:
    (slot,) = take_slots("shop", str(tmp_path), instance="w")
    ended_r, ended_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ended_w)
        os.read(ended_r, 1)
        os._exit(0)
    slot.close()
    with pytest.raises(SettingsError):
        take_slots("shop", str(tmp_path), instance="w")
    os.close(ended_w)
    os.waitpid(child, 0)
    os.close(ended_r)
    assert take_slots("shop", str(tmp_path), instance="w")


def test_a_strange_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not allowed"):
        take_slots("shop", str(tmp_path), instance="../etc")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"worker\.state_dir|cannot be written") as refused:
        take_slots("shop", str(tmp_path / "file"))
    assert "worker.state_dir" in refused.value.hint
