"""Parts of an attack's statements, and the preparations that take rows out of their way. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from psycopg import sql

from dbops.policy.attack.oracle import relation
from dbops.policy.attack.target import Place, Row
from dbops.policy.model import Name

_REPLICA = "SET LOCAL session_replication_role = replica"
_ORIGIN = "SET LOCAL session_replication_role = origin"


def text(statement: sql.Composable) -> str:
    return statement.as_string(None)


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


def assign(columns: Sequence[str], row: Row) -> sql.Composable:
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(c), sql.Literal(row.values[c])) for c in columns]
    return sql.SQL(", ").join(pairs)


def _quietly(place: Place, *statements: str) -> tuple[str, ...]:
    # only where it is needed: each change of this setting throws all plans of the session away
    return as_replica(*statements) if place.guarded else statements


def without(place: Place, *rows: Row) -> tuple[str, ...]:
    """Take rows away without triggers and cascades, to make room for their keys."""
    gone = [text(sql.SQL("DELETE FROM {} WHERE {}").format(relation(place.name), is_row(place, row))) for row in rows]
    return _quietly(place, *gone)


def alone(place: Place, row: Row) -> tuple[str, ...]:
    """Take all other rows away, and what refers to this one: a statement without WHERE then meets this row only."""
    delete = sql.SQL("DELETE FROM {} WHERE ({}) IS NOT TRUE").format(relation(place.name), is_row(place, row))
    return _quietly(place, text(delete), *_childless(place, row))


def as_replica(*statements: str) -> tuple[str, ...]:
    """The statements without triggers and foreign keys."""
    return (_REPLICA, *statements, _ORIGIN)


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
    columns = granted(place, "INSERT")
    return text(
        sql.SQL("INSERT INTO {} ({}) {}VALUES ({}){}").format(
            relation(target),
            names(columns),
            sql.SQL("OVERRIDING SYSTEM VALUE " if place.identity_always else ""),
            literals(row, columns),
            tail or sql.SQL(""),
        )
    )


def there(place: Place, row: Row) -> tuple[str, ...]:
    """Make the row where it is not yet, without triggers and foreign keys: what a script of its own begins with."""
    whole = replace(place, granted={})
    return as_replica(insert(whole, place.name, row, sql.SQL(" ON CONFLICT DO NOTHING")))


def update(target: Name, columns: Sequence[str], row: Row, tail: sql.Composable | None = None) -> str:
    return text(sql.SQL("UPDATE {} SET {}{}").format(relation(target), assign(columns, row), tail or sql.SQL("")))


def granted(place: Place, verb: str) -> tuple[str, ...]:
    return tuple(place.granted.get(verb) or place.writable)


def updatable(place: Place) -> tuple[str, ...]:
    """Columns that an UPDATE may set: an identity ALWAYS and a generated one may not be."""
    fixed_ = {column.name for column in place.table.columns if not column.writable}
    return tuple(column for column in granted(place, "UPDATE") if column not in fixed_)


def plain_column(place: Place) -> str | None:
    """A column that is in no key and says nothing of whose the row is; else any that may be set."""
    rules = place.rules
    taken = {*place.scope, *place.key, *(rules.immutable if rules else ())}
    taken |= {column for key in (*place.table.unique, *place.table.foreign) for column in key.columns}
    columns = updatable(place)
    return next((column for column in columns if column not in taken), columns[0] if columns else None)
