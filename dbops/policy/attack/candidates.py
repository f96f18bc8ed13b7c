"""Values that a predicate may ask of a column: its constants, their neighbours, and what else its operators speak for.

Suggestions only: PostgreSQL says of each whether the predicate holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any

from dbops.rows.constants import constants, suggestions
from dbops.values import Type, interesting

MOST = 150
_STEP = r"(?:->>?|#>>?)\s*'(?:[^']|'')*'(?:::text(?:\[\])?)?[\s)]*"
_PATH = re.compile(
    rf"((?:{_STEP})+)(?:::[\w ]+[\s)]*)?(?:(=|>=|<=|<>|>|<|~~\*?)\s*\(*(?:'((?:[^']|'')*)'|(-?[\d.]+)|(true|false)))?",
    re.IGNORECASE,
)
_KEY = re.compile(r"(->>?|#>>?)\s*'((?:[^']|'')*)'")
_LIKE = re.compile(r"~~\*?\s*'((?:[^']|'')*)'")
_MOMENTS = ("now", "today", "yesterday", "tomorrow", "2000-01-01", "2100-01-01")
_TIMES = {"date", "timestamp", "timestamptz"}


def candidates(
    kind: Type, parts: Sequence[str], *, known: Iterable[str | None] = (), moments: Sequence[str] = ()
) -> list[str | None]:
    """Values of the type to try for a column that these parts read, the likelier first.

    `known`: values that the column or its neighbours have; `moments`: the times that intervals lead to.
    """
    base = _base(kind)
    found: list[str | None] = []
    if base.name in ("json", "jsonb"):
        found += _documents(parts)
    if base.name in _TIMES:
        found += [*moments, *_MOMENTS]
    if base.name == "bool":
        found += ["true", "false"]
    found += [text.replace("%", "").replace("_", "x") for part in parts for text in _LIKE.findall(part)]
    found += suggestions(kind, constants(parts), Random(0))
    found += [*constants(parts).texts, None, *known, *interesting(kind)]
    return list(dict.fromkeys(found))[:MOST]


def _base(kind: Type) -> Type:
    while kind.kind == "domain" and kind.inner is not None:
        kind = kind.inner
    return kind


def _documents(parts: Sequence[str]) -> Iterator[str]:
    """JSON objects that have, at every path that the parts read, what they compare it with."""
    asked = [(_keys(path), op, text, number, flag) for part in parts for path, op, text, number, flag in _paths(part)]
    if not asked:
        return
    for shift in (0, 1, -1):
        for parsed in (False, True):
            document: dict[str, Any] = {}
            for keys, op, text, number, flag in asked:
                # a value that is to differ need only be another one
                value = _value(text.replace("''", "'"), number, flag, shift, parsed)
                _put(document, keys, f"{value}x" if op == "<>" else value)
            yield json.dumps(document, ensure_ascii=False)


def _paths(part: str) -> list[tuple[str, str, str, str, str]]:
    return _PATH.findall(part)


def _keys(path: str) -> list[str]:
    found: list[str] = []
    for arrow, key in _KEY.findall(path):
        plain = key.replace("''", "'")
        found += plain.strip("{}").split(",") if arrow.startswith("#") else [plain]
    return found


def _value(text: str, number: str, flag: str, shift: int, parsed: bool) -> Any:
    if number:
        return (float(number) if "." in number else int(number)) + shift
    if flag:
        return flag.lower() == "true"
    if not text:
        return True  # a path on its own is cast to a boolean, or only asked whether it is there
    try:
        return json.loads(text) if parsed else text
    except ValueError:
        return text


def _put(document: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    *way, last = keys
    for key in way:
        inner = document.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        document = inner
    document[last] = value
