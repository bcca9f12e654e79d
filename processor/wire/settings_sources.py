"""Where settings come from, and how the sources are merged. See `wire.settings` for the catalogue."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError

from processor.errors import SettingsError
from processor.wire.durations import format_duration
from processor.wire.settings import GROUPS, Settings, format_size

PREFIX = "PROCESSOR_"
TOML_FILE = "processor.toml"
DOTENV_FILE = ".env"
NOT_SETTINGS = re.compile(r"APP|DEBUG|OUTBOX_DATABASE|TEST_\w+")
"""What may follow the prefix in the environment without being a setting: options of the command line and of tests."""
OF_KUBERNETES = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""What Kubernetes sets in every pod for a Service called `processor`, or `processor-` and more."""

_FREE_TABLE = "kafka.client."


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One setting, its value, and where that came from."""

    name: str
    """Dotted, as in `worker.linger`."""
    value: str
    """As text; secrets are masked."""
    origin: str
    """`default`, `processor.toml`, `.env`, the environment variable's name, or `argument`."""
    help: str
    unit: str
    default: str


@dataclass(frozen=True, slots=True)
class _Given:
    """A value somebody gave."""

    value: Any
    origin: str


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    toml_path: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    dotenv_path: str | Path | None = None,
) -> Settings:
    """Merge all sources: `overrides`, the environment, `.env`, `processor.toml`, the defaults.

    Args:
        overrides: flags and arguments, `{"worker.linger": "10ms"}` or nested; values of None count as not given.
        toml_path: the file to read, which must exist; None: `processor.toml` of the working directory, if it is there.
        env: the environment; None: that of the process, and `.env` of the working directory.
        dotenv_path: a `.env` file to read in any case, which must exist.

    Raises:
        SettingsError: a name is unknown (the nearest known one is given), a value is wrong, or a file cannot be read.
    """
    given: dict[str, _Given] = {}
    for source in (
        _from_toml(toml_path),
        _from_env(_dotenv(dotenv_path, env is None), dotenv=True),
        _from_env(os.environ if env is None else env, dotenv=False),
        _from_arguments(overrides or {}),
    ):
        given.update(_read_secret_files(source))
    nested: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        _check_known(name, value.origin)
        group, _, field = name.partition(".")
        table = nested.setdefault(group, {})
        if name.startswith(_FREE_TABLE):
            table.setdefault("client", {})[name.removeprefix(_FREE_TABLE)] = value.value
        elif name == _FREE_TABLE[:-1]:
            raise SettingsError(
                f"{name} (from {value.origin}) is a table, not one value", hint=f"set {name}.PROPERTY, one by one"
            )
        else:
            table[field] = value.value
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        raise _wrong(error, given) from None
    settings._origins.update({name: value.origin for name, value in given.items()})
    return settings


def origins(settings: Settings) -> list[Origin]:
    """Every setting with its value and where it came from, in the order of the catalogue."""
    rows = []
    for name, info in _fields():
        group, _, field = name.partition(".")
        if name == "kafka.client":
            rows += _client_origins(settings, info.description or "")
        else:
            rows.append(
                Origin(
                    name=name,
                    value=_text(getattr(getattr(settings, group), field), unit_of(info)),
                    origin=settings._origins.get(name, "default"),
                    help=info.description or "",
                    unit=unit_of(info),
                    default=_text(info.default, unit_of(info)),
                )
            )
    return rows


def known_names() -> list[str]:
    """Every setting's dotted name."""
    return [name for name, _ in _fields()]


def unit_of(info: Any) -> str:
    """The unit of a field of the catalogue; empty if it has none."""
    extra = info.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _fields() -> Iterator[tuple[str, Any]]:
    for group, model in GROUPS.items():
        for field, info in model.model_fields.items():
            yield f"{group}.{field}", info


def _client_origins(settings: Settings, help_: str) -> list[Origin]:
    return [
        Origin(
            name=_FREE_TABLE + name,
            # A pass-through property may well hold a secret (ssl.key.pem, sasl.oauthbearer.client.secret).
            value="**********" if _looks_secret(name) else _text(value),
            origin=settings._origins.get(_FREE_TABLE + name, "argument"),
            help=help_,
            unit="",
            default="",
        )
        for name, value in settings.kafka.client.items()
    ]


def _looks_secret(name: str) -> bool:
    return any(word in name for word in ("password", "secret", ".pem", "token", "key.p"))


def _text(value: Any, unit: str = "") -> str:
    if value is None:
        return ""
    if unit == "seconds" and isinstance(value, float):
        return format_duration(value)
    if unit == "bytes" and isinstance(value, int):
        return format_size(value)
    if isinstance(value, SecretStr):
        return "**********"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _flatten(table: Mapping[str, Any], origin: str, prefix: str = "") -> dict[str, _Given]:
    flat: dict[str, _Given] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(_flatten(value, origin, f"{name}."))
        else:
            flat[name] = _Given(value, origin)
    return flat


def _from_arguments(overrides: Mapping[str, Any]) -> dict[str, _Given]:
    return {name: value for name, value in _flatten(overrides, "argument").items() if value.value is not None}


def _from_toml(path: str | Path | None) -> dict[str, _Given]:
    file = Path(TOML_FILE if path is None else path)
    if path is None and not file.is_file():
        return {}
    try:
        return _flatten(tomllib.loads(_text_of(file)), str(file))
    except ValueError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from error


def _dotenv(path: str | Path | None, look: bool) -> dict[str, str]:
    if path is None and not look:
        return {}
    file = Path(path or DOTENV_FILE)
    if path is None and not file.is_file():
        return {}
    # A name without "=" has no value (None): it sets nothing.
    read = dotenv_values(stream=StringIO(_text_of(file)), interpolate=False)
    return {name: value for name, value in read.items() if value is not None}


def _from_env(variables: Mapping[str, str], *, dotenv: bool) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for variable, value in variables.items():
        rest = variable.removeprefix(PREFIX)
        if rest == variable or NOT_SETTINGS.fullmatch(rest):
            continue
        if "__" not in rest and OF_KUBERNETES.fullmatch(rest):
            continue
        group, _, field = rest.lower().partition("__")
        field, deeper, rdkafka_name = field.partition("__")
        name = f"{group}.{field}"
        if deeper:
            # The environment cannot hold dots, and no librdkafka property has an underscore.
            name += "." + rdkafka_name.replace("_", ".")
        given[name] = _Given(value, f"{DOTENV_FILE} {variable}" if dotenv else variable)
    return given


def _text_of(file: Path, what: str = "") -> str:
    """The text of a file. `what` it is for begins the message of the error.

    Raises:
        SettingsError: it cannot be read, or is no text.
    """
    try:
        return file.read_text("utf-8-sig")  # some editors begin a file with a mark of its encoding
    except UnicodeDecodeError as error:
        raise SettingsError(f"{what}{file} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise SettingsError(f"{what}{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read_secret_files(given: dict[str, _Given]) -> dict[str, _Given]:
    """`sasl_password_file` and its like: the secret is the file's text, without the newline at its end."""
    read: dict[str, _Given] = {}
    for name, value in given.items():
        secret = name.removesuffix("_file")
        if secret == name or name in known_names() or secret not in known_names():
            read[name] = value
            continue
        text = _text_of(Path(str(value.value)), f"{name} ({value.origin}): ")
        read[secret] = _Given(text.rstrip("\r\n"), f"{value.origin} ({value.value})")
    return read


def _check_known(name: str, origin: str) -> None:
    known = known_names()
    if name in known or name.startswith(_FREE_TABLE):
        return
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    raise SettingsError(
        f"unknown setting {name} (from {origin})",
        hint=f"did you mean {near[0]}?" if near else "processor config show lists all settings",
    )


def _wrong(error: ValidationError, given: Mapping[str, _Given]) -> SettingsError:
    """All wrong values in one message."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"][:2])
        if f"{name}." == _FREE_TABLE and len(problem["loc"]) > 2:
            name = f"{_FREE_TABLE}{problem['loc'][2]}"
        source = given.get(name)
        if name.startswith(_FREE_TABLE):
            # Four complaints, one for each kind of value that it may have, say less than one.
            problem["msg"] = "a librdkafka property is a text, a number, true or false"
        lines.append(f"{name}{f' (from {source.origin})' if source else ''}: {problem['msg']}")
    lines = list(dict.fromkeys(lines))
    return SettingsError(
        "wrong settings: " + "; ".join(lines), hint="processor config show --origin lists all settings"
    )
