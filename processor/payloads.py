"""Payloads as they travel: JSON of a model, checked on the way in and on the way out, upgraded if it is old."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Set
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from processor.callables import refuse_awaitable
from processor.errors import DefinitionError, NewerRecord, PayloadInvalid, PayloadTooLarge
from processor.fidelity import unwritable
from processor.texts import message_of, shown
from processor.typed_json import NotYetDefined, TypedJson, Unfaithful

P = TypeVar("P")

_PLAIN = frozenset({str, int, float, bool, type(None)})

_TOLD = 5
"""How many of a payload's faults an error names."""

Upgrade = Callable[[dict[str, Any]], Any]
"""From the JSON of one version to the model, or to the JSON of the next version."""


class PayloadCodec(Generic[P]):
    """The payload of one job type. `model` None: it takes none, and its payload is empty.

    Raises:
        DefinitionError: the model cannot be read from JSON, or the version is below 1. A model that names a class which
            is defined further down in its module is looked at later.
    """

    def __init__(self, job_type: str, model: Any, version: int) -> None:
        if not is_version(version):
            raise DefinitionError(f"job type {job_type}: version {shown(version, 60)}", hint="versions count from 1")
        self._job_type = job_type
        self._version = version
        self._upgrades: dict[int, Upgrade] = {}
        self._model = model
        self._known: TypedJson | None = None
        with contextlib.suppress(NotYetDefined):
            self.check()

    def check(self) -> None:
        """See that the model is complete.

        Raises:
            DefinitionError: it is not, or cannot be read from JSON.
        """
        if self._model is not None:
            self._json()

    def _json(self) -> TypedJson:
        if self._known is None:
            self._known = TypedJson(self._model, f"payload of job type {self._job_type}", given=True)
        return self._known

    @property
    def takes_payload(self) -> bool:
        """Whether the handler gets one."""
        return self._model is not None

    def add_upgrade(self, version: int, upgrade: Upgrade) -> None:
        """Read payloads of `version` through `upgrade`.

        Raises:
            DefinitionError: there is one already, or that version is not an old one.
        """
        if not 1 <= version < self._version:
            raise DefinitionError(
                f"job type {self._job_type} has version {self._version}: nothing to upgrade from version {version}",
                hint="give the job type version=<old + 1> and register an upgrade for each older version",
            )
        if version in self._upgrades:
            raise DefinitionError(f"job type {self._job_type}: two upgrades from version {version}")
        self._upgrades[version] = upgrade

    def checked(self, value: object) -> P:
        """The payload of `value`: an instance, or data that the model accepts (a dict).

        Raises:
            PayloadInvalid: the model refuses it.
        """
        if self._model is None:
            if value is None:
                return cast("P", None)
            raise PayloadInvalid(f"job type {self._job_type} takes no payload", hint="leave the payload out")
        try:
            payload: P = self._json().check(value)
        except ValidationError as error:
            raise self._refused(_said(error)) from None  # it says all that pydantic's own says, in one line
        return payload

    def encode(self, payload: P, max_bytes: int) -> bytes:
        """JSON of a payload, as a worker will accept it.

        Raises:
            PayloadInvalid: it is not what the model says.
            PayloadTooLarge: it is longer than `max_bytes`.
        """
        if self._model is None:
            self.checked(payload)
            return b""
        try:
            data = (self._known or self._json()).encode(payload)
        except Unfaithful as error:
            raise self._another_type(payload) or self._refused(str(error)) from None
        return sized(data, self._job_type, max_bytes)

    def decode(self, data: bytes, version: int) -> P:
        """The payload of a record, upgraded to the current version.

        Raises:
            PayloadInvalid: the model or an upgrade refuses it.
            NewerRecord: written by newer code.
        """
        if version > self._version:
            raise NewerRecord(
                f"job type {self._job_type}: the payload has version {version}, this code knows {self._version}",
                hint="deploy the new code to all workers; the job waits for it",
            )
        if self._model is None:
            return cast("P", None)
        try:
            if version == self._version:
                payload: P = (self._known or self._json()).load(data)
            else:
                payload = self._json().check(self._upgraded(data, version))
        except ValueError as error:  # pydantic's ValidationError and json's are ValueErrors
            raise self._refused(_said(error)) from error
        return payload

    def _upgraded(self, data: bytes, version: int) -> object:
        value: Any = json.loads(data)
        while version < self._version and isinstance(value, dict):
            upgrade = self._upgrades.get(version)
            if upgrade is None:
                raise PayloadInvalid(
                    f"job type {self._job_type}: no way from version {version} to {self._version}",
                    hint=f"register a function with @{self._job_type}.upgrade({version})",
                )
            try:
                value = upgrade(value)
                refuse_awaitable(value, "it", hint="make it a def")
            except Exception as error:
                raise self._refused(
                    f"the upgrade from version {version} failed: {type(error).__name__}: {error}"
                ) from error
            version += 1
        return value

    def _another_type(self, payload: object) -> PayloadInvalid | None:
        """Of plain data given for a model: what to write instead; None: it is of the model's type."""
        model = self._model
        if not isinstance(model, type) or isinstance(payload, model):
            return None
        return PayloadInvalid(
            f"job type {self._job_type} takes an instance of {model.__name__}, not of {type(payload).__name__}",
            hint=f"write {model.__name__}(...); app.enqueue({self._job_type!r}, ...) takes plain data and checks it",
        )

    def _refused(self, why: str) -> PayloadInvalid:
        return PayloadInvalid(
            f"job type {self._job_type}: the payload is refused: {why}", hint="send what the payload's model describes"
        )


def is_version(version: object) -> bool:
    """Whether it can be the version of a payload."""
    return type(version) is int and 1 <= version < 2**31


def encode_untyped(payload: object, job_type: str, max_bytes: int) -> bytes:
    """JSON of a payload whose model is not known here: what JSON can hold, dates, UUIDs and pydantic models.

    Raises:
        PayloadInvalid: it does not survive the way; the place is named.
        PayloadTooLarge: it is longer than `max_bytes`.
    """
    try:
        fault = unwritable(payload)
        data = b"" if fault else to_json(_as_json(payload, ""))
        from_json(data or b"0")  # refuses numbers that no reader would take
    except (Unfaithful, DefinitionError, PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        fault, data = message_of(error), b""
    if fault:
        raise PayloadInvalid(
            f"job type {job_type}: the payload cannot be sent as it is: {fault}",
            hint="send plain JSON values, dates, UUIDs, or pydantic models",
        )
    return sized(data, job_type, max_bytes)


def _as_json(value: object, path: str) -> object:
    """A value as JSON has it. What is no JSON is written as its own type does it: a date, a UUID, a model.

    Raises:
        Unfaithful: it would not come back through that type.
        DefinitionError: that type has no JSON.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        odd = next((key for key in value if not isinstance(key, str)), None)
        if odd is not None:
            raise Unfaithful(f"{path or 'it'} has the key {shown(odd, 60)}, and keys in JSON are text")
        return {key: _as_json(each, f"{path}.{key}" if path else f"field {key}") for key, each in value.items()}
    if isinstance(value, list | tuple | Set):
        return [_as_json(each, f"{path or 'it'}[{place}]") for place, each in enumerate(value)]
    try:
        return from_json(TypedJson(type(value), "its type").encode(value))
    except (Unfaithful, DefinitionError) as error:
        raise Unfaithful(f"{path or 'it'}: {message_of(error, 500)}") from error


def sized(data: bytes, job_type: str, max_bytes: int) -> bytes:
    """`data`, if it is not too long.

    Raises:
        PayloadTooLarge: it is.
    """
    if len(data) > max_bytes:
        raise PayloadTooLarge(
            f"job type {job_type}: the payload takes {len(data):,} bytes, {max_bytes:,} are allowed",
            hint="put the data into a file, bucket or table and send its name; or raise payload_max_bytes",
        )
    return data


def _said(error: ValueError) -> str:
    """What is wrong in one line, by the names of the fields: it stands in lists and logs, without the values."""
    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = [": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in problems[:_TOLD]]
    if len(problems) > _TOLD:
        told.append(f"and {len(problems) - _TOLD:,} more")
    return "; ".join(told)
