"""The jars of a local Kafka: which ones a version needs, where they are cached, how they get there.

A lock file beside this module (`kafka-<version>.lock`) lists every jar as `group:artifact:version sha256`. It was
resolved once, by Maven, when the version was added. So nothing is resolved on a user's machine, and a jar whose bytes
differ from the lock is refused. The download itself is done by the pure Python library `jgo`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from queue import Empty, SimpleQueue

from processor import events
from processor.errors import DevBrokerError, ExtraMissing

log = events.logger(__name__)

DEFAULT_VERSION = "4.4.0"
"""The Kafka that is started unless another version is asked for."""

Progress = Callable[[int, int, str], None]
"""Called before the first download and after each: how many are done, how many there are to fetch, the name of the
newest one (empty at first).
"""

_FETCH_TIMEOUT_S = 60
_AT_A_TIME = 8
"""Most jars are small: one after the other, three quarters of the time went into waiting for answers."""


class ArtifactRefused(DevBrokerError):
    """A jar could not be downloaded, or its bytes are not those of the lock file. Nothing was started with it."""

    code = "dev_broker_artifact"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One jar of the lock file."""

    group: str
    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Its name in the cache; the group keeps equal names of two publishers apart."""
        return f"{self.group}.{self.name}-{self.version}.jar"


def versions() -> tuple[str, ...]:
    """The Kafka versions that can be started, oldest first."""
    names = [entry.name for entry in files("processor.broker").iterdir() if entry.name.endswith(".lock")]
    found = [name.removeprefix("kafka-").removesuffix(".lock") for name in names]
    return tuple(sorted(found, key=lambda version: [int(part) for part in version.split(".")]))


def locked(version: str) -> list[Artifact]:
    """Every jar that Kafka `version` needs."""
    if version not in versions():
        raise DevBrokerError(f"no lock file for Kafka {version}", hint=f"choose one of {', '.join(versions())}")
    lines = files("processor.broker").joinpath(f"kafka-{version}.lock").read_text("utf-8").splitlines()
    return [_parse(line) for line in lines]


def _parse(line: str) -> Artifact:
    coordinate, sha256 = line.split()
    group, name, version = coordinate.split(":")
    return Artifact(group=group, name=name, version=version, sha256=sha256)


def cache_dir() -> Path:
    """Where jars are kept between starts: `$XDG_CACHE_HOME`, else `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kafka-job-processor" / "jars"


def fetch(artifacts: Sequence[Artifact], cache: Path, progress: Progress | None = None) -> list[Path]:
    """Return the checked path of every jar, downloading what the cache lacks. Parallel callers wait for each other."""
    cache.mkdir(parents=True, exist_ok=True)
    with _locked_folder(cache):
        missing = [artifact for artifact in artifacts if not _is_good(cache / artifact.file_name, artifact)]
        if missing:
            _download_all(missing, cache, progress or (lambda *_: None))
            log.info("dev_broker.fetched", extra={"jars": len(missing), "cache": str(cache)})
    return [cache / artifact.file_name for artifact in artifacts]


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_good(path: Path, artifact: Artifact) -> bool:
    # Checked at every start, not only after the download: all 45 jars take 0.1 s, and a broken disk or a half-copied
    # cache would otherwise show up as a Java stack trace.
    return path.is_file() and _sha256(path) == artifact.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _download_all(missing: Sequence[Artifact], cache: Path, progress: Progress) -> None:
    """Download several at a time; the first one that fails ends it.

    Raises:
        ArtifactRefused: one could not be downloaded, or has other bytes than the lock file says.
    """
    try:
        importlib.import_module("jgo.maven")  # here, and not by all threads at once
    except ImportError as absent:
        raise ExtraMissing("broker", "a local Kafka") from absent
    wanted: SimpleQueue[Artifact] = SimpleQueue()
    ended: SimpleQueue[tuple[Artifact, Exception | None]] = SimpleQueue()
    for artifact in missing:
        wanted.put(artifact)
    given_up = threading.Event()

    def work() -> None:
        with contextlib.suppress(Empty):
            while not given_up.is_set():
                artifact = wanted.get_nowait()
                ended.put((artifact, _fault_of(artifact, cache)))

    try:
        for _ in range(min(_AT_A_TIME, len(missing))):
            # Daemons: nobody who has pressed Ctrl-C waits for a download.
            threading.Thread(target=work, name="jar-download", daemon=True).start()
        progress(0, len(missing), "")
        for done in range(1, len(missing) + 1):
            artifact, fault = ended.get()
            if fault is not None:
                raise fault
            progress(done, len(missing), f"{artifact.name}-{artifact.version}.jar")
    finally:
        given_up.set()


def _fault_of(artifact: Artifact, cache: Path) -> Exception | None:
    """Download it; what went wrong, for whoever waits."""
    try:
        _download(artifact, cache)
    except Exception as error:  # noqa: BLE001  (it is raised there)
        return error
    return None


def _download(artifact: Artifact, cache: Path) -> None:
    from jgo.maven import MavenContext

    coordinate = f"{artifact.group}:{artifact.name}:{artifact.version}"
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        try:
            context = MavenContext(repo_cache=Path(folder), timeout=_FETCH_TIMEOUT_S)
            component = context.project(artifact.group, artifact.name).at_version(artifact.version)
            path = Path(component.artifact().resolve())
        except (OSError, RuntimeError, ValueError) as error:
            raise ArtifactRefused(
                f"cannot download {coordinate}: {error}",
                hint="check the connection to Maven Central (proxies: HTTPS_PROXY, REQUESTS_CA_BUNDLE) and start again",
            ) from error
        found = _sha256(path)
        if found != artifact.sha256:
            raise ArtifactRefused(
                f"{coordinate} has SHA-256 {found}, the lock file says {artifact.sha256}",
                hint="something between here and Maven Central changes downloads; nothing of it was kept",
            )
        path.replace(cache / artifact.file_name)
