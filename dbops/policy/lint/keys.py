"""Rules on indexes and keys: what a policy needs to be quick, and what a key tells of others' rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dbops.policy.lint.model import WRITES, Found, Severity, Subject, rule
from dbops.policy.state import Key, Table


def _owned(subject: Subject) -> Iterator[tuple[Table, frozenset[str]]]:
    """The tables under RLS of which it is known whose a row is, with those columns."""
    for name, table in subject.catalog.tables.items():
        if table.rls and (columns := subject.owner_columns(name) & {c.name for c in table.columns}):
            yield table, columns


@rule(
    "policy-index-missing",
    "warning",
    "an index that begins with it; `dbops policy plan --write-migration` writes it",
    replaces=("PERF003",),
    about="speed",
)
def policy_index_missing(subject: Subject) -> Iterable[Found]:
    """The column that says whose a row is begins no index: every query reads the whole table."""
    for table, columns in _owned(subject):
        for column in sorted(columns):
            if table.kind != "f" and not any(index[:1] == (column,) for index in table.indexed):
                yield Found(table.name, f"{table.name}: no index begins with {column}")


def _guessable(table: Table, columns: Iterable[str]) -> Severity | None:
    """A key of nothing but uuids can be probed by who knows the value already: little is told."""
    types = {column.type for name in columns if (column := table.column(name))}
    return "info" if types == {"uuid"} else None


@rule(
    "unique-oracle",
    "warning",
    "make the owner's column the key's first: unique (user_id, …)",
    replaces=("SEC035",),
)
def unique_oracle(subject: Subject) -> Iterable[Found]:
    """A unique key without the owner's column: an insert that fails tells of another's row."""
    for table, owners in _owned(subject):
        writable = {column.name for column in table.columns if column.writable}
        if not subject.reachable(table, ("INSERT", "UPDATE")):
            continue
        for key in table.unique:
            # a value that users can't choose asks nothing
            if key.columns and not owners & set(key.columns) and set(key.columns) <= writable:
                yield Found(
                    table.name,
                    f"{key.name} on {table.name} ({', '.join(key.columns)}) tells who inserts whether another has it",
                    _guessable(table, key.columns),
                )


@rule(
    "foreign-key-oracle",
    "warning",
    "carry the owner's column in the key: foreign key (user_id, …) references … (user_id, …)",
    replaces=("SEC047",),
)
def foreign_key_oracle(subject: Subject) -> Iterable[Found]:
    """A foreign key to a table of users' rows without the owner's column: it tells which rows there are."""
    owned = {table.name: columns for table, columns in _owned(subject)}
    for name, table in subject.catalog.tables.items():
        if not subject.reachable(table, WRITES - {"DELETE"}):
            continue
        for key in table.foreign:
            if key.refers_to in owned and not _carries_owner(key, owned[key.refers_to], subject.owner_columns(name)):
                yield Found(
                    name,
                    f"{key.name} on {name} ({', '.join(key.columns)}) tells who writes which rows {key.refers_to} has",
                    _guessable(table, key.columns),
                )


def _carries_owner(key: Key, theirs: frozenset[str], own: frozenset[str]) -> bool:
    """Whether a column that the row's own policy holds to the user is the referred one's owner."""
    return any(
        column in own and other in theirs for column, other in zip(key.columns, key.foreign_columns, strict=True)
    )
