"""The live tables as a merge needs them: columns, primary key, foreign keys, sequences. A partition is its root's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dbops.backup.model import Name
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

ROOM = "backup/merge"


@dataclass(frozen=True)
class LiveColumn:
    name: str
    type: str  # format_type, qualified
    not_null: bool = False
    generated: bool = False
    identity: str = ""
    has_default: bool = False


@dataclass(frozen=True)
class LiveTable:
    """A table that is no partition. `equals` are the operators of its primary key's index, as SQL."""

    name: Name
    columns: tuple[LiveColumn, ...]
    key: tuple[str, ...] = ()
    equals: tuple[str, ...] = ()
    partitioned: bool = False
    has_rules: bool = False
    deferrable: bool = False  # a unique key that is checked by a trigger, and so not under the replica role
    oid: int = 0

    @property
    def written(self) -> tuple[LiveColumn, ...]:
        """The columns that rows bring with them: all but the generated ones."""
        return tuple(column for column in self.columns if not column.generated)


@dataclass(frozen=True)
class ForeignKey:
    """`child` refers to `parent`; both are names of roots. `equals` are its operators, parent on the left."""

    name: str
    child: Name
    parent: Name
    child_columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    equals: tuple[str, ...] = ()
    on_delete: str = "a"  # confdeltype: a no action, r restrict, c cascade, n set null, d set default
    period: bool = False
    child_partitioned: bool = False
    parent_partitioned: bool = False

    def __str__(self) -> str:
        return f"{self.child} ({', '.join(self.child_columns)}) -> {self.parent}"


@dataclass(frozen=True)
class Catalog:
    """`roots` has the root of each table's name, its own for a table that is no partition."""

    tables: Mapping[Name, LiveTable]
    foreign_keys: tuple[ForeignKey, ...]
    roots: Mapping[Name, Name]

    @cached_property
    def by_child(self) -> Mapping[Name, tuple[ForeignKey, ...]]:
        return {name: tuple(key for key in self.foreign_keys if key.child == name) for name in self.tables}

    @cached_property
    def by_parent(self) -> Mapping[Name, tuple[ForeignKey, ...]]:
        return {name: tuple(key for key in self.foreign_keys if key.parent == name) for name in self.tables}


def read_catalog(conn: Connection) -> Catalog:
    """All tables but PostgreSQL's own, in a transaction whose search_path is empty."""
    named = queries(ROOM)
    rows = conn.execute(named["tables"], {}).fetchall()
    names = {oid: Name(schema, name) for oid, schema, name, *_ in rows}
    roots = {oid: root for oid, _, _, _, root, *_ in rows}
    partitioned = {names[oid] for oid, _, _, kind, *_ in rows if kind == "p"}
    parameters = {"tables": [oid for oid in names if roots[oid] == oid]}
    columns: dict[int, list[LiveColumn]] = {}
    for oid, *column in conn.execute(named["columns"], parameters):
        columns.setdefault(oid, []).append(LiveColumn(*column))
    keys = {oid: (tuple(key), tuple(equals)) for oid, key, equals in conn.execute(named["keys"], parameters)}
    tables = {
        names[oid]: LiveTable(
            names[oid], tuple(columns.get(oid, ())), *keys.get(oid, ((), ())), kind == "p", has_rules, deferrable, oid
        )
        for oid, _, _, kind, root, has_rules, deferrable in rows
        if root == oid
    }
    foreign_keys: list[ForeignKey] = []
    for name, child, parent, delete, period, ours, theirs, equals in conn.execute(named["foreign_keys"], {}):
        if child in names and parent in names:
            ends = names[roots[child]], names[roots[parent]]
            pairs = tuple(ours), tuple(theirs), tuple(equals)
            whole = ends[0] in partitioned, ends[1] in partitioned
            foreign_keys.append(ForeignKey(name, *ends, *pairs, delete, period, *whole))
    return Catalog(tables, tuple(foreign_keys), {names[oid]: names[root] for oid, root in roots.items()})


def sequences_of(conn: Connection, tables: Sequence[LiveTable]) -> dict[Name, int]:
    """The sequences that fill columns of these tables, with their increments."""
    return {Name(schema, name): step for schema, name, step, _ in _sequences(conn, tables)}


def sequence_oids(conn: Connection, tables: Sequence[LiveTable]) -> list[int]:
    return [oid for *_, oid in _sequences(conn, tables)]


def _sequences(conn: Connection, tables: Sequence[LiveTable]) -> list[tuple[str, str, int, int]]:
    return conn.execute(queries(ROOM)["sequences"], {"tables": [table.oid for table in tables]}).fetchall()
