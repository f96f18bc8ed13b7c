"""Made-up rows for any table (types, NOT NULL, CHECK, UNIQUE, foreign keys), for proofs and attacks.

`make_rows` fills tables, `read_rows` reads what tables hold, `compare_rows` tells two states apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from dbops.rows.catalog import PLAIN_TEXT, Connection, Table, load, settings
from dbops.rows.content import compare_rows, read_rows
from dbops.rows.fill import Filler
from dbops.rows.order import in_order
from dbops.rows.plan import Want
from dbops.rows.statements import name, run
from dbops.rows.together import fill_together

__all__ = ["Filled", "Made", "Unfilled", "compare_rows", "make_rows", "read_rows"]


@dataclass(frozen=True)
class Filled:
    """A table that has rows, `rows` of them new, triggers' too. `notes` say what its rules kept from being shown."""

    table: str
    rows: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unfilled:
    """A table that has no row at all, and what is in the way."""

    table: str
    reason: str


@dataclass(frozen=True)
class Made:
    filled: tuple[Filled, ...]
    unfilled: tuple[Unfilled, ...]


def make_rows(
    conn: Connection,
    schemas: Sequence[str],
    *,
    per_table: int = 20,
    seed: int = 0,
    exclude: Sequence[str] = (),
    extremes: bool = True,
) -> Made:
    """Add rows to every table of the schemas, and to those elsewhere that they refer to.

    At least `per_table` in each where its rules allow: every nullable column NULL and not NULL, every value
    of enums, booleans and short lists, keys that refer to rows. Rows that are there stay. `exclude` holds
    names like `public.schema_migrations`; without `extremes` no integer is its type's least or greatest, so
    that statements may add to them. The same seed makes the same rows in equal databases (what
    triggers write apart). All of it is one transaction, or a savepoint in the caller's, in which constraints
    are immediate from then on.
    """
    with conn.transaction(), settings(conn, PLAIN_TEXT):
        conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
        fillers: list[Filler] = []
        groups = in_order(load(conn, schemas, exclude))
        before = {table.oid: _count(conn, table) for group in groups for table in group}
        for group in groups:
            own = [Filler(conn, table, seed, extremes=extremes) for table in group]
            for filler in own:  # what the other tables' triggers wrote
                filler.added = max(0, _count(conn, filler.table) - before[filler.table.oid])
            fillers += _fill_group(conn, own, per_table)
        for filler in fillers:  # keys to tables that came later have something to refer to now
            filler.cover()
        reports = [_report(conn, filler, per_table) for filler in fillers]
    filled = tuple(report for report in reports if isinstance(report, Filled))
    return Made(filled, tuple(report for report in reports if isinstance(report, Unfilled)))


def _fill_group(conn: Connection, fillers: list[Filler], count: int) -> list[Filler]:
    tables = [filler.table for filler in fillers]
    if not _knotted(tables):
        fillers[0].fill(count)
        return fillers
    fill_together(conn, fillers, min(3, count))
    for filler in fillers:
        filler.fill(count)
    short = max(count - filler.added for filler in fillers)
    if short > 0:  # a unique key to each other: such rows can only come together
        fill_together(conn, fillers, short)
    return fillers


def _knotted(tables: Sequence[Table]) -> bool:
    itself = {key.needs for table in tables for key in table.keys if table.mandatory(key)}
    return len(tables) > 1 or tables[0].oid in itself


def _report(conn: Connection, filler: Filler, wanted: int) -> Filled | Unfilled:
    label = filler.table.label
    notes = list(filler.notes)
    if filler.added < wanted:
        notes.append(f"{filler.added} of {wanted} rows: {filler.why}")
    if not filler.added:
        why = filler.why or "no reason known"
        return Filled(label, 0, tuple(notes)) if _count(conn, filler.table) else Unfilled(label, why)
    for column, pin in filler.missing():
        shown = "NULL" if pin is None else "not NULL" if isinstance(pin, Want) else repr(pin)
        notes.append(f"no row has {column} {shown}")
    return Filled(label, filler.added, tuple(notes))


def _count(conn: Connection, table: Table) -> int:
    try:
        return int(run(conn, sql.SQL("SELECT pg_catalog.count(*) FROM {}").format(name(*table.name)))[0][0])
    except psycopg.errors.InsufficientPrivilege:
        return 0
