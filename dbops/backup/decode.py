"""From JSON to the frozen values of model.py: every field of the right kind, or a ValueError that names it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

Decoder = Callable[[Any], Any]
_SIGNED = {"last_value"}  # all other whole numbers are counts
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)


def time_text(time: datetime) -> str:
    """A time as the format writes it: 2025-01-01T12:00:00.123456Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def decoder(kind: Any) -> Decoder:
    """The function that turns a JSON value into a `kind`: a type of model.py's fields or one of its dataclasses."""
    return _decoder(kind)


@cache
def _decoder(kind: Any) -> Decoder:
    simple: dict[Any, Decoder] = {str: _text, int: _count, float: _amount, bool: _flag, datetime: _time}
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in simple:
        return simple[kind]
    if is_dataclass(kind):
        return _record(kind)
    if origin is Literal:
        return lambda value: _one_of(value, arguments)
    if origin is UnionType:  # only `X | None` occurs
        inner = decoder(next(each for each in arguments if each is not NoneType))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        inner = decoder(arguments[0])
        return lambda value: tuple(map(inner, _instance(value, list, "a list")))
    if origin is dict:
        inner = decoder(arguments[1])
        return lambda value: {name: inner(each) for name, each in _instance(value, dict, "an object").items()}
    raise TypeError(f"no field of a manifest can be a {kind}")


def _record(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    needed = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}
    decoders = {each.name: _number if each.name in _SIGNED else decoder(hints[each.name]) for each in fields(kind)}

    def decode(value: Any) -> Any:
        given = _instance(value, dict, "an object")
        if missing := needed - given.keys():
            raise ValueError(f"{min(missing)} is missing")
        values = {}
        for name, field in decoders.items():  # keys that we do not know were added later
            if name in given:
                try:
                    values[name] = field(given[name])
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        return kind(**values)

    return decode


def _instance(value: Any, kind: type, words: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{str(value)[:80]!r} is not {words}")
    return value


def _text(value: Any) -> str:
    text: str = _instance(value, str, "a text")
    if "\0" in text:
        raise ValueError("a NUL in a text")
    return text


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise ValueError(f"{str(value)[:80]!r} is not a whole number of 64 bits")
    return value


def _count(value: Any) -> int:
    if _number(value) < 0:
        raise ValueError(f"{value} is negative")
    return int(value)


def _amount(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"{str(value)[:80]!r} is not a number from 0 on")
    return float(value)


def _flag(value: Any) -> bool:
    return bool(_instance(value, bool, "true or false"))


def _time(value: Any) -> datetime:
    if not _TIME.fullmatch(_text(value)):
        raise ValueError(f"{value[:80]!r} is not a time in UTC such as 2025-01-01T12:00:00Z")
    return datetime.fromisoformat(value)


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{str(value)[:80]!r} is none of {', '.join(allowed)}")
    return value
