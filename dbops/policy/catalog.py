"""What a database has of tables, policies, grants and roles, read with a handful of statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dbops.database import seeing_all
from dbops.errors import Blocked, DbopsError
from dbops.policy.model import HELPERS, PREFIX, Name
from dbops.policy.state import (
    Catalog,
    Column,
    Function,
    Grants,
    Key,
    Policy,
    Role,
    Table,
    Trigger,
    View,
)
from dbops.sql import queries

if TYPE_CHECKING:
    from psycopg import sql

    from dbops.database import Connection

SQL = queries("policy")
OURS = ["dbops", HELPERS]
RECORD = ("dbops", "policy_files")
Rows = list[tuple[Any, ...]]


def load_catalog(conn: Connection, schemas: Sequence[str] | None = None) -> Catalog:
    """The catalog of these schemas; None means all but PostgreSQL's own and those of dbops.

    Expressions and types are printed as under an empty search_path. Of the schema `HELPERS` only the functions are
    read. Changes nothing. Raises NotAllowed, CannotConnect, Blocked (who prints a predicate waits for its table).
    """
    from psycopg.errors import LockNotAvailable

    try:
        with seeing_all(conn, conn.info.server_version // 10000):
            conn.execute("SET LOCAL lock_timeout = '5s'")
            return read_catalog(conn, schemas)
    except DbopsError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        raise Blocked(
            "a table with policies is locked by another session: its policies could not be read for 5 s",
            hint="see pg_stat_activity for a long ALTER TABLE or LOCK TABLE; nothing was done",
        ) from error


def read_catalog(conn: Connection, schemas: Sequence[str] | None = None) -> Catalog:
    """As `load_catalog`, within a transaction of the caller. Its search_path is set back afterwards."""
    before = rows(conn, "policy_search_path")[0][0]
    rows(conn, "policy_set_path", path="")
    try:
        return _read(conn, schemas)
    finally:
        # after an error there is nothing to set back: the transaction is lost
        if conn.info.transaction_status.name == "INTRANS":
            rows(conn, "policy_set_path", path=before)


def rows(conn: Connection, name: str, **parameters: object) -> Rows:
    """The rows of a named statement of this room."""
    return conn.execute(SQL[name], parameters).fetchall()


def _read(conn: Connection, schemas: Sequence[str] | None) -> Catalog:
    version, database, user = rows(conn, "policy_database")[0]
    wanted = None if schemas is None else list(schemas)
    places = [row[0] for row in rows(conn, "policy_schemas", schemas=wanted, ours=OURS)]
    found = rows(conn, "policy_tables", schemas=places)
    names = {row[0]: Name(row[1], row[2]) for row in found}
    views = rows(conn, "policy_views", schemas=places)
    grants = _grants(rows(conn, "policy_grants", relations=[*names, *(row[0] for row in views)]))
    files, recorded = _files(conn)
    return Catalog(
        version, database, user,
        tables=_tables(conn, found, grants),
        views=_views(conn, views, grants),
        functions=_functions(rows(conn, "policy_functions", schemas=places, helpers=HELPERS)),
        policies=_policies(conn, names),
        triggers=_triggers(conn, names),
        roles={row[0]: Role(row[0], row[1], row[2], frozenset(row[3])) for row in rows(conn, "policy_roles")},
        verbatim=files,
        verbatim_policies=frozenset((each.table, each.name) for made in recorded.values() for each in made),
        recorded=recorded,
    )  # fmt: skip


def _policies(conn: Connection, names: Mapping[int, Name]) -> tuple[Policy, ...]:
    found = [
        Policy(names[oid], name, permissive, verb, tuple(sorted(roles)), using, check)
        for oid, name, permissive, verb, roles, using, check in rows(conn, "policy_policies", tables=list(names))
    ]
    return tuple(sorted(found, key=lambda policy: (policy.table, policy.name)))


def _triggers(conn: Connection, names: Mapping[int, Name]) -> tuple[Trigger, ...]:
    found = [
        Trigger(names[row[0]], *row[1:]) for row in rows(conn, "policy_triggers", tables=list(names), prefix=PREFIX)
    ]
    return tuple(sorted(found, key=lambda trigger: (trigger.table, trigger.name)))


def _tables(conn: Connection, found: Rows, grants: Mapping[int, Grants]) -> dict[Name, Table]:
    oids = [row[0] for row in found]
    columns = _grouped(rows(conn, "policy_columns", tables=oids))
    indexes = _grouped(rows(conn, "policy_indexes", tables=oids))
    foreign = _grouped(rows(conn, "policy_foreign_keys", tables=oids))
    column_grants = _column_grants(rows(conn, "policy_column_grants", tables=oids))
    tables = {}
    for oid, schema, name, kind, owner, rls, forced, parent_schema, parent in found:
        tables[Name(schema, name)] = Table(
            Name(schema, name), oid, kind, owner, rls, forced,
            columns=tuple(Column(*row) for row in columns[oid]),
            partition_of=Name(parent_schema, parent) if parent else None,
            indexed=tuple(tuple(key) for _, _, usable, key in indexes[oid] if usable and key),
            unique=tuple(Key(index, tuple(key)) for index, unique, _, key in indexes[oid] if unique),
            foreign=tuple(
                Key(key, tuple(own), Name(to_schema, to), tuple(theirs)) for key, to_schema, to, own, theirs in foreign[oid]
            ),
            grants=grants.get(oid, {}),
            column_grants=column_grants.get(oid, {}),
        )  # fmt: skip
    return tables


def _views(conn: Connection, found: Rows, grants: Mapping[int, Grants]) -> dict[Name, View]:
    reads = _grouped(rows(conn, "policy_view_reads", views=[row[0] for row in found]))
    return {
        Name(schema, name): View(
            Name(schema, name), oid, materialized, owner, invoker,
            tuple(Name(*row) for row in reads[oid]), grants.get(oid, {}),
        )
        for oid, schema, name, materialized, owner, invoker in found
    }  # fmt: skip


def _functions(found: Rows) -> tuple[Function, ...]:
    return tuple(
        Function(
            Name(schema, name), oid, arguments, returns, kind, definer, owner,
            tuple(settings), volatile, frozenset(executable), definition,
        )
        for schema, name, oid, arguments, returns, kind, definer, owner, settings, volatile, executable, definition in found
    )  # fmt: skip


def _files(conn: Connection) -> tuple[dict[str, str], dict[str, tuple[Policy, ...]]]:
    """The verbatim files as last applied, and the policies as they left them; nothing before the first apply."""
    if not rows(conn, "policy_has_files")[0][0]:
        return {}, {}
    found = [row[0] for row in conn.execute(on_record("policy_files"))]
    recorded = {file["path"]: tuple(map(_recorded, file["policies"])) for file in found}
    return {file["path"]: file["checksum"] for file in found}, recorded


def _recorded(values: dict[str, Any]) -> Policy:
    facts = {key: value for key, value in values.items() if key != "schema"}
    return Policy(**facts | {"table": Name(values["schema"], values["table"]), "roles": tuple(values["roles"])})


def on_record(name: str) -> sql.Composed:
    """A named statement about the record of verbatim files."""
    from psycopg import sql

    return sql.SQL(SQL[name]).format(table=sql.Identifier(*RECORD))


def _grouped(found: Iterable[tuple[Any, ...]]) -> dict[int, Rows]:
    groups: dict[int, Rows] = defaultdict(list)
    for key, *rest in found:
        groups[key].append(tuple(rest))
    return groups


def _grants(found: Rows) -> dict[int, Grants]:
    return {oid: _by_role(group) for oid, group in _grouped(found).items()}


def _column_grants(found: Rows) -> dict[int, dict[str, Grants]]:
    grants: dict[int, dict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for oid, column, role, privilege in found:
        grants[oid][column].append((role, privilege))
    return {oid: {column: _by_role(group) for column, group in columns.items()} for oid, columns in grants.items()}


def _by_role(found: Rows) -> Grants:
    held: dict[str, set[str]] = defaultdict(set)
    for role, privilege in found:
        held[role].add(privilege)
    return {role: frozenset(privileges) for role, privileges in held.items()}
