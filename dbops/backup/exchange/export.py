"""Tables written for other programs: JSON lines (`.json.gz`, one object a row) or one SQL file that psql runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast
from urllib.parse import quote

from dbops.backup.exchange.tables import Target, choose, columns_of, sequence_behind, tables_of
from dbops.database import connect, endless, local_settings, translated
from dbops.errors import StoreError, UsageError, shown
from dbops.wording import count

if TYPE_CHECKING:
    from psycopg import sql

    from dbops.database import Connection

Form = Literal["json", "sql"]
FORMS: tuple[Form, ...] = ("json", "sql")
JSON_SUFFIX = ".json.gz"
# the same rows give the same text, whoever asks; `off` makes too few rights an error and not fewer rows
_SETTINGS = {
    "row_security": "off", "search_path": "", "datestyle": "ISO, YMD", "intervalstyle": "iso_8601", "timezone": "UTC",
    "extra_float_digits": "1", "bytea_output": "hex", "xmloption": "content", "quote_all_identifiers": "off",
}  # fmt: skip
_HEAD = """\
-- rows of {tables} tables, written by dbops; psql -v ON_ERROR_STOP=1 -f this file
BEGIN;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL standard_conforming_strings = on;
SET LOCAL row_security = off;
SET LOCAL xmloption = content;
SET LOCAL DateStyle = 'ISO, YMD';
"""


@dataclass(frozen=True)
class Exchanged:
    """What was written or read: the files, and the rows of each table by name."""

    files: tuple[Path, ...]
    tables: dict[str, int]

    @property
    def rows(self) -> int:
        return sum(self.tables.values())


def export(
    url: str, folder: Path, names: Sequence[str] = (), form: Form = "json", tell: Callable[[str], None] = lambda _: None
) -> Exchanged:
    """Write tables, all as of one moment, into `folder`: `schema.table.json.gz` each, or `DATABASE.sql`.

    A file appears whole or not at all, readable by its owner only; one of that name is replaced. Generated columns are
    left out. Raises UsageError for an unknown table, NotAllowed, CannotConnect, StoreError where a file cannot be
    written.
    """
    with connect(url, "export") as conn, _snapshot(conn):
        tables = choose(tables_of(conn), names)
        if not tables:
            raise UsageError(f"{conn.info.dbname} has no tables", hint="nothing was written")
        write = _write_json if form == "json" else _write_sql
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return write(conn, tables, folder, tell)
        except OSError as error:
            where = shown(Path(error.filename or folder))
            raise StoreError(
                f"{where} cannot be written: {error.strerror or error}", hint="the database was only read"
            ) from error


@contextmanager
def _snapshot(conn: Connection) -> Iterator[None]:
    with translated(), conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        conn.execute(local_settings(endless(conn.info.server_version // 10000) | _SETTINGS).encode())
        yield


def file_name(table: Target) -> str:
    """The name of a table's file: signs that a file system or a person could misread are %-encoded."""
    return ".".join(quote(part, safe=" -_").replace(".", "%2E") for part in (table.name.schema, table.name.name))


def _columns(conn: Connection, table: Target) -> sql.Composed:
    from psycopg import sql

    names = [column.name for column in columns_of(conn, table) if not column.generated]
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _source(conn: Connection, table: Target) -> sql.Composed:
    """The rows of a table alone: those of its children by inheritance are theirs."""
    from psycopg import sql

    only = sql.SQL("" if table.partitioned else "ONLY ")
    return sql.SQL("SELECT {} FROM {}{}").format(_columns(conn, table), only, table.identifier)


# --- JSON ----------------------------------------------------------------------------------------


def _write_json(conn: Connection, tables: Sequence[Target], folder: Path, tell: Callable[[str], None]) -> Exchanged:
    files: dict[Path, int] = {}
    for table in tables:
        path = folder / f"{file_name(table)}{JSON_SUFFIX}"
        with _appearing(path) as file:
            files[path] = _json_lines(conn, table, file)
        tell(f"{table.name}: {count(files[path], 'row')}")
    return Exchanged(tuple(files), dict(zip((str(table.name) for table in tables), files.values(), strict=True)))


def _json_lines(conn: Connection, table: Target, file: IO[bytes]) -> int:
    from isal import igzip
    from psycopg import sql

    source = sql.SQL("COPY (SELECT pg_catalog.row_to_json(r) FROM ({}) AS r) TO STDOUT").format(_source(conn, table))
    rows = 0
    # no time and no name in the header: the same rows give the same file
    zipped = cast(IO[bytes], igzip.GzipFile("", "wb", fileobj=file, mtime=0))  # type: ignore[no-untyped-call]
    with zipped as packed, conn.cursor() as cursor, cursor.copy(source) as copy:
        for row in copy.rows():
            # a column of type json keeps the line breaks between its parts; within a string none can be
            line = cast(str, row[0]).replace("\n", " ").replace("\r", " ")
            packed.write(f"{line}\n".encode())
            rows += 1
    return rows


# --- SQL -----------------------------------------------------------------------------------------


def _write_sql(conn: Connection, tables: Sequence[Target], folder: Path, tell: Callable[[str], None]) -> Exchanged:
    path = folder / f"{quote(conn.info.dbname, safe=' -_')}.sql"
    counts: dict[str, int] = {}
    with _appearing(path) as file:
        file.write(_HEAD.format(tables=len(tables)).encode())
        for table in tables:
            counts[str(table.name)] = _copy_text(conn, table, file)
            tell(f"{table.name}: {count(counts[str(table.name)], 'row')}")
        file.write(b"\nCOMMIT;\n")
    return Exchanged((path,), counts)


def _copy_text(conn: Connection, table: Target, file: IO[bytes]) -> int:
    """A table as psql reads it: COPY with its rows, and its sequences moved up to them."""
    from psycopg import sql

    target = sql.SQL("COPY {} ({}) FROM stdin;").format(table.identifier, _columns(conn, table))
    file.write(f"\n{target.as_string(conn)}\n".encode())
    with conn.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY ({}) TO STDOUT").format(_source(conn, table))) as copy:
            file.writelines(bytes(block) for block in copy)
        rows = cursor.rowcount
    file.write(b"\\.\n")
    for column in columns_of(conn, table):
        if column.sequence:
            file.write(f"{sequence_behind(table, column).as_string(conn)};\n".encode())
    return rows


@contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file (0600) that bears its name when it is whole."""
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
