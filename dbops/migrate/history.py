"""What has been applied: the record table, the ledger of runs, and the steps of a migration under way.

`schema_migrations` (its name and schema are settings) has row level security on and no grants; the rest lies in the
schema `dbops`, which no API role may use.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from psycopg import sql

from dbops import __version__
from dbops.database import translated
from dbops.errors import HistoryMismatch
from dbops.migrate.files import Migration, version_order
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection
    from dbops.fingerprint import SchemaText
    from dbops.migrate.kinds import Program

_SINCE_MESSAGE = sql.SQL("({})").format(sql.SQL(queries("migrate")["since_message"]))
OWN_COLUMNS = {"version", "checksum", "tree_checksum", "up_sql", "down_sql"}


@dataclass(frozen=True)
class Record:
    """A migration as it was applied. `kind` is applied, baseline or adopted."""

    version: str
    name: str
    checksum: str
    tree_checksum: str
    applied_at: datetime
    duration_ms: float
    applied_by: str
    applied_from: str
    dbops_version: str
    kind: str
    has_down: bool

    @property
    def order(self) -> tuple[int, ...]:
        return version_order(self.version)


@dataclass(frozen=True)
class StepRecord:
    """A statement of a migration that is run step by step, started or done."""

    version: str
    direction: str
    step: int
    steps: int
    checksum: str
    state: str
    marker: str
    backend_pid: int | None
    backend_start: datetime | None
    before: list[str]


@dataclass(frozen=True)
class Run:
    """A run of the ledger."""

    run: uuid.UUID
    command: str
    versions: list[str]
    started_at: datetime
    finished_at: datetime
    run_by: str
    run_from: str
    dbops_version: str
    note: str
    pg_dump_version: str | None
    schema_hash: str | None


@dataclass(frozen=True)
class Scripts:
    """The scripts of a migration as they were applied."""

    up: str
    down: str | None
    down_transaction: bool
    loses: str


class History:
    """The record table `table` (`schema.name`) of the database behind a connection."""

    def __init__(self, conn: Connection, table: str) -> None:
        schema, _, name = table.rpartition(".")
        self.conn, self.schema, self.name = conn, schema or "public", name
        self.table = f"{self.schema}.{self.name}"
        self.identifier = sql.Identifier(self.schema, self.name)

    def query(self, statement: str, /, **values: Any) -> sql.Composed:
        """A statement of this room with the table and literals filled in, to be sent as it is."""
        literals = {key: v if isinstance(v, sql.Composable) else sql.Literal(v) for key, v in values.items()}
        return sql.SQL(queries("migrate")[statement]).format(table=self.identifier, **literals)

    def columns(self) -> set[str] | None:
        """The columns of the table of that name, whoever made it; None where there is none."""
        with translated():
            row = self.conn.execute(
                queries("migrate")["record_columns"], {"schema": self.schema, "table": self.name}
            ).fetchone()
        return None if row is None else set(row[0])

    def exists(self) -> bool:
        """Whether the record table is there. Raises HistoryMismatch where a table of that name is another tool's."""
        columns = self.columns()
        if columns is None:
            return False
        if not columns >= OWN_COLUMNS:
            raise HistoryMismatch(
                f"{self.table} belongs to another tool (its columns: {', '.join(sorted(columns))})",
                hint="`dbops migrate adopt` takes its history over; or set `table` in dbops.toml. It was left as it is",
            )
        return True

    def records(self) -> tuple[Record, ...]:
        """What has been applied, in no order; nothing where there is no table."""
        if not self.exists():
            return ()
        with translated():
            return tuple(Record(*row) for row in self.conn.execute(self.query("applied_migrations"), binary=True))

    def scripts(self, version: str) -> Scripts | None:
        """The scripts of an applied migration."""
        with translated():
            row = self.conn.execute(self.query("applied_scripts", version=version)).fetchone()
        return Scripts(*row) if row else None

    def ensure(self) -> None:
        """Make the tables where they are missing; under the runner lock, in one transaction."""
        with translated():
            ledger = self.conn.execute(queries("migrate")["ledger_exists"]).fetchone()
            if ledger == (True,) and self.exists():
                return
            with self.conn.transaction():
                if self.schema != "public":
                    self.conn.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(self.schema)))
                self.conn.execute(self.query("create_record"))
                self.conn.execute(self.query("create_ledger"))
                self._close_to_others()

    def _close_to_others(self) -> None:
        """Row level security on, no grants: default privileges (Supabase has them) give new tables to API roles."""
        tables = [
            self.identifier,
            sql.Identifier("dbops", "migration_runs"),
            sql.Identifier("dbops", "migration_steps"),
        ]
        rows = self.conn.execute(queries("migrate")["grantees"], {"schema": self.schema, "table": self.name})
        for role in [sql.SQL("public"), *(sql.Identifier(row[0]) for row in rows.fetchall())]:
            self.conn.execute(sql.SQL("revoke all on {} from {}").format(sql.SQL(", ").join(tables), role))
        self.conn.execute("revoke all on schema dbops from public")
        for table in tables:
            self.conn.execute(sql.SQL("alter table {} enable row level security").format(table))

    def insertion(
        self, migration: Migration, program: Program, run: uuid.UUID, duration_ms: float | None, kind: str = "applied"
    ) -> sql.Composed:
        """The statement that records a migration; without a duration the server says how long the message took."""
        from dbops.migrate.parse import tree_checksum

        down = migration.down
        return self.query(
            "insert_record",
            **content_of(migration, tree_checksum(program.statements)),
            duration_ms=_SINCE_MESSAGE if duration_ms is None else round(duration_ms, 3),
            applied_from=host(),
            dbops_version=__version__,
            kind=kind,
            run=str(run),
            down_transaction=down.transaction if down else True,
        )

    def steps(self) -> tuple[StepRecord, ...]:
        """The steps of migrations under way."""
        with translated():
            if self.conn.execute(queries("migrate")["ledger_exists"]).fetchone() != (True,):
                return ()
            rows = self.conn.execute(queries("migrate")["steps"], {"record_table": self.table}, binary=True)
            return tuple(StepRecord(*row) for row in rows)

    def runs(self, limit: int = 50) -> tuple[Run, ...]:
        """The newest runs first."""
        with translated():
            if self.conn.execute(queries("migrate")["ledger_exists"]).fetchone() != (True,):
                return ()
            values = {"record_table": self.table, "limit": limit}
            rows = self.conn.execute(queries("migrate")["runs"], values, binary=True)
            return tuple(Run(*row) for row in rows)

    def last_schema(self) -> tuple[datetime, SchemaText] | None:
        """When the last run ended and the schema's text then; None where there was no run or no pg_dump."""
        if not self.runs(1):
            return None
        with translated():
            values = {"record_table": self.table}
            row = self.conn.execute(queries("migrate")["last_schema"], values, binary=True).fetchone()
        if row is None or row[3] is None:
            return None
        from dbops.fingerprint import SchemaText

        return row[1], SchemaText.decompress(row[3], row[2])

    def unrecorded_runs(self) -> dict[uuid.UUID, list[str]]:
        """Runs that the ledger lacks, with their versions: killed between their last commit and its line there."""
        with translated():
            if not self.exists() or self.conn.execute(queries("migrate")["ledger_exists"]).fetchone() != (True,):
                return {}
            return dict(self.conn.execute(self.query("unrecorded_runs")).fetchall())

    def add_run(
        self,
        run: uuid.UUID,
        command: str,
        versions: Sequence[str],
        started_at: datetime,
        note: str,
        schema: SchemaText | None,
    ) -> None:
        """Write a run into the ledger."""
        values = {
            "run": run,
            "record_table": self.table,
            "command": command,
            "versions": list(versions),
            "started_at": started_at,
            "run_from": host(),
            "dbops_version": __version__,
            "note": note,
            "pg_dump_version": schema.pg_dump_version if schema else None,
            "schema_hash": schema.hash if schema else None,
            "schema_text": schema.compress() if schema else None,
        }
        with translated(), self.conn.transaction():
            self.conn.execute(queries("migrate")["insert_run"], values)


def content_of(migration: Migration, tree_checksum: str) -> dict[str, Any]:
    """The columns of a record that follow from the file alone."""
    down = migration.down
    return {
        "version": migration.version,
        "name": migration.name,
        "checksum": migration.checksum,
        "tree_checksum": tree_checksum,
        "up_sql": migration.up.sql,
        "down_sql": down.sql if down else None,
        "loses": migration.loses,
    }


@cache
def host() -> str:
    """The name of this machine, for the record."""
    return socket.gethostname()
