"""The database that is backed up, read under one snapshot whose tables nobody can change while it is held.

In this order, since every other loses rows: locks first, then the snapshot, then the list of tables once more. A snapshot
does not protect from TRUNCATE, or from VACUUM FULL, CLUSTER and ALTER TABLE that rewrite: their new rows are invisible to
it (https://www.postgresql.org/docs/current/mvcc-caveats.html).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from dbops.backup.allow import Type
from dbops.backup.choose import Chosen, Relation
from dbops.backup.model import Column, Name, Omitted
from dbops.backup.model import Sequence as SequenceValue
from dbops.database import Server, connect, endless, local_settings, require_bypass, server_of, translated
from dbops.errors import UnfitServer
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.config import Settings
    from dbops.database import Connection

# under these a value's text is the same wherever it is read, and whoever asks
PINNED = {
    "search_path": "", "row_security": "off", "datestyle": "ISO, YMD", "intervalstyle": "postgres", "timezone": "UTC",
    "extra_float_digits": "1", "bytea_output": "hex", "xmloption": "content", "quote_all_identifiers": "off",
    # one stream of a whole table must begin at its first page
    "synchronize_seqscans": "off", "max_parallel_workers_per_gather": "0",
}  # fmt: skip
UNKNOWN = "unknown-"  # in place of the system identifier, where the role may not ask for it
_BATCH = 500  # names in one statement


class Moved(Exception):
    """Somebody changed or wants to change a table: what was begun is let go and begun anew."""


@dataclass(frozen=True)
class Snapshot:
    """An exported snapshot with the locks under it; both live as long as `conn`'s transaction."""

    conn: Connection
    server: Server
    id: str
    chosen: Chosen


@dataclass(frozen=True)
class Facts:
    """What there is to know of the database beside its tables; sizes in bytes."""

    encoding: str
    block_size: int
    taken_at: datetime
    extensions: dict[str, str]
    large_objects: int
    roles: tuple[str, ...]
    omitted: tuple[Omitted, ...]


@dataclass(frozen=True)
class Details:
    """Of the chosen tables, by OID: columns and the types of those in the stream, primary keys, sizes (heap, TOAST)."""

    columns: dict[int, list[Column]] = field(default_factory=dict)
    column_types: dict[int, list[int]] = field(default_factory=dict)
    keys: dict[int, tuple[str, ...]] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    types: dict[int, Type] = field(default_factory=dict)


# --- holding -------------------------------------------------------------------------------------


@contextmanager
def held(url: str, settings: Settings, choice: Callable[[list[Relation], bool], Chosen]) -> Iterator[Snapshot]:
    """The chosen tables locked against changes of their form, and a snapshot of their rows.

    Raises Moved where a table is held exclusively or the list changed in between, with who is in the way; UnfitServer
    for a pooler, NotAllowed for a role that would see fewer rows than there are, CannotConnect.
    """
    with connect(url, "backup") as conn, translated():
        server = server_of(conn)
        if server.pooled:
            raise UnfitServer(
                "a backup needs one session for its locks and its snapshot, which a pooler does not give",
                hint="connect to the server directly or through the pooler's session mode; nothing was done",
            )
        require_bypass(conn, server)
        before = _relations(conn)
        chosen = choice(before, server.standby)
        try:
            conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            limit = {"lock_timeout": f"{round(settings.lock_timeout * 1000)}ms"}
            conn.execute(local_settings(endless(server.major) | PINNED | limit).encode())
            _lock_first(conn, chosen)
            row = conn.execute(queries("backup")["export_snapshot"]).fetchone()
            assert row is not None
            if _relations(conn) != before:
                raise Moved("a table was made, dropped, renamed or moved while the tables were being locked")
            yield Snapshot(conn, server, row[0], chosen)
        except Moved as moved:
            # asked while our locks are still there: whoever waits for them is gone a moment later
            raise Moved("; ".join([str(moved), *_blockers(url, [*chosen.tables, *chosen.parents])])) from moved
        # nothing is a backup whose locks went before its rows were read
        conn.execute("COMMIT")


def _lock_first(conn: Connection, chosen: Chosen) -> None:
    import psycopg

    try:
        lock(conn, [each.name for each in (*chosen.parents, *chosen.tables)])
    except (psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise Moved(str(error).splitlines()[0]) from error


def lock(conn: Connection, names: Sequence[Name], *, wait: bool = True) -> None:
    """ACCESS SHARE on each table, not on its children: takes no snapshot, so that the one after it sees all before it."""
    from psycopg import sql

    rest = iter(names)
    mode = sql.SQL(" IN ACCESS SHARE MODE" + ("" if wait else " NOWAIT"))
    while batch := list(islice(rest, _BATCH)):
        tables = sql.SQL(", ").join(sql.SQL("ONLY ") + sql.Identifier(name.schema, name.name) for name in batch)
        conn.execute(sql.SQL("LOCK TABLE ") + tables + mode)


def _blockers(url: str, tables: Sequence[Relation]) -> list[str]:
    """Who holds one of the tables exclusively, or waits for that, in words."""
    with connect(url, "backup blockers") as conn, translated():
        rows = conn.execute(queries("backup")["table_blockers"], {"tables": [each.oid for each in tables]}).fetchall()
    return [
        f"process {pid} ({user}, {application or 'no application name'}) {'holds' if granted else 'waits for'} a table: {query}"
        for pid, user, application, granted, query in rows
    ]


def _relations(conn: Connection) -> list[Relation]:
    return [
        Relation(oid, Name(schema, name), *rest)
        for oid, schema, name, *rest in conn.execute(queries("backup")["relations"])
    ]


def identity(url: str) -> tuple[str, str]:
    """The database's name and its cluster's system identifier, which together tell it apart."""
    with connect(url, "backup") as conn, translated():
        row = conn.execute(queries("backup")["identity"]).fetchone()
        assert row is not None
        database, oid, may_ask = row
        # the database's OID stays the same from night to night, and on a standby
        identifier = str(_only(conn, "system_identifier")) if may_ask else f"{UNKNOWN}{oid}"
        return database, identifier


# --- reading -------------------------------------------------------------------------------------


def facts(snapshot: Snapshot) -> Facts:
    """What the manifest says of the database, read under the snapshot."""
    row = snapshot.conn.execute(queries("backup")["database_facts"]).fetchone()
    assert row is not None
    encoding, block_size, taken_at, extensions, large_objects = row
    omitted = list(snapshot.chosen.omitted)
    if large_objects:
        omitted.append(Omitted("owners and grants of large objects", "only their ids and contents are kept"))
    roles = tuple(row[0] for row in snapshot.conn.execute(queries("backup")["roles"]))
    return Facts(encoding, block_size, taken_at, extensions, large_objects, roles, tuple(omitted))


def details(snapshot: Snapshot) -> Details:
    """The chosen tables' columns, keys, sizes. Sizes come after the snapshot: no row of it lies beyond them."""
    found = Details()
    asked = {"tables": [each.oid for each in snapshot.chosen.tables]}
    run = snapshot.conn.execute
    for oid, name, kind, not_null, generated, identity, kind_oid in run(queries("backup")["columns"], asked):
        found.columns.setdefault(oid, []).append(Column(name, kind, not_null, generated, identity))
        if not generated:
            found.column_types.setdefault(oid, []).append(kind_oid)
    found.keys.update((oid, tuple(names)) for oid, names in run(queries("backup")["primary_keys"], asked))
    found.sizes.update((oid, (heap, toast)) for oid, heap, toast in run(queries("backup")["sizes"], asked))
    for oid, name, kind, base, element, extension, fields in run(queries("backup")["types"], asked):
        found.types[oid] = Type(oid, name, kind, base, element, extension, tuple(fields))
    return found


def sequences(snapshot: Snapshot) -> tuple[SequenceValue, ...]:
    """Each sequence's value, read after the snapshot. Sequences are not transactional: a value may be ahead of the rows,
    which only leaves a gap, never behind them, which would give a number twice. Raises Moved where one was dropped."""
    import psycopg
    from psycopg import sql

    values: list[SequenceValue] = []
    rest = iter(snapshot.chosen.sequences)
    while batch := list(islice(rest, _BATCH)):
        parts = [
            sql.SQL("SELECT {}::int, last_value, is_called FROM {}").format(
                sql.Literal(n), sql.Identifier(*_pair(each.name))
            )
            for n, each in enumerate(batch)
        ]
        try:
            rows = snapshot.conn.execute(sql.SQL(" UNION ALL ").join(parts)).fetchall()
        except psycopg.errors.UndefinedTable as error:
            raise Moved(str(error).splitlines()[0]) from error
        values += [SequenceValue(batch[n].name, last, called) for n, last, called in rows]
    return tuple(sorted(values, key=lambda each: each.name))


def migration(snapshot: Snapshot, table: str) -> str:
    """The newest applied version in the record `table` (`schema.name`), or "" where there is none of it."""
    from psycopg import sql

    schema, _, name = table.rpartition(".")
    record = next((each for each in snapshot.chosen.tables if each.name == Name(schema, name)), None)
    if record is None:
        return ""
    columns = snapshot.conn.execute(queries("backup")["columns"], {"tables": [record.oid]}).fetchall()
    if not any(row[1] == "version" for row in columns):
        return ""
    statement = sql.SQL(queries("backup")["versions"]).format(table=sql.Identifier(schema, name))
    versions = [row[0] or "" for row in snapshot.conn.execute(statement)]
    return max(versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)], default="")


def _only(conn: Connection, query: str) -> Any:
    row = conn.execute(queries("backup")[query]).fetchone()
    assert row is not None
    return row[0]


def _pair(name: Name) -> tuple[str, str]:
    return name.schema, name.name
