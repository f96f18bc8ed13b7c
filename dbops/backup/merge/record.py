"""Who restored what and when, in the schema `dbops`, with the rows that were overwritten or deleted."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Identifier

from dbops import __version__
from dbops.backup.merge.catalog import ROOM
from dbops.backup.merge.model import MergedTable
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection


@dataclass(frozen=True)
class SavedTable:
    """A table of a run: the columns whose values its hashes cover, those that the backup brought, and the counts."""

    schema: str
    name: str
    columns: tuple[str, ...]
    brought: tuple[str, ...]
    keyed: bool
    missing: int
    changed: int
    extra: int
    written: int

    @property
    def table(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def merged(self) -> MergedTable:
        return MergedTable(self.table, self.missing, self.changed, self.extra, self.written)


@dataclass(frozen=True)
class Run:
    """A recorded run. `undone_by` is the run that took it back."""

    run: str
    command: str
    backup: str
    store: str
    mode: str
    tables: tuple[SavedTable, ...]
    undone_by: str | None


@dataclass(frozen=True)
class Entry:
    """A run to be recorded."""

    run: str
    command: str  # merge, side, undo
    backup: str
    store: str
    mode: str
    selection: str
    started_at: datetime
    undoes: str | None = None


def new_run() -> str:
    """A name for a run: its time in UTC, and enough chance to be the only one. It goes into a schema's name too."""
    return f"{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"


def ensure(conn: Connection) -> None:
    """Make the tables where they are missing, in the transaction under way, closed to all but their owner.

    Default privileges (Supabase has them) give new tables to API roles.
    """
    if conn.execute(queries(ROOM)["record_exists"]).fetchone() == (True,):
        return
    conn.execute(queries(ROOM)["create_record"])
    tables = SQL(", ").join(Identifier("dbops", name) for name in ("restore_runs", "restore_saved"))
    roles = conn.execute(queries(ROOM)["record_grantees"], {"schema": "dbops"}).fetchall()
    for role in [SQL("public"), *(Identifier(row[0]) for row in roles)]:
        conn.execute(SQL("REVOKE ALL ON {} FROM {}").format(tables, role))
    conn.execute("REVOKE ALL ON SCHEMA dbops FROM public")
    for name in ("restore_runs", "restore_saved"):
        conn.execute(SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(Identifier("dbops", name)))


def write(conn: Connection, entry: Entry, tables: Iterable[SavedTable]) -> None:
    values = {name: getattr(entry, name) for name in Entry.__dataclass_fields__}
    values |= {"tables": json.dumps([table.__dict__ for table in tables]), "run_from": socket.gethostname()}
    conn.execute(queries(ROOM)["insert_run"], values | {"dbops_version": __version__})


def read(conn: Connection, run: str) -> Run | None:
    """The run of this name; None where there is none."""
    if conn.execute(queries(ROOM)["record_exists"]).fetchone() != (True,):
        return None
    row = conn.execute(queries(ROOM)["run"], {"run": run}).fetchone()
    if row is None:
        return None
    command, backup, store, mode, tables, undone_by = row
    return Run(run, command, backup, store, mode, tuple(_saved(each) for each in tables), undone_by)


def recent(conn: Connection, limit: int = 50) -> list[dict[str, Any]]:
    """The newest runs first, as {run, command, backup, mode, selection, tables, undoes, started_at, …}."""
    if conn.execute(queries(ROOM)["record_exists"]).fetchone() != (True,):
        return []
    cursor = conn.execute(queries(ROOM)["runs"], {"limit": limit})
    names: Sequence[str] = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _saved(values: dict[str, Any]) -> SavedTable:
    return SavedTable(**(values | {"columns": tuple(values["columns"]), "brought": tuple(values["brought"])}))
