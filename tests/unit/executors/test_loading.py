"""Finding the user's app by name, and what is said when it is not there; addresses to listen on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.errors import DefinitionError, SettingsError
from processor.executors.loading import load_application
from processor.process.probes import Address, parse_address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own; what is imported from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_module_of_the_working_directory_is_found(folder: Path) -> None:
    (folder / "shop_a.py").write_text("from processor import App\nwork = App('shop')\n")
    assert load_application("shop_a:work").namespace == "shop"
    assert load_application("shop_a").namespace == "shop"


def test_a_file_is_found_by_its_path(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "shop_b.py").write_text("from processor import App\napp = App('deep')\n")
    assert load_application("deep/shop_b.py:app").namespace == "deep"


def test_a_missing_module_says_where_it_was_looked_for(folder: Path) -> None:
    with pytest.raises(DefinitionError, match=str(folder)):
        load_application("shop_c:app")
    with pytest.raises(DefinitionError, match=r"shop_c\.py"):
        load_application("shop_c.py:app")


def test_an_error_inside_the_module_is_the_users(folder: Path) -> None:
    (folder / "shop_d.py").write_text("import surely_not_installed\n")
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        load_application("shop_d:app")


def test_a_wrong_attribute_names_the_right_one(folder: Path) -> None:
    (folder / "shop_e.py").write_text("from processor import App\nwork = App('shop')\nother = 3\n")
    with pytest.raises(DefinitionError, match="no 'app'") as missing:
        load_application("shop_e:app")
    assert "shop_e:work" in missing.value.hint
    with pytest.raises(DefinitionError, match="is of type int, not an App"):
        load_application("shop_e:other")


def test_two_apps_need_a_name(folder: Path) -> None:
    (folder / "shop_f.py").write_text("from processor import App\na = App('a')\nb = App('b')\n")
    with pytest.raises(DefinitionError, match="2 apps") as unclear:
        load_application("shop_f")
    assert "shop_f:a or shop_f:b" in unclear.value.hint


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9100", Address("127.0.0.1", 9100)),
        ("0.0.0.0:9100", Address("0.0.0.0", 9100)),
        ("[::1]:9100", Address("::1", 9100)),
    ],
)
def test_an_address_has_a_port_and_perhaps_a_host(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "70000", "1:2:x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_address(text)


def test_children_listen_on_the_ports_that_follow() -> None:
    assert Address("127.0.0.1", 9100).plus(2) == Address("127.0.0.1", 9102)
    assert Address("127.0.0.1", 0).plus(2) == Address("127.0.0.1", 0)
