"""What a drill compares: rows by count and content hash, sequences by value and by what they would give next."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING

from psycopg import sql

from dbops.backup.copying import Source, chunks
from dbops.backup.hash import MODULUS, hash_text
from dbops.backup.loading import prepare_session
from dbops.backup.model import DrillTable, Manifest, Name, Table
from dbops.database import connect, translated
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

_CUT = 1 << 20


def compare_tables(url: str, manifest: Manifest, tables: Sequence[Table], workers: int) -> tuple[DrillTable, ...]:
    """Each table's rows as they are in the database at `url`, beside what the manifest says of them."""
    conditions = _conditions(url)
    encoding = "SQL_ASCII" if manifest.encoding == "SQL_ASCII" else "UTF8"
    ordered = sorted(tables, key=lambda table: -table.rows)
    sources = [_source(table, conditions.get(table.name, "")) for table in ordered]
    # of their own: the walk over the rows is Python's, one after the other within a process
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        measured = list(pool.map(measure, repeat(url), sources, repeat(encoding)))
    found = [_compared(table, *each) for table, each in zip(ordered, measured, strict=True)]
    return tuple(sorted(found, key=lambda each: each.table))


def _conditions(url: str) -> dict[Name, str]:
    """The WHERE clauses of extensions' configuration tables: the extension's own rows are no part of a backup."""
    with connect(url, "drill") as conn, translated():
        rows = conn.execute(queries("backup")["relations"]).fetchall()
    return {Name(row[1], row[2]): row[-1] for row in rows if row[-1]}


def _source(table: Table, condition: str) -> Source:
    columns = tuple(column.name for column in table.columns if not column.generated)
    return Source(table.name, columns, table.format, _CUT, condition)


def measure(url: str, source: Source, encoding: str) -> tuple[int, str]:
    """The number of a table's rows, and its content hash, by the same COPY that filled the backup."""
    rows = total = 0
    with connect(url, "drill worker", client_encoding=encoding) as conn, translated():
        prepare_session(conn)
        for _, count, hashes in chunks(conn, source, None):
            rows += count
            total += hashes
    return rows, hash_text(total % MODULUS)


def _compared(table: Table, rows: int, content_hash: str) -> DrillTable:
    reason = ""
    if rows != table.rows:
        reason = f"{rows} rows came back, the backup was taken of {table.rows}"
    elif content_hash != table.content_hash:
        reason = "its rows are not those that were backed up (content hash)"
    return DrillTable(str(table.name), rows, not reason, reason)


def sequence_problems(conn: Connection, manifest: Manifest, left_out: Mapping[str, str]) -> Iterator[str]:
    """Sequences whose value is not the manifest's, and those whose next numbers their table has already."""
    for each in manifest.sequences:
        if f"sequence {each.name}" in left_out:
            continue
        found = conn.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(each.name.schema, each.name.name))
        ).fetchone()
        if found != (each.last_value, each.is_called):
            yield f"sequence {each.name} is at {found}, the manifest says {(each.last_value, each.is_called)}"
    with_rows = {table.name for table in manifest.tables}
    for row in conn.execute(queries("backup/restoring")["numbered_columns"]).fetchall():
        sequence, table = Name(row[0], row[1]), Name(row[2], row[3])
        if table in with_rows and (taken := _taken(conn, sequence, table, row[4], row[5])) is not None:
            yield f"sequence {sequence} is behind: {table} has {row[4]} = {taken} already, the next insert fails"


def _taken(conn: Connection, sequence: Name, table: Name, column: str, increment: int) -> int | None:
    """The number that the sequence gives next, where the table has it."""
    row = conn.execute(
        sql.SQL(
            "SELECT {column} FROM {table} WHERE {column} ="
            " (SELECT last_value + CASE WHEN is_called THEN {increment} ELSE 0 END FROM {sequence}) LIMIT 1"
        ).format(
            column=sql.Identifier(column),
            table=sql.Identifier(table.schema, table.name),
            increment=sql.Literal(increment),
            sequence=sql.Identifier(sequence.schema, sequence.name),
        )
    ).fetchone()
    return int(row[0]) if row else None
