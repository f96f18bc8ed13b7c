"""The tables of a database as plain values: columns with their types, and the rules for rows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from dbops.sql import queries
from dbops.values import Kind, Type

Connection = psycopg.Connection[Any]
SQL = queries("rows")
_KINDS: dict[str, Kind] = {"e": "enum", "d": "domain", "c": "composite", "r": "range", "m": "multirange"}
_NEXTVAL = re.compile(r"^(?:pg_catalog\.)?nextval\('(.*)'::(?:pg_catalog\.)?regclass\)$")
# every one of these changes how a value is printed or read
PLAIN_TEXT = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
}


@dataclass(frozen=True)
class Column:
    """A column. `sequence` is the one that numbers it (identity, serial)."""

    name: str
    type: Type
    nullable: bool
    default: str | None = None
    generated: bool = False
    sequence: str | None = None


@dataclass(frozen=True)
class Check:
    name: str
    expression: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Unique:
    """A unique index or exclusion constraint. `plain`: nothing but columns, no predicate."""

    name: str
    columns: tuple[str, ...]
    plain: bool = True


@dataclass(frozen=True)
class ForeignKey:
    """`target` is the table referred to; `needs` the oid of the table whose rows it waits for."""

    name: str
    columns: tuple[str, ...]
    target: tuple[str, str]
    target_columns: tuple[str, ...]
    needs: int = 0
    full: bool = False


@dataclass(frozen=True)
class Table:
    """A table and all that its rows must obey. `label` is its quoted, qualified name."""

    oid: int
    name: tuple[str, str]
    label: str
    columns: tuple[Column, ...]
    checks: tuple[Check, ...] = ()
    uniques: tuple[Unique, ...] = ()
    keys: tuple[ForeignKey, ...] = ()

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def mandatory(self, key: ForeignKey) -> bool:
        """Whether every row must refer to one in the key's target."""
        return not any(self.column(name).nullable for name in key.columns)


@contextmanager
def settings(conn: Connection, values: dict[str, str]) -> Iterator[None]:
    """Set these for the rest of the block; needs an open transaction."""
    before = _set(conn, list(values), list(values.values()))
    yield
    _set(conn, list(values), before)  # an error inside has rolled the settings back by itself


def _set(conn: Connection, names: list[str], values: list[str]) -> list[str]:
    return [row[0] for row in rows(conn, "setting", names=names, values=values)]


def rows(conn: Connection, name: str, **parameters: object) -> list[tuple[Any, ...]]:
    """The rows of a named statement, as tuples whatever the connection's row factory is."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(SQL[name], parameters, prepare=False).fetchall()


def table_names(conn: Connection, schemas: Sequence[str], exclude: Sequence[str]) -> list[tuple[int, str, str, str]]:
    """(oid, schema, name, quoted name) of the tables in the schemas; partitions count as their root."""
    found = rows(conn, "tables", schemas=list(schemas), exclude=list(exclude))
    return [(oid, schema, name, label) for oid, schema, name, label in found]


def load(conn: Connection, schemas: Sequence[str], exclude: Sequence[str]) -> list[Table]:
    """The tables of the schemas, and those elsewhere that theirs refer to. Needs a transaction."""
    with settings(conn, {"search_path": ""}):
        names = {row[0]: row for row in table_names(conn, schemas, exclude)}
        keys: dict[int, list[ForeignKey]] = defaultdict(list)
        new = set(names)
        while new:
            for owner, key in _foreign_keys(conn, new):
                keys[owner].append(key)
            wanted = {key.needs for group in keys.values() for key in group} - set(names)
            found = rows(conn, "tables_by_oid", tables=list(wanted), exclude=list(exclude))
            names |= {row[0]: (row[0], row[1], row[2], row[3]) for row in found}
            new = {row[0] for row in found}
        return _tables(conn, names, keys)


def _tables(
    conn: Connection,
    names: dict[int, tuple[int, str, str, str]],
    keys: dict[int, list[ForeignKey]],
) -> list[Table]:
    oids = list(names)
    columns, checks, uniques = _columns(conn, oids), _checks(conn, oids), _uniques(conn, oids)
    return [
        Table(
            oid, (schema, name), label,
            tuple(columns[oid]), tuple(checks[oid]), tuple(uniques[oid]), tuple(keys[oid]),
        )
        for oid, schema, name, label in names.values()
    ]  # fmt: skip


def _columns(conn: Connection, oids: list[int]) -> dict[int, list[Column]]:
    found = rows(conn, "columns", tables=oids)
    types = _types(conn, {(row[2], row[3]) for row in found})
    columns: dict[int, list[Column]] = defaultdict(list)
    for table, name, oid, modifier, not_null, generated, default, identity in found:
        kind = types[oid, modifier]
        serial = _NEXTVAL.match(default or "")
        sequence = serial[1].replace("''", "'") if serial else identity
        nullable = not (not_null or kind.not_null)
        column = Column(name, kind, nullable, default, generated, sequence)
        columns[table].append(column)
    return columns


def _checks(conn: Connection, oids: list[int]) -> dict[int, list[Check]]:
    checks: dict[int, list[Check]] = defaultdict(list)
    for table, name, expression, columns in rows(conn, "checks", tables=oids):
        if expression:  # hash partitions of an empty set of rules have none
            checks[table].append(Check(name, expression, tuple(columns)))
    return checks


def _uniques(conn: Connection, oids: list[int]) -> dict[int, list[Unique]]:
    uniques: dict[int, list[Unique]] = defaultdict(list)
    for table, name, columns, plain, mentions in rows(conn, "uniques", tables=oids):
        words = re.findall(r'"(?:[^"]|"")+"|\w+', mentions)
        more = [word.strip('"').replace('""', '"') for word in words]
        uniques[table].append(Unique(name, tuple(dict.fromkeys([*columns, *more])), plain))
    return uniques


def _foreign_keys(conn: Connection, oids: Iterable[int]) -> Iterator[tuple[int, ForeignKey]]:
    for row in rows(conn, "foreign_keys", tables=list(oids)):
        owner, name, _, root, schema, target, full, columns, target_columns = row
        yield owner, ForeignKey(name, tuple(columns), (schema, target), tuple(target_columns), root, full)


# --- types ---------------------------------------------------------------------------------------


def _types(conn: Connection, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], Type]:
    """The described types by (oid, modifier), with everything they are made of."""
    facts: dict[int, tuple[Any, ...]] = {}
    new = {oid for oid, _ in wanted}
    while new:
        facts |= {row[0]: row for row in rows(conn, "types", types=list(new))}
        parts = {row[6] for row in facts.values()} | {f[0] for row in facts.values() for f in row[9]}
        new = parts - set(facts) - {0, None}
    pairs = {pair for oid, modifier in wanted for pair in _parts(facts, oid, modifier)}
    ordered = sorted(pairs)
    oids, modifiers = [oid for oid, _ in ordered], [modifier for _, modifier in ordered]
    names = [row[0] for row in rows(conn, "type_names", types=oids, modifiers=modifiers)]
    sql = dict(zip(ordered, names, strict=True))
    return {pair: _type(facts, sql, *pair) for pair in wanted}


def _inner_modifier(fact: tuple[Any, ...], modifier: int) -> int:
    """An array's modifier is its elements'; a domain has one of its own for its base."""
    modifiers: dict[str, int] = {"d": fact[5], "b": modifier}
    return modifiers.get(fact[2], -1)


def _parts(facts: dict[int, tuple[Any, ...]], oid: int, modifier: int) -> Iterator[tuple[int, int]]:
    fact = facts[oid]
    yield oid, modifier
    if fact[6]:
        yield from _parts(facts, fact[6], _inner_modifier(fact, modifier))
    for field, field_modifier in fact[9]:
        yield from _parts(facts, field, field_modifier)


def _type(facts: dict[int, tuple[Any, ...]], sql: dict[tuple[int, int], str], oid: int, modifier: int) -> Type:
    _, name, typtype, category, not_null, _, inner, labels, checks, fields = facts[oid]
    array = category == "A" and inner
    return Type(
        name=name,
        kind="array" if array else _KINDS.get(typtype, "base"),
        sql=sql[oid, modifier],
        category=category,
        modifier=modifier,
        labels=tuple(labels),
        inner=_type(facts, sql, inner, _inner_modifier(facts[oid], modifier)) if inner else None,
        fields=tuple(_type(facts, sql, *field) for field in fields),
        checks=tuple(checks),
        not_null=not_null,
    )
