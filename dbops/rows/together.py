"""Rows of several tables that must refer to each other, inserted by one statement."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from dbops.rows.catalog import Connection, Table
from dbops.rows.fill import TRIES, Filler
from dbops.rows.order import unify
from dbops.rows.plan import Row
from dbops.rows.statements import insert_statement, run


def fill_together(conn: Connection, fillers: Sequence[Filler], count: int) -> None:
    """Add rows, one a table, that refer to each other, by one statement: keys are checked at its end."""
    tables = [filler.table for filler in fillers]
    oids = {table.oid for table in tables}
    for filler in fillers:
        inner = {key for key in filler.table.keys if key.needs in oids and filler.table.mandatory(key)}
        filler.proposer.use(key for key in filler.table.keys if key not in inner)
    wanted = [filler.added + count for filler in fillers]
    for _ in range(TRIES + count):
        if fillers[0].added >= wanted[0] or not all(filler.going() for filler in fillers):
            break
        _one_together(conn, fillers, tables)
    for filler in fillers:
        filler.proposer.use(filler.table.keys)


def _one_together(conn: Connection, fillers: Sequence[Filler], tables: Sequence[Table]) -> None:
    drafts: dict[int, Row] = {}
    for filler in fillers:
        filler.why = filler.blocked or filler.read_referable() or filler.why
        settled = filler.drafts([{}])
        if not settled:
            return
        drafts[filler.table.oid] = settled[0].row
    unify(drafts, tables)
    statements, values = [], []
    for i, filler in enumerate(fillers):
        statement, more = insert_statement(filler.table, list(filler.proposer.columns), [drafts[filler.table.oid]], [])
        statements.append(sql.SQL("{} AS ({})").format(sql.Identifier(f"row {i}"), statement))
        values += more
    try:
        run(conn, sql.SQL("WITH {} SELECT").format(sql.SQL(", ").join(statements)), values)
    except psycopg.Error as error:
        for filler in fillers:
            filler.refused(error)
        return
    for filler in fillers:
        filler.added += 1
        filler.proposer.reserve(drafts[filler.table.oid])
