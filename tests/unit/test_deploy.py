"""The image and the compose file keep what operations rely on. They are read here; building them needs Docker."""

from __future__ import annotations

import json
import re
from pathlib import Path

from processor.wire.settings_sources import known_names

TOP = Path(__file__).resolve().parents[2]
DOCKERFILE = (TOP / "deploy" / "Dockerfile").read_text("utf-8")
COMPOSE = (TOP / "docker-compose.yml").read_text("utf-8")


def instructions(name: str, text: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", text)
    return re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)


def last_stage() -> str:
    return DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


def test_image_is_built_in_stages_and_runs_as_nobody_special() -> None:
    assert len(instructions("FROM", DOCKERFILE)) == 2
    [user] = instructions("USER", last_stage())
    assert user.isdecimal(), "a number, so that Kubernetes can verify runAsNonRoot"
    assert int(user) > 0


def test_signals_reach_the_worker() -> None:
    # In shell form /bin/sh would be process 1 and pass no signal on; an init does, and takes leave of orphans.
    assert json.loads(instructions("ENTRYPOINT", last_stage())[0]) == ["tini", "--", "processor"]
    assert any("tini" in line for line in instructions("RUN", last_stage()))
    assert isinstance(json.loads(instructions("CMD", last_stage())[0]), list)
    assert instructions("STOPSIGNAL", last_stage()) == ["SIGTERM"]


def test_what_the_image_copies_exists() -> None:
    copied = [word for line in instructions("COPY", DOCKERFILE) if "--from" not in line for word in line.split()[:-1]]
    assert [name for name in copied if not (TOP / name).exists()] == []


def test_settings_in_image_and_compose_file_exist() -> None:
    variables = re.findall(r"PROCESSOR_(\w+?)__(\w+)", DOCKERFILE + COMPOSE)
    assert variables
    assert [f"{g}.{f}".lower() for g, f in variables if f"{g}.{f}".lower() not in known_names()] == []


def test_compose_gives_the_worker_more_than_its_grace() -> None:
    [seconds] = re.findall(r"stop_grace_period: (\d+)s", COMPOSE)
    assert int(seconds) > 30
