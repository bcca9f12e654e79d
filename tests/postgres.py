"""A real PostgreSQL for tests: one that is named, or Debian's, started here for the length of the session."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.schema import CreateSchema, DropSchema

NAMED = "PROCESSOR_TEST_POSTGRES"
"""Address of a PostgreSQL database that tests may empty: postgresql://USER@HOST/NAME."""


@contextmanager
def postgres() -> Iterator[str]:
    """Address of an empty database; skips the test where there is no PostgreSQL."""
    named = os.environ.get(NAMED)
    if named:
        yield named
        return
    initdb = _newest("initdb")
    owner = "postgres" if getpass.getuser() == "root" else getpass.getuser()
    if initdb is None or owner not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip(f"no PostgreSQL: install Debian's package postgresql, or set {NAMED}")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if owner == "postgres":
        shutil.chown(folder, owner)
    try:
        _run(owner, [str(initdb), "-D", str(folder / "data"), "-A", "trust", "-U", "tests", "--no-sync"])
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=30"
        control = [str(initdb.with_name("pg_ctl")), "-D", str(folder / "data"), "-w"]
        _run(owner, [*control, "-o", options, "-l", str(folder / "log"), "start"])
        try:
            yield f"postgresql://tests@/postgres?host={folder}"
        finally:
            _run(owner, [*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def schema(url: str, name: str) -> Iterator[str]:
    """The address of an empty schema in this database, which goes with all its tables afterwards.

    Tests of other processes may use the same database meanwhile.
    """
    own = f"tests_{os.getpid()}_{name}"
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1), isolation_level="AUTOCOMMIT")
    with engine.connect() as sql:
        sql.execute(CreateSchema(own))
        try:
            yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{own}"
        finally:
            sql.execute(DropSchema(own, cascade=True))
    engine.dispose()


def _newest(program: str) -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which(program)
    return found[-1] if found else None if on_path is None else Path(on_path)


def _run(owner: str, command: list[str]) -> None:
    if owner != getpass.getuser():
        command = ["runuser", "-u", owner, "--", *command]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, cwd="/")
