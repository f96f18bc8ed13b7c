"""Every named statement prepares on a real server, with the tables that it names there."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from dbops.backup.merge import record as restores
from dbops.config import Settings
from dbops.database import server_of
from dbops.hygiene import record as hygiene
from dbops.hygiene.session import Session
from dbops.migrate.history import History
from dbops.migrate.parse import parse
from dbops.sql import PACKAGE, queries

ROOMS = sorted(str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("queries.sql"))
PREPARED = {"select_stmt", "insert_stmt", "update_stmt", "delete_stmt", "merge_stmt"}
# the history tables of other tools, of which these statements read
FOREIGN = {
    "dbmate_versions": "create table {} (version text)",
    "golang_versions": "create table {} (version bigint, dirty boolean)",
    "supabase_versions": "create table {} (version text, name text, statements text[])",
    "flyway_versions": "create table {} (installed_rank int, version text, description text, type text, script text, "
    "checksum int, installed_by text, installed_on timestamp, execution_time int, success boolean)",
}


def numbered(statement: str, tables: str) -> str:
    """The statement with `$1` for each parameter and `tables` for each identifier that is filled in."""
    numbers: dict[str, str] = {}

    def number(name: str) -> str:
        return numbers.setdefault(name, f"${len(numbers) + 1}")

    if re.search(r"(?<!\{)\{\w+\}", statement):  # composed by psycopg.sql, in which a brace is written twice
        pieces = string.Formatter().parse(statement)
        identifiers = {"table": tables}
        statement = "".join(
            f"{text}{'' if name is None else identifiers.get(name) or number(name)}" for text, name, *_ in pieces
        )
    return re.sub(r"%\((\w+)\)s", lambda match: number(match[1]), statement).replace("%%", "%")


@pytest.mark.parametrize("room", ROOMS)
def test_every_named_statement_prepares(room: str, make_database: Callable[..., str]) -> None:
    url = make_database("memory" if room in ("memory", "hygiene") else "empty")
    with psycopg.connect(url, autocommit=True) as conn:
        History(conn, "public.schema_migrations").ensure()
        restores.ensure(conn)
        hygiene.ensure(Session(conn, server_of(conn), Settings()))
        if room == "hygiene/table":  # what the others read is there for the length of a scan
            conn.execute(queries(room)["create_staging"])
        for name, statement in queries("" if room == "." else room).items():
            try:
                prepare(conn, name, statement)
            except psycopg.Error as error:
                pytest.fail(f"{room}: {name}: {error}")


def prepare(conn: psycopg.Connection[Any], name: str, statement: str) -> None:
    """Prepare what can be prepared; what cannot (DDL, SET) is run and rolled back."""
    table = "public.schema_migrations"
    if name in FOREIGN:
        table = f"public.{name}"
        conn.execute(FOREIGN[name].format(table).encode())
    for part in parse(numbered(statement, table)):
        if part.kind in PREPARED:
            conn.execute(f"prepare probe as {part.sql}".encode())
            conn.execute("deallocate probe")
        else:
            with conn.transaction(force_rollback=True):
                conn.execute(part.sql.encode())
