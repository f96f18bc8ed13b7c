"""The statements of an attack on one table, as pure data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psycopg import sql

from dbops.policy.attack.oracle import relation
from dbops.policy.attack.statements import (
    alone,
    assign,
    childless,
    granted,
    insert,
    is_row,
    literals,
    names,
    plain_column,
    text,
    updatable,
    update,
    without,
)
from dbops.policy.attack.target import Attempt, Pair, Row


def plan(pair: Pair) -> tuple[Attempt, ...]:
    """All that is tried with a victim's row and, if there is one, the attacker's own."""
    return (*reads(pair), *inserts(pair), *updates(pair), *changes_of_owner(pair), *deletes(pair), *merges(pair))


# --- the statements ---


def reads(pair: Pair) -> Iterator[Attempt]:
    target = relation(pair.relation)
    rows = sql.SQL("SELECT pg_catalog.array_agg(t.tableoid::text || t.ctid::text) FROM {} t").format(target)
    count = sql.SQL("SELECT pg_catalog.count(*) FROM {}").format(target)
    yield Attempt("select", "all rows", text(rows), "rows", telling=True)
    yield Attempt("select", "count", text(count), "count", telling=True)
    by_key = sql.SQL("{} WHERE {}").format(count, is_row(pair.place, pair.victim))
    yield Attempt("select", "by the victim's key", text(by_key), "found", mark=pair.victim.mark)


def inserts(pair: Pair) -> Iterator[Attempt]:
    place, target, victim = pair.place, pair.relation, pair.victim
    room = without(place, victim)
    returning = sql.SQL(" RETURNING {}").format(names(place.writable[:1]))
    nothing = sql.SQL(" ON CONFLICT DO NOTHING")
    row = insert(place, target, victim)
    yield Attempt("insert", "as the victim", row, prepare=room, telling=True, writes=("insert",))
    with_returning = insert(place, target, victim, returning)
    yield Attempt("insert", "as the victim, RETURNING", with_returning, prepare=room, writes=("insert",))
    yield Attempt(
        "insert",
        "as the victim, ON CONFLICT DO NOTHING",
        insert(place, target, victim, nothing),
        prepare=room,
        writes=("insert",),
    )
    if pair.own is not None:
        yield Attempt(
            "insert",
            "a row of one's own",
            insert(place, target, pair.own),
            prepare=without(place, pair.own),
            telling=True,
            writes=("insert",),
            own=True,
        )
    column = plain_column(place)
    if place.key and column is not None:
        yield from _upserts(pair, column)


def _upserts(pair: Pair, column: str) -> Iterator[Attempt]:
    place, victim = pair.place, pair.victim
    tail = sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {} = EXCLUDED.{}").format(
        names(place.key), sql.Identifier(column), sql.Identifier(column)
    )
    statement = insert(place, pair.relation, victim, tail)
    yield Attempt("insert", "ON CONFLICT DO UPDATE", statement, writes=("insert", "update"))
    if pair.own is not None and not set(place.scope) & set(place.key):
        mixed = Row(victim.mark, {**pair.own.values, **{c: victim.values[c] for c in place.key}})
        statement = insert(place, pair.relation, mixed, tail)
        yield Attempt(
            "insert", "own row with the victim's key, ON CONFLICT DO UPDATE", statement,
            prepare=without(place, pair.own), writes=("insert", "update"),
        )  # fmt: skip


def updates(pair: Pair) -> Iterator[Attempt]:
    place, target, victim = pair.place, pair.relation, pair.victim
    column = plain_column(place)
    if column is None:
        return
    every = update(target, [column], victim)
    # no column is read: the SELECT policy would hide a bad UPDATE policy otherwise
    for prepare in ((), alone(place, victim)):
        yield Attempt("update", "every row", every, prepare=prepare, telling=True, writes=("update",))
        for number, turn in enumerate(pair.turns, 1):
            statement = update(target, list(turn), Row(victim.mark, turn))
            said = f"every row, as a check asks ({number})"
            yield Attempt("update", said, statement, prepare=prepare, telling=True, writes=("update",))
    if pair.own is not None:
        own = update(target, [column], pair.own)
        yield Attempt(
            "update",
            "a row of one's own",
            own,
            prepare=alone(place, pair.own),
            telling=True,
            writes=("update",),
            own=True,
        )
    where = sql.SQL(" WHERE {}").format(is_row(place, victim))
    returning = sql.SQL(" RETURNING {}").format(sql.Identifier(column))
    for prepare in ((), childless(place, victim)):
        yield Attempt("update", "WHERE", update(target, [column], victim, where), prepare=prepare, writes=("update",))
        yield Attempt(
            "update",
            "RETURNING",
            update(target, [column], victim, returning),
            prepare=prepare or alone(place, victim),
            writes=("update",),
        )
        yield Attempt(
            "update",
            "WHERE RETURNING",
            update(target, [column], victim, sql.Composed([where, returning])),
            prepare=prepare,
            writes=("update",),
        )


def changes_of_owner(pair: Pair) -> Iterator[Attempt]:
    """Take a victim's row over, give one's own row away, change what may not change."""
    place, own, victim = pair.place, pair.own, pair.victim
    columns = updatable(place)
    if own is None or not set(place.scope) <= set(columns):
        return
    for label, from_, to in (("take the row over", victim, own), ("give one's row away", own, victim)):
        where = sql.SQL(" WHERE {}").format(is_row(place, from_))
        for scope in place.scope:
            # the column that says whose it is, else all: a foreign key may want the others to go along
            for chosen in ((scope,), columns):
                said, made = f"{label} ({scope})", alone(place, from_)
                plain, narrow = update(pair.relation, chosen, to), update(pair.relation, chosen, to, where)
                yield Attempt("update", said, plain, prepare=made, telling=True, writes=("update",))
                yield Attempt("update", f"{said}, WHERE", narrow, prepare=made, writes=("update",))
            for number, turn in enumerate(pair.turns, 1):
                turned = Row(to.mark, {**to.values, **turn})
                statement = update(pair.relation, (*place.scope, *(c for c in turn if c not in place.scope)), turned)
                said, made = f"{label} ({scope}), as a check asks ({number})", alone(place, from_)
                yield Attempt("update", said, statement, prepare=made, telling=True, writes=("update",))
    yield from _immutable(pair, own)


def _immutable(pair: Pair, own: Row) -> Iterator[Attempt]:
    place = pair.place
    others = [row for row in (pair.victim, *place.rows) if row.mark != own.mark]
    where = sql.SQL(" WHERE {}").format(is_row(place, own))
    for column in place.rules.immutable if place.rules else ():
        for other in [row for row in others if row.values.get(column) != own.values.get(column)][:4]:
            statement = update(pair.relation, [column], other, where)
            yield Attempt("update", f"change {column}", statement, "immutable", alone(place, own), writes=("update",))


def deletes(pair: Pair) -> Iterator[Attempt]:
    place, victim = pair.place, pair.victim
    every = sql.SQL("DELETE FROM {}").format(relation(pair.relation))
    where = sql.SQL("{} WHERE {}").format(every, is_row(place, victim))
    returning = sql.SQL(" RETURNING {}").format(names(place.writable[:1]))
    for prepare in ((), alone(place, victim)):
        yield Attempt("delete", "every row", text(every), prepare=prepare, telling=True, writes=("delete",))
        yield Attempt("delete", "RETURNING", text(every + returning), prepare=prepare, writes=("delete",))
    if pair.own is not None:
        made = alone(place, pair.own)
        yield Attempt(
            "delete", "a row of one's own", text(every), prepare=made, telling=True, writes=("delete",), own=True
        )
    for prepare in ((), childless(place, victim)):
        yield Attempt("delete", "WHERE", text(where), prepare=prepare, writes=("delete",))
        yield Attempt("delete", "WHERE RETURNING", text(where + returning), prepare=prepare, writes=("delete",))


def merges(pair: Pair) -> Iterator[Attempt]:
    place, victim = pair.place, pair.victim
    column = plain_column(place)
    if not place.key:
        return
    on = is_row(place, victim)
    into = sql.SQL("MERGE INTO {} USING (SELECT 1) AS dbops_source ON {} WHEN MATCHED THEN ").format(
        relation(pair.relation), on
    )
    for prepare in ((), childless(place, victim)):
        yield Attempt("merge", "DELETE", text(into + sql.SQL("DELETE")), prepare=prepare, writes=("delete",))
        if column is not None:
            do = into + sql.SQL("UPDATE SET {}").format(assign([column], victim))
            yield Attempt("merge", "UPDATE", text(do), prepare=prepare, writes=("update",))
    columns = granted(place, "INSERT")
    do = into + sql.SQL("DO NOTHING WHEN NOT MATCHED THEN INSERT ({}) {}VALUES ({})").format(
        names(columns), sql.SQL("OVERRIDING SYSTEM VALUE " if place.identity_always else ""), literals(victim, columns)
    )
    yield Attempt("merge", "INSERT", text(do), prepare=without(place, victim), writes=("insert",))


# --- what the rightful user must be able to do ---


def controls(pair: Pair, verbs: Iterable[str]) -> Iterator[Attempt]:
    """The statements that must work for one who is allowed: on his own row."""
    own, place = pair.own, pair.place
    if own is None:
        return
    where = sql.SQL(" WHERE {}").format(is_row(place, own))
    for verb in verbs:
        if verb == "select":
            count = sql.SQL("SELECT pg_catalog.count(*) FROM {}{}").format(relation(pair.relation), where)
            yield Attempt("select", "own row", text(count), "found", mark=own.mark)
        elif verb == "insert":
            yield Attempt(
                "insert", "own row", insert(place, pair.relation, own), prepare=without(place, own), writes=("insert",)
            )
        elif verb == "update":
            column = plain_column(place)
            if column is not None:
                yield Attempt(
                    "update",
                    "own row",
                    update(pair.relation, [column], own),
                    prepare=alone(place, own),
                    writes=("update",),
                )
        else:
            delete = sql.SQL("DELETE FROM {}").format(relation(pair.relation))
            yield Attempt("delete", "own row", text(delete), prepare=alone(place, own), writes=("delete",))
