"""Values for a column of any type: a few interesting ones, and as many distinct ones as are wanted.

Pure: no server, no clock. A value is text in the form that PostgreSQL reads for the type, so that
`CAST('…' AS type)` makes it. Whoever uses a value lets the server have the last word on it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from dbops.values.base import (
    BASE,
    TEXTS,
    Kind,
    Type,
    base,
    dense,
    hexadecimal,
    limit,
    moment,
    numerics,
    precision,
    sparse,
)

__all__ = [
    "TEXTS",
    "Kind",
    "Pool",
    "Type",
    "array",
    "certain",
    "extreme",
    "finite",
    "fresh",
    "interesting",
    "limit",
    "precision",
    "record",
    "sized",
]

# --- any type ------------------------------------------------------------------------------------


def certain(kind: Type) -> bool:
    """Whether every proposed value is sure to be read by the server; else ask it first."""
    if kind.kind in ("base", "enum"):
        return kind.kind == "enum" or (kind.name in BASE and kind.name != "xml")
    inner = (kind.inner,) if kind.inner else ()
    return kind.kind != "domain" and all(map(certain, (*inner, *kind.fields)))


def finite(kind: Type) -> bool:
    """Whether the type has few values, each of which some row should show: enums and booleans."""
    return (
        kind.kind == "enum"
        or kind.name == "bool"
        or (kind.kind == "domain" and kind.inner is not None and finite(kind.inner))
    )


def interesting(kind: Type) -> tuple[str, ...]:
    """The values that find faults: edges, empties, quotes, unicode. The plainest comes first."""
    if kind.labels:
        return kind.labels
    match kind.kind:
        case "array":
            return _arrays(_inner(kind))
        case "range":
            return (*(_range(_inner(kind), Random(i)) for i in range(3)), "empty")
        case "multirange":
            return ("{}", *(f"{{{value}}}" for value in interesting(_inner(kind))))
        case "domain":
            return interesting(_inner(kind))
        case "composite":
            return tuple(_record(kind, i) for i in range(3))
    return _interesting_base(kind)


def _interesting_base(kind: Type) -> tuple[str, ...]:
    if kind.name == "numeric":
        return numerics(kind)
    known, make = base(kind)
    if not known:
        return tuple(make(kind, Random(i)) for i in range(3))
    most = limit(kind)
    return known if most is None else tuple(dict.fromkeys(value[:most] for value in known))


def extreme(kind: Type, value: str) -> bool:
    """Whether the value is the least or greatest integer of its type: adding to it is an error."""
    bits = {"int2": 15, "int4": 31, "int8": 63}.get(kind.name)
    return bits is not None and value in (str(2**bits - 1), str(-(2**bits)))


def fresh(kind: Type, rng: Random) -> str:
    """A value drawn from as many as the type has (an enum: one of its labels)."""
    if kind.labels:
        return rng.choice(kind.labels)
    match kind.kind:
        case "array":
            return array(_inner(kind), [fresh(_inner(kind), rng) for _ in range(rng.randint(1, 3))])
        case "range":
            return _range(_inner(kind), rng)
        case "multirange":
            return f"{{{fresh(_inner(kind), rng)}}}"
        case "domain":
            return fresh(_inner(kind), rng)
        case "composite":
            return record([fresh(field, rng) for field in kind.fields])
    return base(kind)[1](kind, rng)


def sized(kind: Type, size: int, rng: Random) -> str | None:
    """A value with `size` characters, bytes, elements or dimensions; None where it can't have that."""
    most = limit(kind)
    if not 0 <= size <= 20_000 or (most is not None and size > most):
        return None
    if kind.kind == "array":
        return array(_inner(kind), [fresh(_inner(kind), rng) for _ in range(size)])
    if kind.kind == "domain":
        return sized(_inner(kind), size, rng)
    return _sized_base(kind, size, rng)


def _sized_base(kind: Type, size: int, rng: Random) -> str | None:
    match kind.name:
        case "vector" | "halfvec":
            return dense(rng, size) if size else None
        case "sparsevec":
            return sparse(rng, size) if size else None
        case "bytea":
            return "\\x" + hexadecimal(rng, size)
        case "varbit":
            return "".join(rng.choice("01") for _ in range(size))
        case "json" | "jsonb":
            return json.dumps(list(range(size)))
    if base(kind) is not BASE["text"] and kind.name not in ("varchar", "bpchar"):
        return None
    alphabet = rng.choice((string.ascii_lowercase, string.ascii_uppercase, string.digits))
    return "".join(rng.choice(alphabet) for _ in range(size))


def _inner(kind: Type) -> Type:
    assert kind.inner is not None, f"{kind.kind} type {kind.name} has no inner type"
    return kind.inner


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array(element: Type, values: Sequence[str | None]) -> str:
    """An array's text; None becomes NULL."""
    mark = ";" if element.name == "box" else ","
    return "{" + mark.join("NULL" if value is None else _quoted(value) for value in values) + "}"


def record(values: Iterable[str | None]) -> str:
    """A composite value's text; None becomes NULL."""
    return "(" + ",".join("" if value is None else _quoted(value) for value in values) + ")"


def _arrays(element: Type) -> tuple[str, ...]:
    known = interesting(element)
    singles = tuple(array(element, [value]) for value in known[:12])
    return (array(element, known[:2]), "{}", *singles, array(element, [known[0], None]))


def _record(kind: Type, turn: int) -> str:
    known = [interesting(field) for field in kind.fields]
    return record(values[turn % len(values)] for values in known)


def _range(subtype: Type, rng: Random) -> str:
    low, high = _ends(subtype, rng)
    return f"[{_quoted(low)},{_quoted(high)})"


def _ends(subtype: Type, rng: Random) -> tuple[str, str]:
    """Two values in order, close to each other: an exclusion constraint leaves room for many."""
    if subtype.name in ("int2", "int4", "int8", "numeric", "float4", "float8"):
        number = rng.randrange(30_000) if subtype.name == "int2" else rng.randrange(10**9)
        return str(number), str(number + rng.randint(1, 9))
    if subtype.name in ("date", "timestamp", "timestamptz"):
        start = moment(rng)
        form = "%Y-%m-%d" if subtype.name == "date" else "%Y-%m-%d %H:%M:%S"
        return f"{start:{form}}", f"{start + timedelta(days=rng.randint(1, 3)):{form}}"
    low, high = sorted((fresh(subtype, rng), fresh(subtype, rng)))
    return low, high


# --- a column's supply ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """What to draw a column's values from: `known` ones, and new ones of `source` where it is given."""

    known: tuple[str, ...]
    source: Type | None = None

    def draw(self, rng: Random) -> str:
        """One value; raises IndexError where there is none at all."""
        if self.source is not None and (not self.known or rng.random() < 0.5):
            return fresh(self.source, rng)
        return rng.choice(self.known)

    @property
    def closed(self) -> bool:
        """Whether `known` is all there is."""
        return self.source is None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return self.source is None and not self.known
