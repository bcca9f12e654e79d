"""`processor config show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from processor.cli.config import config


def test_it_shows_values_and_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROCESSOR_KAFKA__SASL_PASSWORD", "hunter2")
    Path("processor.toml").write_text('[worker]\nlinger = "5ms"\n')
    result = CliRunner().invoke(config, ["show", "--origin", "--changed"])
    assert result.stdout.splitlines() == [
        "NAME                 VALUE       ORIGIN",
        "kafka.sasl_password  **********  PROCESSOR_KAFKA__SASL_PASSWORD",
        "worker.linger        5ms         processor.toml",
    ]
    listed = json.loads(CliRunner().invoke(config, ["show", "--json"]).stdout)
    assert {row["name"] for row in listed} >= {"topics.replication", "client.payload_max_bytes"}
    assert "hunter2" not in str(listed)


def test_a_wrong_setting_ends_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.toml").write_text("[worker]\nlingr = 1\n")
    result = CliRunner().invoke(config, ["show", "--config", "other.toml"])
    assert result.exit_code == 2
    assert "did you mean worker.linger?" in result.stderr
