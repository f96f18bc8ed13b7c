"""Databases with another tool's history: recognised, read, taken over, never damaged.

A foreign table of the record table's own name is renamed (`schema_migrations_dbmate`), its rows untouched; others stay
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from dbops.database import translated
from dbops.errors import HistoryMismatch, UsageError
from dbops.migrate.files import Migration, Script, version_order
from dbops.migrate.history import OWN_COLUMNS, History
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection


@dataclass(frozen=True)
class Tool:
    """A peer, told by its table's columns. `versions` is the statement that reads them; None where they map to no file."""

    name: str
    table: str
    columns: frozenset[str]
    versions: str | None
    cumulative: bool = False  # it keeps the newest version only


TOOLS = (
    Tool("golang-migrate", "schema_migrations", frozenset({"version", "dirty"}), "golang_versions", cumulative=True),
    Tool("Supabase", "schema_migrations", frozenset({"version", "statements"}), "supabase_versions"),
    Tool("dbmate", "schema_migrations", frozenset({"version"}), "dbmate_versions"),
    Tool(
        "Flyway",
        "flyway_schema_history",
        frozenset({"installed_rank", "version", "script", "success"}),
        "flyway_versions",
    ),
    Tool("Alembic", "alembic_version", frozenset({"version_num"}), None),
    Tool("sqitch", "changes", frozenset({"change_id", "script_hash"}), None),
    Tool("yoyo", "_yoyo_migration", frozenset({"migration_hash", "migration_id"}), None),
    Tool("node-pg-migrate", "pgmigrations", frozenset({"id", "name", "run_on"}), None),
)


@dataclass(frozen=True)
class Foreign:
    """Another tool's table in this database."""

    tool: Tool
    schema: str
    table: str

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True)
class Adoption:
    """What `adopt` would do. `without_file`: versions that the other tool applied and this folder lacks."""

    source: Foreign
    migrations: tuple[Migration, ...]
    without_file: tuple[str, ...]
    rename_to: str = ""

    def __str__(self) -> str:
        lines = [
            f"adopt the history of {self.source.tool.name} in {self.source.qualified}: {len(self.migrations)} migrations"
        ]
        lines += [f"  {m.version} {m.name}" for m in self.migrations]
        if self.rename_to:
            lines.append(f"rename {self.source.qualified} to {self.rename_to}, its rows untouched: the name is needed")
        return "\n".join(lines)


def foreign_tables(conn: Connection) -> tuple[Foreign, ...]:
    """The other tools' tables in a database."""
    with translated():
        rows = conn.execute(
            queries("migrate")["candidates"], {"names": sorted({tool.table for tool in TOOLS})}
        ).fetchall()
    found = (_recognise(schema, table, frozenset(columns)) for schema, table, columns in rows)
    return tuple(item for item in found if item is not None)


def _recognise(schema: str, table: str, columns: frozenset[str]) -> Foreign | None:
    if columns >= OWN_COLUMNS:
        return None
    tool = next((tool for tool in TOOLS if tool.table == table and columns >= tool.columns), None)
    return Foreign(tool, schema, table) if tool else None


def plan_adoption(conn: Connection, history: History, files: Sequence[Migration], tool: str | None = None) -> Adoption:
    """What taking over would mean. Raises UsageError where there is nothing to take over, or more than one."""
    source = _choose(foreign_tables(conn), tool)
    if source.tool.versions is None:
        raise UsageError(
            f"{source.qualified} is {source.tool.name}'s: its versions do not name files",
            hint="write the schema as a first migration and `dbops migrate baseline VERSION`; the table was left as it is",
        )
    columns = history.columns()
    if columns is not None and columns >= OWN_COLUMNS and history.records():
        raise UsageError(
            f"{history.table} has records already", hint="adopt is for a first take-over; nothing was changed"
        )
    applied = _read(conn, source)
    matched, missing = _match(applied, files, source.tool.cumulative)
    clash = (source.schema, source.table) == (history.schema, history.name)
    rename = f"{source.table}_{source.tool.name.lower().replace('-', '_')}" if clash else ""
    migrations = (*matched, *(_without_file(version, script) for version, script in missing.items()))
    return Adoption(source, tuple(sorted(migrations, key=lambda m: m.order)), tuple(missing), rename)


def _choose(found: Sequence[Foreign], tool: str | None) -> Foreign:
    if tool is not None:
        found = [item for item in found if item.tool.name.lower() == tool.lower()]
    if len(found) == 1:
        return found[0]
    if not found:
        known = ", ".join(item.name for item in TOOLS if item.versions)
        raise UsageError("there is no history of another tool to adopt", hint=f"known: {known}; nothing was changed")
    names = ", ".join(f"{item.tool.name} ({item.qualified})" for item in found)
    raise UsageError(f"more than one tool left a history: {names}", hint="choose with --from; nothing was changed")


def _read(conn: Connection, source: Foreign) -> Mapping[str, str]:
    """The versions that the tool applied, with their SQL where it kept it. Raises HistoryMismatch for a failed one."""
    statement = sql.SQL(queries("migrate")[str(source.tool.versions)]).format(
        table=sql.Identifier(source.schema, source.table)
    )
    with translated():
        rows = conn.execute(statement).fetchall()
    failed = [version for version, _, good in rows if not good]
    if failed:
        raise HistoryMismatch(
            f"{source.tool.name} marks {', '.join(failed)} as failed (dirty)",
            hint=f"settle it with {source.tool.name} first; nothing was changed",
        )
    return {version: script or "" for version, script, _ in rows}


def _match(
    applied: Mapping[str, str], files: Sequence[Migration], cumulative: bool
) -> tuple[list[Migration], dict[str, str]]:
    """Files by version; numbers are compared as numbers, since some tools drop leading zeros."""
    by_order = {migration.order: migration for migration in files}
    matched = {order: by_order[order] for order in map(version_order, applied) if order in by_order}
    missing = {version: script for version, script in applied.items() if version_order(version) not in by_order}
    if cumulative and applied:
        newest = max(map(version_order, applied))
        matched |= {order: migration for order, migration in by_order.items() if order <= newest}
    return list(matched.values()), missing


def _without_file(version: str, script: str) -> Migration:
    path = Path(f"{version} (as recorded by another tool)")
    return Migration(version, "(no file)", path, Script(script, path))


def rename(worker_conn: Connection, adoption: Adoption) -> None:
    """Move the foreign table out of the way, rows and all."""
    source = sql.Identifier(adoption.source.schema, adoption.source.table)
    worker_conn.execute("set local lock_timeout = '10s'")
    worker_conn.execute(sql.SQL("alter table {} rename to {}").format(source, sql.Identifier(adoption.rename_to)))
    # its primary key keeps its index's name, which our table's would collide with
    for (name,) in worker_conn.execute(
        queries("migrate")["index_names"], {"schema": adoption.source.schema, "table": adoption.rename_to}
    ).fetchall():
        index = sql.Identifier(adoption.source.schema, name)
        fresh = sql.Identifier(f"{adoption.rename_to}_{name}"[:63])
        worker_conn.execute(sql.SQL("alter index {} rename to {}").format(index, fresh))
