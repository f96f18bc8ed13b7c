"""Statements with identifiers in them, composed and run in savepoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString, cast

from psycopg import sql
from psycopg.rows import tuple_row

from dbops.rows.catalog import Connection, Table
from dbops.rows.plan import Row

_KEYS_READ = 1000


def name(*parts: str) -> sql.Identifier:
    """An identifier in a statement that has parameters: its percent signs are no placeholders."""
    return sql.Identifier(*(part.replace("%", "%%") for part in parts))


def text(from_catalog: str) -> sql.SQL:
    """An expression or type as the catalog prints it, for a statement that has parameters."""
    return sql.SQL(_fixed(from_catalog.replace("%", "%%")))


def _fixed(from_catalog: Any) -> LiteralString:
    return cast(LiteralString, from_catalog)


def run(conn: Connection, statement: sql.Composable, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Execute in a savepoint, so that an error leaves the transaction usable."""
    with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(sql.Composed([statement]), values, prepare=False)
        return cursor.fetchall() if cursor.description else []


def insert_statement(
    table: Table, columns: Sequence[str], batch: Sequence[Row], returning: Sequence[str]
) -> tuple[sql.Composable, list[str | None]]:
    """An INSERT of the rows, and its values. It returns these columns' values as text."""
    shown: sql.Composable = sql.SQL("1")
    if returning:
        shown = sql.SQL(", ").join(sql.SQL("{}::text").format(name(column)) for column in returning)
    if not columns:
        statement = sql.SQL("INSERT INTO {} SELECT FROM generate_series(1, %s::int) RETURNING {}")
        return statement.format(name(*table.name), shown), [str(len(batch))]
    one = sql.SQL("({})").format(sql.SQL(", ").join([sql.Placeholder()] * len(columns)))
    insert = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES {} RETURNING {}").format(
        name(*table.name),
        sql.SQL(", ").join(map(name, columns)),
        sql.SQL(", ").join([one] * len(batch)),
        shown,
    )
    return insert, [row.get(column) for row in batch for column in columns]


def read_keys(conn: Connection, table: tuple[str, str], columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The columns' values as text in the newest rows that have them all."""
    present = sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(name(column)) for column in columns)
    statement = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY ctid DESC LIMIT %s").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(name(column)) for column in columns),
        name(*table),
        present,
    )
    return run(conn, statement, [_KEYS_READ])
