"""The statements of an attack on one table, as pure data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from psycopg import sql

from dbops.policy.attack.oracle import relation
from dbops.policy.attack.target import Attempt, Pair, Place, Row
from dbops.policy.model import Name

_REPLICA = "SET LOCAL session_replication_role = replica"
_ORIGIN = "SET LOCAL session_replication_role = origin"


def plan(pair: Pair) -> tuple[Attempt, ...]:
    """All that is tried with a victim's row and, if there is one, the attacker's own."""
    return (*reads(pair), *inserts(pair), *updates(pair), *changes_of_owner(pair), *deletes(pair), *merges(pair))


def text(statement: sql.Composable) -> str:
    return statement.as_string(None)


# --- parts of statements ---


def names(columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def literals(row: Row, columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Literal(row.values[column]) for column in columns)


def is_row(place: Place, row: Row) -> sql.Composable:
    """A condition that holds for this row only. Without a key it is by where the row lies."""
    if not place.key:
        return sql.SQL("tableoid::text || ctid::text = {}").format(sql.Literal(row.mark))
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.Literal(row.values[column])) for column in place.key
    )


def _assign(columns: Sequence[str], row: Row) -> sql.Composable:
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(c), sql.Literal(row.values[c])) for c in columns]
    return sql.SQL(", ").join(pairs)


def _quietly(place: Place, *statements: str) -> tuple[str, ...]:
    # only where it is needed: each change of this setting throws all plans of the session away
    return (_REPLICA, *statements, _ORIGIN) if place.guarded else statements


def without(place: Place, *rows: Row) -> tuple[str, ...]:
    """Take rows away without triggers and cascades, to make room for their keys."""
    gone = [text(sql.SQL("DELETE FROM {} WHERE {}").format(relation(place.name), is_row(place, row))) for row in rows]
    return _quietly(place, *gone)


def alone(place: Place, row: Row) -> tuple[str, ...]:
    """Take all other rows away, and what refers to this one: a statement without WHERE then meets this row only."""
    delete = sql.SQL("DELETE FROM {} WHERE ({}) IS NOT TRUE").format(relation(place.name), is_row(place, row))
    return _quietly(place, text(delete), *_childless(place, row))


def childless(place: Place, row: Row) -> tuple[str, ...]:
    """Take away what refers to the row, so that no foreign key stands in front of a policy."""
    return _quietly(place, *_childless(place, row)) if place.children else ()


def _childless(place: Place, row: Row) -> Iterator[str]:
    for child, columns, ours in place.children:
        if any(row.values.get(column) is None for column in ours):
            continue
        yield text(
            sql.SQL("DELETE FROM {} WHERE ({}) = ({}) AND NOT ({})").format(
                relation(child),
                names(columns),
                literals(row, ours),
                is_row(place, row) if child == place.name else sql.SQL("false"),
            )
        )


def insert(place: Place, target: Name, row: Row, tail: sql.Composable | None = None) -> str:
    columns = _granted(place, "INSERT")
    return text(
        sql.SQL("INSERT INTO {} ({}) {}VALUES ({}){}").format(
            relation(target),
            names(columns),
            sql.SQL("OVERRIDING SYSTEM VALUE " if place.identity_always else ""),
            literals(row, columns),
            tail or sql.SQL(""),
        )
    )


def update(target: Name, columns: Sequence[str], row: Row, tail: sql.Composable | None = None) -> str:
    return text(sql.SQL("UPDATE {} SET {}{}").format(relation(target), _assign(columns, row), tail or sql.SQL("")))


def _granted(place: Place, verb: str) -> tuple[str, ...]:
    return tuple(place.granted.get(verb) or place.writable)


def updatable(place: Place) -> tuple[str, ...]:
    """Columns that an UPDATE may set: an identity ALWAYS and a generated one may not be."""
    granted = _granted(place, "UPDATE")
    fixed_ = {column.name for column in place.table.columns if not column.writable}
    return tuple(column for column in granted if column not in fixed_)


def plain_column(place: Place) -> str | None:
    """A column that is in no key and says nothing of whose the row is; else any that may be set."""
    rules = place.rules
    taken = {*place.scope, *place.key, *(rules.immutable if rules else ())}
    taken |= {column for key in (*place.table.unique, *place.table.foreign) for column in key.columns}
    columns = updatable(place)
    return next((column for column in columns if column not in taken), columns[0] if columns else None)


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
            do = into + sql.SQL("UPDATE SET {}").format(_assign([column], victim))
            yield Attempt("merge", "UPDATE", text(do), prepare=prepare, writes=("update",))
    columns = _granted(place, "INSERT")
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
