"""Databases to merge into, and small backups without pg_dump and workers, for tests that take many."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dbops.backup.local import LocalStore
from dbops.backup.merge import Merged, diff, merge, plan_merge
from dbops.backup.model import Chunk, Column, Manifest, Name, Sequence, Table
from dbops.backup.objects import chunk_key, compress
from dbops.backup.store import Store
from dbops.config import Settings

TABLES = """
select c.oid, n.nspname::text, c.relname::text, c.relispartition,
  coalesce((select array_agg(a.attname::text order by k.n) from pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, n)
    join pg_attribute a on a.attnum = k.attnum where i.indrelid = c.oid and a.attrelid = c.oid and i.indisprimary), '{}')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^(pg_|information_schema|dbops)' order by 2, 3
"""
COLUMNS = """
select attname::text, format_type(atttypid, atttypmod), attnotnull, attgenerated <> '', attidentity::text from pg_attribute
where attrelid = %s and attnum > 0 and not attisdropped order by attnum
"""


def snapshot(conn: psycopg.Connection[Any], store: Store, form: str = "binary", per_chunk: int = 100) -> Manifest:
    """A manifest of all tables' rows, which are in the store."""
    with conn.transaction():
        conn.execute("set local search_path = ''")
        tables = tuple(_table(conn, store, form, per_chunk, *row) for row in conn.execute(TABLES.encode()).fetchall())
        sequences = conn.execute("select schemaname::text, sequencename::text from pg_catalog.pg_sequences").fetchall()
        values = tuple(_sequence(conn, Name(*row)) for row in sequences)
    now = datetime.now(UTC)
    return Manifest(
        f"backup_{now:%Y%m%d_%H%M%S}_manual",
        "manual",
        now,
        "shop",
        "1",
        180000,
        "18",
        "0",
        "UTF8",
        {},
        (),
        tables,
        values,
        (),
    )


def _table(
    conn: psycopg.Connection[Any], store: Store, form: Any, per_chunk: int, oid: int, schema: str, name: str,
    partition: bool, key: list[str],
) -> Table:  # fmt: skip
    columns = tuple(Column(*row) for row in conn.execute(COLUMNS.encode(), [oid]))
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns if not column.generated)
    relation = sql.Identifier(schema, name)
    count = conn.execute(sql.SQL("select count(*) from only {}").format(relation)).fetchone()
    assert count
    chunks = [
        _chunk(conn, store, form, relation, names, start, per_chunk) for start in range(0, max(count[0], 1), per_chunk)
    ]
    digest = hashlib.sha256("".join(chunk.sha256 for chunk in chunks).encode()).hexdigest()
    kind: Any = "partition" if partition else "table"
    return Table(Name(schema, name), kind, columns, tuple(key), form, 1, count[0], digest, tuple(chunks))


def _chunk(
    conn: psycopg.Connection[Any],
    store: Store,
    form: str,
    relation: sql.Composable,
    names: sql.Composable,
    start: int,
    count: int,
) -> Chunk:
    query = sql.SQL("copy (select {} from only {} order by ctid offset {} limit {}) to stdout (format {})").format(
        names, relation, start, count, sql.Identifier(form)
    )
    with conn.cursor().copy(query) as copy:
        data = b"".join(bytes(part) for part in copy)
    sha256 = hashlib.sha256(data).hexdigest()
    packed = compress(data)
    store.put(chunk_key(sha256), packed)
    return Chunk(sha256, count, len(data), len(packed))


def _sequence(conn: psycopg.Connection[Any], name: Name) -> Sequence:
    row = conn.execute(
        sql.SQL("select last_value, is_called from {}").format(sql.Identifier(name.schema, name.name))
    ).fetchone()
    assert row
    return Sequence(name, *row)


@dataclass
class Shop:
    """A live database and what is needed to restore into it."""

    url: str
    conn: psycopg.Connection[Any]
    store: LocalStore
    settings: Settings
    tables: tuple[str, ...]

    def backup(self, **how: Any) -> Manifest:
        return snapshot(self.conn, self.store, **how)

    def run(self, statements: str) -> None:
        self.conn.execute(statements.encode())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(query.encode()).fetchall()

    def all(self, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
        """The rows of the tables, as text."""
        return {table: self.rows(f"select t::text from {table} t order by 1") for table in tables or self.tables}

    def merge(self, manifest: Manifest, mode: Any, url: str = "", **selection: Any) -> Merged:
        settings = replace(self.settings, **selection.pop("settings", {}))
        with plan_merge(manifest, self.store, url or self.url, settings, mode=mode, **selection) as prepared:
            return merge(prepared)

    def counts(self, manifest: Manifest, **selection: Any) -> dict[str, tuple[int, int, int, int]]:
        found = diff(manifest, self.store, self.url, self.settings, **selection).tables
        return {
            each.table.removeprefix("public."): (each.missing, each.changed, each.extra, each.equal) for each in found
        }

    def state(self) -> list[tuple[Any, ...]]:
        """The rows of whatever tables there are, the records too."""
        names = "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace in (select oid from pg_namespace where nspname in ('public', 'dbops')) order by 1"
        return [(name, self.rows(f"select t::text from {name} t order by 1")) for (name,) in self.rows(names)]


@contextmanager
def open_shop(url: str, folder: Path, tables: tuple[str, ...]) -> Iterator[Shop]:
    with psycopg.connect(url, autocommit=True) as conn:
        # longer than deadlock_timeout: autovacuum lets go of its lock only then
        settings = Settings(url=url, lock_timeout=2.0, lock_tries=3, wait=10.0)
        yield Shop(url, conn, LocalStore(folder / "store"), settings, tables)


@contextmanager
def role(shop: Shop, options: str = "", *, owns: bool = True) -> Iterator[str]:
    """A role that is no superuser and owns all, and its URL."""
    name = f"owner_{shop.conn.info.dbname}"
    shop.run(
        f"create role {name} login {options}; grant create, temporary on database {shop.conn.info.dbname} to {name}"
    )
    for (table,) in shop.rows(
        "select oid::regclass::text from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace"
    ):
        shop.run(f"alter table {table} owner to {name}" if owns else f"grant all on {table} to {name}")
    shop.run(f"grant create on schema public to {name}")
    if shop.rows("select from pg_namespace where nspname = 'dbops'"):
        shop.run(
            f"grant all on schema dbops to {name}; grant all on all tables in schema dbops to {name}; alter role {name} bypassrls"
        )
    from psycopg.conninfo import make_conninfo

    try:
        yield make_conninfo(shop.url, user=name)
    finally:
        # a server process that is ending still drops its temporary tables
        while shop.rows(f"select from pg_stat_activity where usename = '{name}'"):
            time.sleep(0.02)
        shop.run(f"reassign owned by {name} to current_user; drop owned by {name}; drop role {name}")
