"""What the expression of a constraint gives away about the values it accepts.

Pure. The constants of a CHECK, their neighbours, texts that match its patterns and values of the
lengths it names are only suggestions: PostgreSQL judges them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from random import Random

from dbops.rows.pattern import matching
from dbops.values import Type, array, limit, precision, sized

_TOKEN = re.compile(r"""\"(?:[^"]|"")*\"|'((?:[^']|'')*)'|(?<![\w.])(\d+(?:\.\d+)?(?:e[+-]?\d+)?)""")
_OID = re.compile(r"'\d+'::oid")  # a partition's, which differs from one database to the next
_NAME = r'(?:[\w.]+|"(?:[^"]|"")+")'
_SIZE_OF = re.compile(
    rf"(?:{_NAME}\.)?(?:vector_dims|length|char_length|character_length|octet_length|cardinality"
    rf"|array_length|jsonb_array_length|json_array_length)\(+({_NAME})\)*(?:::[\w ]+)?(?:, 1)?\)+"
)
_INTEGERS = {"int2": 16, "int4": 32, "int8": 64}
_NUMBERS = {*_INTEGERS, "numeric", "float4", "float8"}
_STAMPS = {"date", "timestamp", "timestamptz"}
_STRINGS = {"text", "varchar", "bpchar", "name", "citext"}


@dataclass(frozen=True)
class Constants:
    """The literals of an expression."""

    texts: tuple[str, ...] = ()
    numbers: tuple[Decimal, ...] = ()


def constants(expressions: Iterable[str]) -> Constants:
    """The string and number literals in expressions as PostgreSQL prints them, in their order."""
    texts: dict[str, None] = {}
    numbers: dict[Decimal, None] = {}
    for match in (found for text in expressions for found in _TOKEN.finditer(_OID.sub("", text))):
        literal, number = match.groups()
        if literal is not None:
            texts[literal.replace("''", "'")] = None
        value = _decimal(number if literal is None else literal)
        if value is not None:
            numbers[value] = None
    return Constants(tuple(texts), tuple(sorted(numbers)))


def _decimal(text: str | None) -> Decimal | None:
    try:
        value = Decimal(text or "-")
    except InvalidOperation:
        return None
    return value if value.is_finite() and abs(value) < Decimal("1e30") else None


def size_links(expression: str) -> list[tuple[str, str]]:
    """Pairs (column, column with its size), of `vector_dims(embedding) = dimensions` and its like."""
    links = []
    for match in _SIZE_OF.finditer(expression):
        after = re.match(rf"\s*[<>]?=\s*\(?({_NAME})", expression[match.end() :])
        before = re.search(rf"({_NAME})\)?\s*[<>]?=\s*\(*$", expression[: match.start()])
        links += [(match[1], other[1]) for other in (after, before) if other]
    return [(_bare(column), _bare(size)) for column, size in links]


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


# --- suggestions ---------------------------------------------------------------------------------


def suggestions(kind: Type, found: Constants, rng: Random) -> list[str]:
    """Values of the type that the constants speak for, without repeats. Most are near a boundary."""
    if kind.kind in ("domain", "array") and kind.inner is not None:
        inner = suggestions(kind.inner, found, rng)
        return inner if kind.kind == "domain" else _array_suggestions(kind, inner, found, rng)
    if kind.kind == "enum":
        values: Iterable[str] = (text for text in found.texts if text in kind.labels)
    elif kind.name in _NUMBERS:
        values = _number_suggestions(kind, found)
    elif kind.name in _STAMPS:
        values = _stamp_suggestions(kind, found)
    elif kind.name in _STRINGS:
        values = _text_suggestions(kind, found, rng)
    elif kind.name in ("json", "jsonb"):
        values = (*_json_suggestions(found), *_of_sizes(kind, found, rng))
    else:
        values = (*found.texts, *_of_sizes(kind, found, rng))
    return list(dict.fromkeys(values))


def _of_sizes(kind: Type, found: Constants, rng: Random) -> Iterator[str]:
    whole = {int(n) + step for n in found.numbers if n == n.to_integral_value() for step in (0, -1, 1)}
    for size in sorted(whole):
        for _ in range(3 if size else 1):
            value = sized(kind, size, rng)
            if value is not None:
                yield value


def _array_suggestions(kind: Type, inner: list[str], found: Constants, rng: Random) -> list[str]:
    assert kind.inner is not None
    arrays = [text for text in found.texts if text.startswith("{")]
    arrays += [array(kind.inner, [value]) for value in inner]
    arrays += [array(kind.inner, inner[:2]), array(kind.inner, inner)] if inner else []
    return [*arrays, *_of_sizes(kind, found, rng)]


def _number_suggestions(kind: Type, found: Constants) -> Iterator[str]:
    near = [n + step for n in found.numbers for step in (Decimal(0), Decimal(1), Decimal(-1))]
    between = [(low + high) / 2 for low, high in pairwise(found.numbers)]
    steps = [low + (high - low) * k / 7 for low, high in pairwise(found.numbers) for k in range(1, 7)]
    for value in (*near, *between, *steps, *(n * 2 for n in found.numbers)):
        if kind.name in _INTEGERS:
            if abs(value) < 2 ** (_INTEGERS[kind.name] - 1):
                yield str(int(value))
        elif _fits(kind, value):
            yield f"{round(value, 6).normalize():f}"


def _fits(kind: Type, value: Decimal) -> bool:
    limits = precision(kind) if kind.name == "numeric" else None
    return limits is None or abs(value) < Decimal(10) ** (limits[0] - limits[1])


def _stamp_suggestions(kind: Type, found: Constants) -> Iterator[str]:
    stamps = sorted(filter(None, map(_stamp, found.texts)))
    steps = (timedelta(0), timedelta(days=1), timedelta(days=-1), timedelta(seconds=1))
    moments = [stamp + step for stamp in stamps for step in steps]
    moments += [low + (high - low) * k / 7 for low, high in pairwise(stamps) for k in range(1, 7)]
    zone = "+00" if kind.name == "timestamptz" else ""
    for moment in moments:
        yield f"{moment:%Y-%m-%d}" if kind.name == "date" else f"{moment}{zone}"


def _stamp(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None
    return moment if 1000 < moment.year < 9000 else None  # steps beside it stay in range


def _text_suggestions(kind: Type, found: Constants, rng: Random) -> Iterator[str]:
    most = limit(kind)
    for value in _texts(found, rng):
        if most is None or len(value) <= most:
            yield value
    yield from _of_sizes(kind, found, rng)


def _texts(found: Constants, rng: Random) -> Iterator[str]:
    for text in found.texts:
        yield text
        if "%" in text or "_" in text:
            for filler in ("x", "7", "xyz"):
                yield text.replace("%", filler).replace("_", filler[0])
        if set(text) & set("^$[\\({.+*?|"):
            yield from filter(None, (matching(text, rng) for _ in range(24)))


def _json_suggestions(found: Constants) -> Iterator[str]:
    words = [text for text in found.texts if text and not text.startswith(("{", "["))][:6]
    yield from (text for text in found.texts if _is_json(text))
    samples: tuple[object, ...] = ("x", 1, True, {}, [])
    for value in samples:
        yield json.dumps(dict.fromkeys(words, value), ensure_ascii=False)
        yield from (json.dumps({word: value}, ensure_ascii=False) for word in words)
    yield from (json.dumps({a: b}, ensure_ascii=False) for a in words for b in words if a != b)
    yield from (json.dumps(word, ensure_ascii=False) for word in words)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
