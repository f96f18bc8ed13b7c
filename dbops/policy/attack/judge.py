"""Whether something got through that no definition allows: rows compared by a superuser, before and after."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from dbops.policy.attack.oracle import NEVER, relation, snapshot
from dbops.policy.attack.target import Attempt, Place
from dbops.policy.model import Name, Verb

# whether a verb is allowed with the row whose alias is the table's name
Allowed = Callable[[Verb], sql.Composable]


def never(_: Verb) -> sql.Composable:
    """Nothing is allowed: so that whatever a statement does is found."""
    return NEVER


def judge(place: Place, target: Name, attempt: Attempt, allowed: Allowed) -> str:
    """A query that says what got through, or NULL. $1: the rows left by the preparation, $2: what was read."""
    parts = {"rows": _rows, "count": _count, "found": _found, "immutable": _immutable}
    query = (
        parts[attempt.judge](place, target, attempt, allowed)
        if attempt.judge in parts
        else _written(place, attempt, allowed)
    )
    return query.as_string(None)


def _rows(place: Place, _: Name, __: Attempt, allowed: Allowed) -> sql.Composable:
    return sql.SQL(
        "SELECT pg_catalog.count(*) || ' rows read' FROM {} AS {} "
        "WHERE dbops_mark = ANY ($2::text[]) AND NOT {} HAVING pg_catalog.count(*) > 0"
    ).format(snapshot(place.table.oid), sql.Identifier(place.name.name), allowed("select"))


def _count(place: Place, target: Name, _: Attempt, allowed: Allowed) -> sql.Composable:
    within: sql.Composable = sql.SQL("true")
    if target != place.name:
        within = sql.SQL(
            "dbops_oid IN (SELECT relid FROM pg_catalog.pg_partition_tree({}::pg_catalog.regclass))"
        ).format(sql.Literal(relation(target).as_string(None)))
    return sql.SQL(
        "SELECT $2::bigint || ' rows counted where ' || pg_catalog.count(*) || ' are allowed' FROM {} AS {} "
        "WHERE {} AND {} HAVING pg_catalog.count(*) < $2::bigint"
    ).format(snapshot(place.table.oid), sql.Identifier(place.name.name), allowed("select"), within)


def _found(place: Place, _: Name, attempt: Attempt, allowed: Allowed) -> sql.Composable:
    return sql.SQL(
        "SELECT 'the row was found by its key' FROM {} AS {} WHERE $2::bigint > 0 AND dbops_mark = {} AND NOT {}"
    ).format(snapshot(place.table.oid), sql.Identifier(place.name.name), sql.Literal(attempt.mark), allowed("select"))


def _any_of(verbs: tuple[Verb, ...], allowed: Allowed) -> sql.Composable:
    ways = [allowed(verb) for verb in verbs]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(ways)) if ways else NEVER


def _written(place: Place, attempt: Attempt, allowed: Allowed) -> sql.Composable:
    old = _any_of(tuple(verb for verb in attempt.writes if verb != "insert"), allowed)
    new = _any_of(tuple(verb for verb in attempt.writes if verb != "delete"), allowed)
    return sql.SQL(
        "SELECT nullif(pg_catalog.concat_ws(', ',"
        " (SELECT pg_catalog.count(*) || ' rows changed or removed' FROM {snap} AS {alias}"
        " WHERE ($1::text[] IS NULL OR dbops_mark = ANY ($1::text[]))"
        " AND NOT EXISTS (SELECT FROM {table} n WHERE n.tableoid = {alias}.dbops_oid AND n.ctid = {alias}.dbops_ctid)"
        " AND NOT {old} HAVING pg_catalog.count(*) > 0),"
        " (SELECT pg_catalog.count(*) || ' rows written' FROM {table} AS {alias}"
        " WHERE NOT EXISTS (SELECT FROM {snap} b WHERE b.dbops_oid = {alias}.tableoid AND b.dbops_ctid = {alias}.ctid)"
        " AND NOT {new} HAVING pg_catalog.count(*) > 0)), '')"
    ).format(
        snap=snapshot(place.table.oid),
        alias=sql.Identifier(place.name.name),
        table=relation(place.name),
        old=old,
        new=new,
    )


def _immutable(place: Place, _: Name, __: Attempt, ___: Allowed) -> sql.Composable:
    columns = place.rules.immutable if place.rules else ()
    shown = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns)
    return sql.SQL(
        "SELECT 'a column that may not change was changed' WHERE EXISTS ("
        "SELECT {shown} FROM {table} EXCEPT ALL SELECT {shown} FROM {snap}"
        " WHERE $1::text[] IS NULL OR dbops_mark = ANY ($1::text[]))"
    ).format(shown=shown, table=relation(place.name), snap=snapshot(place.table.oid))
