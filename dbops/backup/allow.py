"""Which types go in binary: those whose binary form is the same on every server, each with a fixture in the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dbops.backup.hash import Format

# types of PostgreSQL itself, by name. Not here, and so as text: reg* (an OID that means nothing elsewhere), aclitem
# (it has no binary form), xml (its form depends on the client's encoding), and what nobody keeps in tables
_SCALARS = frozenset(
    (
        "bool", "bytea", "char", "name", "int2", "int4", "int8", "text", "oid", "float4", "float8", "money", "numeric",
        "bpchar", "varchar", "date", "time", "timetz", "timestamp", "timestamptz", "interval", "bit", "varbit", "uuid",
        "json", "jsonb", "jsonpath", "tsvector", "tsquery", "inet", "cidr", "macaddr", "macaddr8", "point", "lseg",
        "path", "box", "polygon", "line", "circle", "pg_lsn",
    )
)  # fmt: skip
_RANGES = frozenset(("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange"))
_MULTIRANGES = frozenset(name.replace("range", "multirange") for name in _RANGES)
_BUILT_IN = _SCALARS | _RANGES | _MULTIRANGES
_VECTORS = frozenset(("vector", "halfvec", "sparsevec"))
FIRST_USER_OID = 16384  # types below come with PostgreSQL: their OIDs are the same on every server


@dataclass(frozen=True)
class Type:
    """A row of pg_type: `kind` is typtype; `base` a domain's, `element` an array's; `fields` those of a composite."""

    oid: int
    name: str
    kind: str
    base: int
    element: int
    extension: str
    fields: tuple[int, ...] = ()


def format_of(columns: Sequence[int], types: Mapping[int, Type]) -> Format:
    """The format in which columns of these types (OIDs) are copied."""
    return "binary" if all(is_binary(oid, types) for oid in columns) else "text"


def is_binary(oid: int, types: Mapping[int, Type]) -> bool:
    """Whether a type's binary form is stable: across versions, and free of OIDs that another server gives otherwise."""
    kind = types[oid]
    if kind.kind == "d":
        return is_binary(kind.base, types)
    if kind.kind == "e":
        return True  # sent as its label
    if kind.kind == "c":
        # its binary form names the types of its fields: only those of PostgreSQL itself are the same elsewhere
        return all(field < FIRST_USER_OID and is_binary(field, types) for field in kind.fields)
    if oid >= FIRST_USER_OID:
        return kind.extension == "vector" and kind.name in _VECTORS
    return kind.name in _BUILT_IN or (kind.element != 0 and _name(kind.element, types) in _BUILT_IN)


def _name(oid: int, types: Mapping[int, Type]) -> str:
    return types[oid].name if oid in types else ""
