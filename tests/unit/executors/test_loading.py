"""Finding the user's app by name, and what is said when it is not there; addresses to listen on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.cli.target import load_app
from processor.errors import DefinitionError, SettingsError
from processor.executors.loading import load_application
from processor.process.probes import Address, parse_address
from processor.signals import ProcessStopped


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


APP = "from processor import App\napp = App('named')\n"


@pytest.mark.parametrize("name", ["json.py", "select.py"])
def test_a_file_named_like_a_module_of_python_says_so(folder: Path, name: str) -> None:
    (folder / name).write_text(APP)
    with pytest.raises(DefinitionError, match=rf"{name} has the name of Python's own module") as taken:
        load_application(f"{name}:app")
    assert "rename the file" in taken.value.hint


def test_a_file_named_like_an_installed_package_says_so(folder: Path) -> None:
    (folder / "click.py").write_text(APP)
    with pytest.raises(DefinitionError, match="has the name of the module 'click' in"):
        load_application("click.py:app")


def test_a_file_with_a_dot_in_its_name_is_loaded(folder: Path) -> None:
    (folder / "shop_g.v2.py").write_text(APP)
    assert load_application("shop_g.v2.py:app").namespace == "named"
    assert load_application("shop_g.v2.py:app") is load_application("shop_g.v2.py:app")


def test_a_file_with_relative_imports_is_loaded_as_part_of_its_package(folder: Path) -> None:
    (folder / "outer_h" / "inner").mkdir(parents=True)
    for package in ("outer_h", "outer_h/inner"):
        (folder / package / "__init__.py").touch()
    (folder / "outer_h" / "names.py").write_text("NAME = 'named'\n")
    (folder / "outer_h" / "inner" / "jobs.py").write_text(
        "from processor import App\nfrom ..names import NAME\napp = App(NAME)\n"
    )
    assert load_application("outer_h/inner/jobs.py:app").namespace == "named"
    assert "outer_h.inner.jobs" in sys.modules


def test_relative_imports_outside_a_package_say_what_to_do(folder: Path) -> None:
    (folder / "shop_i.py").write_text("from . import names\n")
    with pytest.raises(DefinitionError, match="is no package") as alone:
        load_application("shop_i.py:app")
    assert "__init__.py" in alone.value.hint


@pytest.mark.parametrize("name", ["shop_j", "shop_j.py"])
def test_a_module_that_ends_the_program_is_told(folder: Path, name: str) -> None:
    (folder / "shop_j.py").write_text("import sys\n\nsys.exit('no configuration')\n")
    with pytest.raises(DefinitionError, match=r"sys\.exit\('no configuration'\) at .*shop_j\.py:3"):
        load_application(f"{name}:app")


def test_a_stop_during_the_import_is_no_exit_of_the_module(folder: Path) -> None:
    (folder / "shop_k.py").write_text("from processor.signals import ProcessStopped\nraise ProcessStopped(0)\n")
    with pytest.raises(ProcessStopped):
        load_application("shop_k:app")


def test_errors_of_the_module_are_shown_with_its_own_frames_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "shop_l.py").write_text("def late():\n    return missing\n\n\nlate()\n")
    with pytest.raises(DefinitionError, match=r"shop_l\.py does not load: NameError: .*missing.* at .*shop_l\.py:2"):
        load_app("shop_l.py:app")
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):\n")
    assert [line.split(",")[0].split("/")[-1] for line in told.splitlines() if line.startswith("  File")] == [
        'shop_l.py"',
        'shop_l.py"',
    ]
