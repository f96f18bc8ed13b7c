"""The table as it is in the database, and the pieces of SQL that name its columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from dbops.errors import DbopsError, UsageError
from dbops.hygiene.model import MEMORIES
from dbops.hygiene.session import Session
from dbops.hygiene.table.model import NOTHING, Target
from dbops.sql import queries

ROOM = "hygiene/table"
COMMA = SQL(", ")
# the rows that a statement is about, by their keys
KEYS = SQL("pg_catalog.unnest(%(keys)s::pg_catalog.jsonb[]) k(dbops_key)")
KEY = SQL("k.dbops_key")


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    generated: bool
    always: bool  # GENERATED ALWAYS AS IDENTITY: an UPDATE cannot set it


@dataclass(frozen=True)
class Source:
    """A table with a primary key. Rows go by `t` in what is composed here."""

    schema: str
    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def relation(self) -> Identifier:
        return Identifier(self.schema, self.name)

    @property
    def shown(self) -> str:
        return f"{self.schema}.{self.name}"

    def key_of(self, row: str = "t") -> Composed:
        """The key as one text, by which plans and the ledger name a row."""
        parts = COMMA.join(SQL("{}::pg_catalog.text").format(Identifier(row, name)) for name in self.key)
        return SQL("pg_catalog.jsonb_build_array({})::pg_catalog.text").format(parts)

    def same(self, key: Composable, row: str = "t") -> Composed:
        """Whether a row has the key that a jsonb array holds; the primary key's index serves it."""
        parts = [
            SQL("{} = CAST({} OPERATOR(pg_catalog.->>) {} AS {})").format(
                Identifier(row, name), key, Literal(number), self.type_of(name)
            )
            for number, name in enumerate(self.key)
        ]
        return SQL(" AND ").join(parts)

    def image(self, row: str = "t") -> Composed:
        """The row as a jsonb object of texts, which keep each value exactly."""
        names = COMMA.join(Literal(column.name) for column in self.written)
        values = COMMA.join(SQL("{}::pg_catalog.text").format(Identifier(row, column.name)) for column in self.written)
        text = "pg_catalog.jsonb_object(ARRAY[{}]::pg_catalog.text[], ARRAY[{}]::pg_catalog.text[])"
        return SQL(text).format(names, values)

    @property
    def written(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if not column.generated)

    def type_of(self, name: str) -> Composable:
        """A column's type."""
        # printed by the catalog, with its schema
        return SQL(next(column.type for column in self.columns if column.name == name))

    def only(self, names: Collection[str]) -> Source:
        """The table as if it had no other columns."""
        return replace(self, columns=tuple(column for column in self.columns if column.name in names))

    def value(self, column: Column, image: Composable) -> Composed:
        """A column's value out of an image."""
        return SQL("CAST({} OPERATOR(pg_catalog.->>) {} AS {})").format(
            image, Literal(column.name), self.type_of(column.name)
        )


def raw(text: str) -> Composed:
    """An expression that was checked when the target was made, closed against what follows."""
    return SQL("(\n{}\n)").format(verbatim(text))


def verbatim(text: str) -> SQL:
    """A checked text in a statement that has parameters, where a % is written twice."""
    return SQL(text.replace("%", "%%"))


@contextmanager
def hinted(what: str, hint: str) -> Iterator[None]:
    """An error of PostgreSQL's that nobody foresaw, told with what it happened to."""
    try:
        yield
    except DbopsError as error:
        if error.hint:
            raise
        raise DbopsError(f"{what}: {error.message}", hint=hint) from error


_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence"}


def read_source(session: Session, target: Target) -> Source:
    """The target's table. Raises UsageError where it does not fit, or its rows could not be brought back."""
    source, losing = read_table(session, target)
    if source.shown == MEMORIES:
        raise UsageError(
            f"--table {target.table}: {MEMORIES} has a ledger of its own, by which undo goes",
            hint=f"leave out --table and the options that go with it; {NOTHING}",
        )
    if target.deletes and losing:
        raise UsageError(
            f"a delete in {source.shown} would change rows of {', '.join(losing)} that undo could not bring back",
            hint=f"--action mark:COLUMN=VALUE instead; {NOTHING}",
        )
    _refuse_unknown(source, target)
    return source


def read_table(session: Session, target: Target) -> tuple[Source, list[str]]:
    """The table, and those whose rows a delete in it would change. Raises UsageError where it cannot be worked with."""
    schema, name = target.place
    rows = session.conn.execute(queries(ROOM)["table"], {"schema": schema, "name": name}).fetchall()
    if not rows:
        raise UsageError(f"{schema}.{name} does not exist", hint=f"--table names a table, with its schema; {NOTHING}")
    oid, kind, key, losing, children = rows[0]
    if kind not in ("r", "p"):
        raise UsageError(f"{schema}.{name} is {_KINDS.get(kind, 'something else')}, no table", hint=NOTHING)
    if children:
        raise UsageError(
            f"{schema}.{name} is inherited by {', '.join(children)}: a change in it would reach their rows too",
            hint=f"name one of these; {NOTHING}",
        )
    if not key:
        raise UsageError(
            f"{schema}.{name} has no primary key: its rows cannot be told apart", hint=f"add one; {NOTHING}"
        )
    columns = tuple(Column(*row) for row in session.conn.execute(queries(ROOM)["columns"], {"table": oid}))
    source = Source(schema, name, tuple(key), columns)
    if strange := [each for each in (schema, name, *(column.name for column in columns)) if "%" in each]:
        raise UsageError(f"--table: {source.shown}: a name with % in it ({strange[0]}) is not supported", hint=NOTHING)
    return source, losing


def _refuse_unknown(source: Source, target: Target) -> None:
    known = {column.name for column in source.columns}
    for option, names in target.columns.items():
        if missing := sorted(names - known):
            raise UsageError(f"--{option}: {source.shown} has no column {', '.join(missing)}", hint=NOTHING)
    if not target.deletes:
        column = target.assignment[0]
        kept = column in source.key or any(c.generated or c.always for c in source.columns if c.name == column)
        if kept:
            raise UsageError(f"--action: {source.shown}.{column} cannot be set", hint=f"name another column; {NOTHING}")
