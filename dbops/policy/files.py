"""Files of policies/*.sql, applied as they are, and the record of what they made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from dbops.errors import StatementFailed
from dbops.lock import RunnerLock
from dbops.policy.catalog import RECORD, on_record, read_catalog, rows
from dbops.policy.execute import failure, require_lock
from dbops.policy.model import Name, Verbatim
from dbops.policy.state import Policy
from dbops.policy.statement import Statement

if TYPE_CHECKING:
    from dbops.database import Connection


def run_files(
    conn: Connection, lock: RunnerLock, statements: Sequence[Statement], verbatim: Sequence[Verbatim]
) -> None:
    """Run whole files in their order, and record each with the policies that it made.

    Raises Waited, LockLost, NotAllowed, StatementFailed naming the file.
    """
    made = {statement.file: _run_file(conn, lock, statement) for statement in statements}
    if made:
        _record(conn, made, verbatim)


def _run_file(conn: Connection, lock: RunnerLock, statement: Statement) -> frozenset[tuple[Name, str]]:
    """Run a whole file; the policies that it made or changed."""
    before = set(rows(conn, "policy_versions"))
    who, path = rows(conn, "policy_session")[0]
    # in EXECUTE a COMMIT is an error: sent as it is, it would end our transaction
    body = sql.SQL("begin execute {}; end").format(sql.Literal(statement.sql)).as_string()
    require_lock(conn, lock)
    try:
        conn.execute(sql.SQL("do {}").format(sql.Literal(body)))
    except psycopg.Error as error:
        raise failure(error, statement) from error
    if rows(conn, "policy_session")[0][0] != who:
        raise StatementFailed(
            f"{statement.file}: it leaves another role set", hint="RESET ROLE at its end; rolled back"
        )
    rows(conn, "policy_set_path", path=path)
    conn.execute("set local row_security = off")
    after = set(rows(conn, "policy_versions"))
    kept = {(p.table, p.name) for p in read_catalog(conn).recorded.get(statement.file, ())}
    return frozenset({(Name(row[0], row[1]), row[2]) for row in after - before} | kept)


def _record(conn: Connection, made: Mapping[str, frozenset[tuple[Name, str]]], verbatim: Sequence[Verbatim]) -> None:
    """What the files made, as it stands when all of them have run."""
    ensure_record(conn)
    now = {(p.table, p.name): p for p in read_catalog(conn).policies}
    checksums = {file.path.name: file.checksum for file in verbatim}
    for name, keys in made.items():
        policies = [_plain(now[key]) for key in sorted(keys) if key in now]
        row = {"path": name, "checksum": checksums[name], "policies": policies}
        conn.execute(on_record("policy_forget_file"), {"path": name})
        conn.execute(on_record("policy_add_file"), {"row": Jsonb(row)})


def _plain(policy: Policy) -> dict[str, object]:
    return asdict(policy) | {"schema": policy.table.schema, "table": policy.table.name}


def ensure_record(conn: Connection) -> None:
    """Make `dbops.policy_files` where it is missing, closed to everybody else: default privileges may say otherwise."""
    conn.execute("create schema if not exists dbops")
    conn.execute("revoke all on schema dbops from public")
    conn.execute(on_record("policy_create_files"))
    table = sql.Identifier(*RECORD)
    conn.execute(sql.SQL("alter table {} enable row level security").format(table))
    for (role,) in rows(conn, "policy_record_grantees", table=RECORD[1]):
        grantee = sql.SQL("public") if role == "public" else sql.Identifier(role)
        conn.execute(sql.SQL("revoke all on {} from {}").format(table, grantee))
