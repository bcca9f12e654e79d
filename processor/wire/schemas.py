"""The Avro schemas, as they are published in `schemas/`.

    <name>.avsc                 today's schema of a record: what readers resolve to
    brief/<name>.avsc           the same record without its rarely used last fields; written when those hold their
                                defaults (it halves the cost of the hot path, and stays plain Avro schema resolution)
    history/<name>/*.avsc       every schema that was ever written, today's included

Nothing is read at import: the first record encoded or decoded loads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
"""A parsed schema, as fastavro wants it."""

NAMES = (
    *("job", "checkpoint", "step", "live_job", "number_mark", "status", "dedupe"),
    *("dead_letter", "control", "schedule", "schedule_fired", "alert", "audit"),
)
"""Every record of the log, in the order of a job's life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """All schemas of one record."""

    name: str
    """One of `NAMES`."""
    current: Schema
    """What readers resolve to."""
    brief: Schema | None
    """The short form that is written when the last fields hold their defaults."""
    written: dict[bytes, Schema]
    """Every schema ever written, by fingerprint (CRC-64-AVRO, 8 bytes, little-endian)."""


def root() -> Traversable:
    """The folder of the schemas: inside the package when installed from a wheel, else at the top of the checkout."""
    packaged = files("processor") / "schemas"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "schemas"


def fingerprint(schema: Schema | str) -> bytes:
    """CRC-64-AVRO of the schema's parsing canonical form: 8 bytes, little-endian, as single-object encoding has it."""
    from fastavro.schema import fingerprint as digest
    from fastavro.schema import to_parsing_canonical_form

    # fastavro prints the fingerprint's bytes in little-endian order already; a test holds it to the vector of the spec.
    return bytes.fromhex(digest(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def read(source: Traversable) -> Schema:
    """Parse one schema file."""
    from fastavro import parse_schema

    parsed = parse_schema(json.loads(source.read_text("utf-8")))
    assert isinstance(parsed, dict)
    return parsed


@cache
def load(name: str) -> Published:
    """All schemas of the record `name`, one of `NAMES`."""
    folder = root()
    brief = folder / "brief" / f"{name}.avsc"
    history = sorted((folder / "history" / name).iterdir(), key=lambda file: file.name)
    return Published(
        name=name,
        current=read(folder / f"{name}.avsc"),
        brief=read(brief) if brief.is_file() else None,
        written={fingerprint(schema): schema for schema in map(read, history)},
    )
