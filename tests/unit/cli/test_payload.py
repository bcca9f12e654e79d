"""Payloads as they are typed: what is read, and what each thing that cannot be read says."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from processor.cli.payload import payload_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        ("null", None),
        ('{"a": [1, "ü"]}', {"a": [1, "ü"]}),
        (" 7 ", 7),
        ('"@file"', "@file"),
        ("-1", -1),
    ],
)
def test_json_on_the_command_line(text: str | None, value: Any) -> None:
    assert payload_of(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the payload is not JSON: Expecting value at line 1, column 1"),
        ("{url: x}", "line 1, column 2"),
        ("[1,\n2,,]", "line 2, column 3"),
        ("[" * 100_000, "the payload cannot be read as JSON"),
        ("9" * 5000, "the payload cannot be read as JSON"),
        ("@", "the payload cannot be read"),
        ("@/no/such/file", "the payload cannot be read"),
    ],
)
def test_what_is_none_says_what_and_where(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        payload_of(text)


def test_files_and_the_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "order.json"
    path.write_bytes(b'{"id": 7}')
    assert payload_of(f"@{path}") == {"id": 7}
    path.write_bytes(b"\xff")
    with pytest.raises(click.BadParameter, match="cannot be read"):
        payload_of(f"@{path}")
    path.write_text("{")
    with pytest.raises(click.BadParameter, match=r"order\.json is not JSON"):
        payload_of(f"@{path}")
    for data, message in ((b"[]", ""), (b"[", "the standard input is not JSON"), (b"\xff", "cannot be read")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        if message:
            with pytest.raises(click.BadParameter, match=message):
                payload_of("-")
        else:
            assert payload_of("-") == []
