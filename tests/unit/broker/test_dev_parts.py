"""The local Kafka's parts that need no Kafka: which Java may run it, which jars it needs, what is told of a failure."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from processor.broker.dev import artifacts
from processor.broker.dev.artifacts import Artifact, cache_dir, fetch, locked, versions
from processor.broker.dev.java import JavaUnusable, find_java
from processor.broker.dev.node import DevBrokerFailed, DevNode, JavaCommand, PortTaken
from processor.errors import DevBrokerError


def java(folder: Path, says: str, code: int = 0) -> Path:
    """A program that answers `-version` as a Java does, on stderr."""
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "says",
    [
        'openjdk version "17.0.10" 2024-01-16',
        'openjdk version "21-ea" 2023-09-19',
        'java version "25" 2025-09-16 LTS',
        'Picked up JAVA_TOOL_OPTIONS: -Dx=y\nopenjdk version "17.0.1" 2021-10-19',
    ],
)
def test_a_java_that_is_new_enough_is_taken(tmp_path: Path, says: str) -> None:
    found = java(tmp_path, says)
    assert find_java(found) == found


@pytest.mark.parametrize(
    ("says", "code", "told"),
    [
        ('java version "1.8.0_292"', 0, r"/bin/java is Java 8, Kafka needs 17 or newer"),
        ('openjdk version "11.0.2" 2019-01-15', 0, "is Java 11, Kafka needs 17"),
        ('openjdk version "16.0.2"', 0, "is Java 16, Kafka needs 17"),
        ("No Java runtime present, requesting install.", 1, "exit code 1: No Java runtime present"),
        ("", 3, "-version failed with exit code 3: no output"),
        ('openjdk version "21"', 134, "-version failed with exit code 134"),
        ("busybox", 0, "-version failed with exit code 0: busybox"),
    ],
)
def test_a_java_that_cannot_run_kafka_is_told_with_what_it_says(
    tmp_path: Path, says: str, code: int, told: str
) -> None:
    with pytest.raises(JavaUnusable, match=told) as caught:
        find_java(java(tmp_path, says, code))
    assert "name a Java >= 17" in caught.value.hint


def test_a_java_that_is_not_there_or_no_program_is_told(tmp_path: Path) -> None:
    with pytest.raises(JavaUnusable, match=r"does not run: .*No such file"):
        find_java(tmp_path / "java")
    with pytest.raises(JavaUnusable, match=r"does not run: .*Permission denied"):
        find_java(tmp_path)


def test_the_machines_own_java_comes_first_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = java(tmp_path / "old", 'openjdk version "11"')
    new = java(tmp_path / "new", 'openjdk version "21"')
    monkeypatch.setenv("JAVA_HOME", str(old.parent.parent))
    monkeypatch.setenv("PATH", f"{new.parent}:{os.environ['PATH']}")
    assert find_java() == new
    monkeypatch.setenv("JAVA_HOME", str(new.parent.parent))
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    assert find_java() == new


# -- jars ----------------------------------------------------------------------------------------------------------


def test_versions_are_ordered_as_numbers_and_each_has_its_jars() -> None:
    found = versions()
    assert [tuple(map(int, version.split("."))) for version in found] == sorted(
        tuple(map(int, version.split("."))) for version in found
    )
    assert artifacts.DEFAULT_VERSION in found
    for version in found:
        jars = locked(version)
        assert len({jar.file_name for jar in jars}) == len(jars), "two jars would lie in one file"
        assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in jars)
        assert {(jar.name, jar.version) for jar in jars if jar.group == "org.apache.kafka"} >= {
            ("kafka_2.13", version),
            ("kafka-clients", version),
        }


def test_a_version_without_a_lock_is_told_with_those_that_have_one() -> None:
    with pytest.raises(DevBrokerError, match=r"no lock file for Kafka 3\.9\.0") as caught:
        locked("3.9.0")
    assert all(version in caught.value.hint for version in versions())


def test_jars_that_are_there_and_whole_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_of = {"a": b"alpha", "b": b"beta"}
    jars = [
        Artifact(group="g", name=name, version="1", sha256=hashlib.sha256(data).hexdigest())
        for name, data in bytes_of.items()
    ]
    wanted: list[str] = []

    def download(artifact: Artifact, cache: Path) -> None:
        (cache / artifact.file_name).write_bytes(bytes_of[artifact.name])

    monkeypatch.setattr(artifacts, "_download", download)  # the network
    cache = tmp_path / "deep" / "jars"
    steps: list[tuple[int, int, str]] = []
    assert fetch(jars, cache, lambda *step: steps.append(step)) == [cache / "g.a-1.jar", cache / "g.b-1.jar"]
    assert [(done, of) for done, of, _ in steps] == [(0, 2), (1, 2), (2, 2)]
    assert sorted(name for _, _, name in steps) == ["", "a-1.jar", "b-1.jar"], "in whatever order they come"
    steps.clear()
    fetch(jars, cache, lambda *step: steps.append(step))
    assert steps == []
    (cache / "g.b-1.jar").write_bytes(b"bet")  # a copy that was broken off
    fetch(jars, cache, lambda *step: steps.append(step))
    assert steps == [(0, 1, ""), (1, 1, "b-1.jar")]
    assert (cache / "g.b-1.jar").read_bytes() == b"beta"
    assert wanted == []


def test_the_cache_lies_where_the_user_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert cache_dir() == tmp_path / "c" / "kafka-job-processor" / "jars"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_dir() == tmp_path / ".cache" / "kafka-job-processor" / "jars"


# -- a process -----------------------------------------------------------------------------------------------------


def command(script: Path, says: str) -> JavaCommand:
    script.write_text(f"#!/bin/sh\n{says}\n")
    script.chmod(0o755)
    return JavaCommand(java=script, classpath=[Path("a.jar"), Path("b.jar")], heap_mb=64)


def test_the_command_line_holds_the_heap_the_jars_and_what_is_run(tmp_path: Path) -> None:
    argv = JavaCommand(java=Path("/j"), classpath=[Path("a.jar"), Path("b.jar")], heap_mb=512).argv(tmp_path, "M", "x")
    assert argv[:3] == ["/j", "-Xms128m", "-Xmx512m"]
    assert argv[argv.index("-cp") + 1 :] == ["a.jar:b.jar", "M", "x"]
    assert JavaCommand(java=Path("/j"), classpath=[], heap_mb=64).argv(tmp_path, "M")[1] == "-Xms64m"


def test_storage_that_cannot_be_formatted_is_told_without_the_frames(tmp_path: Path) -> None:
    node = DevNode(tmp_path / "node", 1)
    says = "echo 'WARNING: x'; echo 'java.lang.IllegalArgumentException: no such listener'"
    says += "; printf '\\tat kafka.X\\n'; exit 1"
    with pytest.raises(DevBrokerFailed) as caught:
        node.prepare(command(tmp_path / "java", says), "id", {"a": "1"})
    assert str(caught.value).splitlines()[1:] == ["java.lang.IllegalArgumentException: no such listener"]
    assert "server.properties" in caught.value.hint
    assert (tmp_path / "node" / "server.properties").read_text() == "a=1\n"


def test_storage_is_formatted_once(tmp_path: Path) -> None:
    node = DevNode(tmp_path / "node", 1)
    meta = tmp_path / "node" / "log"
    says = f"mkdir -p {meta}; echo once >> {meta}/meta.properties"
    for heap in ("1", "2"):
        node.prepare(command(tmp_path / "java", says), "id", {"heap": heap})
    assert (meta / "meta.properties").read_text() == "once\n"
    assert (tmp_path / "node" / "server.properties").read_text() == "heap=2\n", "settings are written at every start"


@pytest.mark.parametrize(
    ("says", "kind", "hint"),
    [
        ("echo '[x] ERROR java.net.BindException: Address already in use'", PortTaken, "choose another port"),
        ("echo '[x] ERROR out of memory'", DevBrokerFailed, "the whole log is in"),
        ("true", DevBrokerFailed, "the whole log is in"),
    ],
)
def test_a_broker_that_ends_while_it_starts_says_why(
    tmp_path: Path, says: str, kind: type[DevBrokerFailed], hint: str
) -> None:
    node = DevNode(tmp_path, 1)  # nobody listens on port 1
    node.spawn(command(tmp_path / "java", says), detached=False)
    with pytest.raises(DevBrokerFailed, match="the broker on port 1 stopped while it started") as caught:
        node.wait_until_ready(time.monotonic() + 30)
    assert type(caught.value) is kind
    assert hint in caught.value.hint
    assert node.pid is None


@pytest.mark.skipif(shutil.which("sleep") is None, reason="no sleep")
def test_a_folder_belongs_to_one_process_until_that_is_gone(tmp_path: Path) -> None:
    import signal

    node = DevNode(tmp_path, 1)
    assert (node.is_running(), node.pid) == (False, None)
    node.spawn(command(tmp_path / "java", "exec sleep 60"), detached=False)
    other = DevNode(tmp_path, 1)
    assert other.is_running()
    assert other.pid == node.pid
    node.freeze(time.monotonic() + 30)
    assert other.is_running(), "a paused one still exists"
    assert not other.wait_until_gone(time.monotonic())
    with pytest.raises(DevBrokerFailed, match="did not answer in time"):
        node.wait_until_ready(time.monotonic() - 1)
    other.signal(signal.SIGKILL)
    assert other.wait_until_gone(time.monotonic() + 30)
    assert node.wait_until_gone(time.monotonic() + 30)
    node.signal(signal.SIGTERM)  # nobody is there any more
