"""The target of a whole restore: empty before, marked by a schema while it is not whole, clean for another try.

A schema and not a table in one, since a backup may hold the schema `dbops` itself; its comment says which restore it was.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.database import translated
from dbops.errors import ConfirmationRequired, DbopsError, UsageError
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

MARK = "dbops_unfinished_restore"
_STATEMENTS = queries("backup/restoring")


@dataclass(frozen=True)
class Mark:
    """What an unfinished restore left: of which backup, since when (ISO, UTC), and what was there before it."""

    backup: str
    began_at: str
    schemas: tuple[str, ...]
    extensions: tuple[str, ...]


def read_mark(conn: Connection) -> Mark | None:
    """The mark of a restore that did not end; None where the database bears none."""
    row = conn.execute(_STATEMENTS["mark"]).fetchone()
    if row is None:
        return None
    try:
        values = json.loads(row[0])
        return Mark(values["backup"], values["began_at"], tuple(values["schemas"]), tuple(values["extensions"]))
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{conn.info.dbname} holds a schema {MARK} without dbops' note of what was there before",
            hint="drop this database and make a new one; nothing was done",
        ) from None


def set_mark(conn: Connection, backup: str) -> None:
    """Mark the database as not whole. Raises NotAllowed where the role may create nothing here."""
    schemas = tuple(row[0] for row in conn.execute(_STATEMENTS["schemas"]))
    extensions = tuple(row[0] for row in conn.execute(_STATEMENTS["extensions"]))
    mark = Mark(backup, datetime.now(UTC).isoformat(timespec="seconds"), schemas, extensions)
    with translated(), conn.transaction():
        conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(MARK)))
        note = sql.Literal(json.dumps(asdict(mark)))
        conn.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(MARK), note))


def remove_mark(conn: Connection) -> None:
    """The last step: what the workers did not wait for reaches the disk before it."""
    with translated():
        conn.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(MARK)))


def refuse_used(conn: Connection) -> None:
    """Raise UsageError that names what is in the database; extensions, empty schemas and Supabase's own may be there."""
    there = [f"{kind} {identity}" for kind, identity in _content(conn)]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise UsageError(
            f"database {conn.info.dbname} is not empty: it holds {', '.join(there[:3])}{more}",
            hint="a whole backup is restored into a new database (createdb); --table or --user restore into a live one. "
            "Nothing was done",
        )


def _content(conn: Connection) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in conn.execute(_STATEMENTS["content"])]


def refuse_unfinished(conn: Connection, mark: Mark) -> None:
    """Raise ConfirmationRequired for what an interrupted restore left."""
    raise ConfirmationRequired(
        f"database {conn.info.dbname} holds an unfinished restore of {mark.backup}, begun at {mark.began_at}",
        hint="--yes drops what it left and begins anew; nothing was done",
    )


def clean(conn: Connection, mark: Mark) -> None:
    """Drop what an unfinished restore left, each object by itself; the mark stays. Raises DbopsError for what remains."""
    here = [row[0] for row in conn.execute(_STATEMENTS["schemas"])]
    gone = [schema for schema in here if schema not in mark.schemas]
    extensions = [row[0] for row in conn.execute(_STATEMENTS["extensions"])]
    for schema in gone:
        _drop(conn, sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
    for name in extensions:
        if name not in mark.extensions:
            _drop(conn, sql.SQL("DROP EXTENSION IF EXISTS {} CASCADE").format(sql.Identifier(name)))
    for kind, identity in _content(conn):
        if kind == "large object":
            _drop(conn, sql.SQL("SELECT pg_catalog.lo_unlink({})").format(sql.Literal(int(identity))))
        else:  # the server's own words for the object, quoted by it
            words = f"DROP {kind} IF EXISTS {identity} CASCADE"
            _drop(conn, words.encode())


def _drop(conn: Connection, statement: sql.Composed | bytes) -> None:
    try:
        conn.execute(statement)
    except psycopg.Error as error:
        with translated():
            conn.execute("SELECT 1")  # a lost connection is told as one
        raise DbopsError(
            f"what an unfinished restore left cannot be dropped: {error.diag.message_primary or error}",
            hint="drop the database and make a new one; it is still marked as unfinished",
        ) from error
