"""Whether data travels unchanged: a value beside what comes back of its JSON. Pure.

JSON and pydantic change much in silence: a secret arrives as asterisks, a subclass as its base class, an excluded field
as its default, `nan` as null, a `str` that looks like a UUID as one. So what was read back is compared with what was
given, part by part, and the first part that differs is named.

Equal is what means the same: 1 and 1.0, a `datetime` and the same moment with the offset instead of the zone's name, a
subclass of `str` or `float` with the same value. Different is what a program would notice: True and 1, another class, a
missing field, a `time` without its zone, the second of two equal hours when the clocks go back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import zip_longest
from typing import Any

from pydantic import BaseModel

from processor.texts import name_of_class, shown

_MISSING = object()
_EXACT = (str, bytes, int)


def difference(given: object, back: object, path: str = "") -> str | None:
    """Where and how what came back differs from what was given; None: nowhere. `path` of the value, for the text."""
    if given is back and not isinstance(given, float):
        return None
    if type(given) in _EXACT and type(back) is type(given):
        return None if given == back else _told(given, back, path)
    if hasattr(given, "get_secret_value"):
        return f"{_at(path)} is a secret: it would be written as asterisks"
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        return _dataclasses(given, back, path)
    for kinds, compare in _WAYS:
        if isinstance(given, kinds):
            found: str | None = compare(given, back, path)
            return found
    if type(given) is not type(back):
        return _told(given, back, path)
    if type(given).__eq__ is object.__eq__:
        return None  # without an equality of its own only the JSON could tell, and that was compared
    return None if given == back else _told(given, back, path)


def unfaithful(value: object, path: str = "") -> str | None:
    """What of a value JSON would change, without a model to read it back: secrets, `nan`, half surrogate pairs, fields
    that are left out, keys that are no text.
    """
    if hasattr(value, "get_secret_value"):
        return f"{_at(path)} is a secret: it would be written as asterisks"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{_at(path)} is {value!r}, which JSON does not have"
    if isinstance(value, str):
        return None if _is_text(value) else f"{_at(path)} holds half a surrogate pair"
    if isinstance(value, BaseModel):
        left_out = [name for name, field in type(value).model_fields.items() if field.exclude]
        if left_out:
            return f"{_at(_join(path, left_out[0]))} is excluded from {name_of_class(type(value))}"
        return _first(unfaithful(getattr(value, name), _join(path, name)) for name in _names(value))
    if dataclasses.is_dataclass(value):
        fields: tuple[Any, ...] = dataclasses.fields(value)
        names = [field.name for field in fields]
        return _first(unfaithful(getattr(value, name), _join(path, name)) for name in names)
    if isinstance(value, Mapping):
        odd = next((key for key in value if not isinstance(key, str) or not _is_text(key)), None)
        if odd is not None:
            return f"{_at(path)} has the key {shown(odd, 60)}, and keys in JSON are text"
        return _first(unfaithful(each, _join(path, key)) for key, each in value.items())
    if isinstance(value, Sequence | Set) and not isinstance(value, bytes | bytearray | memoryview):
        return _first(unfaithful(each, f"{path}[{place}]") for place, each in enumerate(value))
    return None


def _models(given: BaseModel, back: object, path: str) -> str | None:
    if type(given) is not type(back):
        return _told(given, back, path)
    for name in _names(given):
        found = difference(getattr(given, name), getattr(back, name, _MISSING), _join(path, name))
        if found is not None:
            return found
    return None


def _dataclasses(given: Any, back: object, path: str) -> str | None:
    if type(back) is not type(given):
        return _told(given, back, path)
    pairs = ((name, getattr(given, name), getattr(back, name, _MISSING)) for name in _fields_of(given))
    return _first(difference(mine, theirs, _join(path, name)) for name, mine, theirs in pairs)


def _mappings(given: Mapping[Any, Any], back: object, path: str) -> str | None:
    if not isinstance(back, Mapping) or len(given) != len(back):
        return _told(given, back, path)
    for (key, mine), (other, theirs) in zip(given.items(), back.items(), strict=True):
        found = difference(key, other, f"the key {shown(key, 60)} of {_at(path)}")
        found = found or difference(mine, theirs, _join(path, shown(key, 60) if not isinstance(key, str) else key))
        if found is not None:
            return found
    return None


def _sequences(given: Sequence[Any], back: object, path: str) -> str | None:
    kind = tuple if isinstance(given, tuple) else list if isinstance(given, list) else type(given)
    if not isinstance(back, kind) or (_is_named(given) and type(given) is not type(back)):
        return _told(given, back, path)
    pairs = enumerate(zip_longest(given, back, fillvalue=_MISSING))
    return _first(difference(mine, theirs, f"{path}[{place}]") for place, (mine, theirs) in pairs)


def _sets(given: Set[Any], back: object, path: str) -> str | None:
    same = isinstance(back, Set) and {(type(each), each) for each in given} == {(type(each), each) for each in back}
    return None if same else _told(given, back, path)


def _flags(given: bool, back: object, path: str) -> str | None:
    return None if given is back else _told(given, back, path)


def _members(given: Enum, back: object, path: str) -> str | None:
    plain = isinstance(given, str | int) and not isinstance(back, bool | Enum) and given == back
    return None if given is back or plain else _told(given, back, path)


def _numbers(given: float, back: object, path: str) -> str | None:
    same = isinstance(back, int | float) and not isinstance(back, bool) and given == back
    return None if same else _told(given, back, path)


def _strings(given: str, back: object, path: str) -> str | None:
    same = isinstance(back, str) and given == back and (not isinstance(back, Enum) or isinstance(given, Enum))
    return None if same else _told(given, back, path)


def _moments(given: datetime | time, back: object, path: str) -> str | None:
    if not isinstance(back, type(given)) and not isinstance(back, datetime if isinstance(given, datetime) else time):
        return _told(given, back, path)
    assert isinstance(back, datetime | time)
    same = given.isoformat() == back.isoformat() and (given.tzinfo is None) == (back.tzinfo is None)
    if same and given.tzinfo is None and given.fold != back.fold:
        same = False
    return None if same else _told(given, back, path)


def _decimals(given: Decimal, back: object, path: str) -> str | None:
    return None if isinstance(back, Decimal) and str(given) == str(back) else _told(given, back, path)


_WAYS: tuple[tuple[Any, Any], ...] = (
    (BaseModel, _models),
    (bool, _flags),
    (Enum, _members),
    (int | float, _numbers),
    (str, _strings),
    (datetime | time, _moments),
    (date, lambda given, back, path: None if given == back else _told(given, back, path)),
    (Decimal, _decimals),
    (bytes | bytearray, lambda given, back, path: None if given == back else _told(given, back, path)),
    (Mapping, _mappings),
    (Set, _sets),
    (Sequence, _sequences),
)


def _names(model: BaseModel) -> list[str]:
    return [*type(model).model_fields, *(model.__pydantic_extra__ or ())]


def _fields_of(instance: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(instance)]


def _is_named(value: object) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(found: Any) -> str | None:
    return next((each for each in found if each is not None), None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _at(path: str) -> str:
    return f"field {path}" if path and not path.startswith("the key") else path or "it"


def _told(given: object, back: object, path: str) -> str:
    kind = name_of_class(type(given)).removeprefix("builtins.")
    if back is _MISSING:
        return f"{_at(path)} ({shown(given, 80)}, {kind}) does not come back"
    theirs = name_of_class(type(back)).removeprefix("builtins.")
    return f"{_at(path)} ({shown(given, 80)}, {kind}) comes back as {shown(back, 80)} ({theirs})"
