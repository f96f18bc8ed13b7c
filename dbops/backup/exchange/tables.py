"""The tables whose rows are written for other programs or read from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbops.backup.model import Name
from dbops.errors import UsageError
from dbops.sql import queries

if TYPE_CHECKING:
    from psycopg import sql

    from dbops.database import Connection

QUERIES = "backup/exchange"


@dataclass(frozen=True)
class Target:
    """A table. `partitioned`: its rows lie in its partitions; `refers_to` are OIDs of tables."""

    oid: int
    name: Name
    partitioned: bool
    refers_to: frozenset[int]

    @property
    def identifier(self) -> sql.Identifier:
        from psycopg import sql

        return sql.Identifier(self.name.schema, self.name.name)


@dataclass(frozen=True)
class TargetColumn:
    """A column. `sequence` is the text of the one that a serial or identity column takes its numbers from."""

    name: str
    generated: bool
    sequence: str | None


def tables_of(conn: Connection) -> tuple[Target, ...]:
    """All tables but those of extensions, those first to which others refer."""
    rows = conn.execute(queries(QUERIES)["tables"]).fetchall()
    found = [Target(oid, Name(schema, name), kind == "p", frozenset(keys)) for oid, schema, name, kind, keys in rows]
    return tuple(_in_order(found))


def columns_of(conn: Connection, table: Target) -> tuple[TargetColumn, ...]:
    rows = conn.execute(queries(QUERIES)["columns"], {"table": table.oid}).fetchall()
    return tuple(TargetColumn(*row) for row in rows)


def sequence_behind(table: Target, column: TargetColumn) -> sql.Composed:
    """SQL that moves a column's sequence up to its rows: one that stays behind would give their numbers again."""
    from psycopg import sql

    return sql.SQL(
        "SELECT pg_catalog.setval({sequence}::pg_catalog.regclass, pg_catalog.max({column})) FROM {table} "
        "HAVING pg_catalog.max({column}) > coalesce(pg_catalog.pg_sequence_last_value({sequence}::pg_catalog.regclass), 0)"
    ).format(sequence=sql.Literal(column.sequence), column=sql.Identifier(column.name), table=table.identifier)


def choose(tables: Sequence[Target], names: Iterable[str]) -> tuple[Target, ...]:
    """The tables that are named (`schema.name`, or a name that is the only one), in their order.

    For no names all but those of the schema `dbops`: its record of merges holds rows of the others.
    Raises UsageError for a name that is none or several tables'.
    """
    chosen = {table.oid for name in names for table in [_find(tables, name)]}
    return tuple(table for table in tables if (table.oid in chosen if chosen else table.name.schema != "dbops"))


def _find(tables: Sequence[Target], name: str) -> Target:
    found = [table for table in tables if str(table.name) == name]
    found = found or [table for table in tables if table.name.name == name]
    if len(found) == 1:
        return found[0]
    what = f"{name} is the name of {len(found)} tables" if found else f"there is no table {name} in this database"
    raise UsageError(what, hint="write it as schema.name; nothing was done")


def _in_order(tables: Sequence[Target]) -> list[Target]:
    """Those first to which others refer; a circle of foreign keys is cut where the alphabet begins."""
    left = {table.oid: table for table in tables}
    order: list[Target] = []
    while left:
        free = [table for table in left.values() if not table.refers_to & left.keys()] or [next(iter(left.values()))]
        for table in free:
            order.append(left.pop(table.oid))
    return order
