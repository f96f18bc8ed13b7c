"""The statements of a plan, sent in few messages under the runner lock; the one that fails is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg

from dbops.database import redact
from dbops.errors import Blocked, DbopsError, LockLost, NotAllowed, StatementFailed
from dbops.lock import RunnerLock
from dbops.policy.catalog import rows
from dbops.policy.model import HELPERS
from dbops.policy.pipeline import send
from dbops.policy.statement import Statement

if TYPE_CHECKING:
    from dbops.database import Connection

# statements in one message: a lost runner lock is noticed after so many
_BATCH = 500


class Waited(Exception):
    """A statement waited for a lock for too long, or in a circle."""

    def __init__(self, statement: Statement, *, deadlock: bool) -> None:
        super().__init__(statement.sql)
        self.statement, self.deadlock = statement, deadlock


def run_together(conn: Connection, lock: RunnerLock, statements: Sequence[Statement]) -> None:
    """Run statements in their order. Raises Waited, LockLost, NotAllowed, StatementFailed naming the statement."""
    for start in range(0, len(statements), _BATCH):
        _run(conn, lock, statements[start : start + _BATCH])


def _run(conn: Connection, lock: RunnerLock, statements: Sequence[Statement]) -> None:
    guard = lock.guard().as_string().rstrip(";")
    done, error = send(conn, (guard, *(statement.sql for statement in statements)))
    if error is not None:
        raise (failure(error, statements[done - 1]) if done else _lost(error)) from error


def failure(error: psycopg.Error, statement: Statement) -> Exception:
    """What to raise for a statement that failed; errors of the connection are left as they are."""
    if error.sqlstate in ("55P03", "40P01"):
        return Waited(statement, deadlock=error.sqlstate == "40P01")
    if not error.sqlstate or error.sqlstate[:2] in ("08", "57"):
        return error
    kind = NotAllowed if error.sqlstate == "42501" else StatementFailed
    place = statement.file or statement.table or HELPERS
    message = redact(str(error).strip())
    return kind(f"{place}: {message}\n  {statement.sql[:300]}", hint="all of it was rolled back; nothing was applied")


def blocked(conn: Connection, error: Waited) -> Blocked:
    """Who still holds what the statement waited for: nothing of ours waits any more, so nobody queues behind it."""
    statement = error.statement
    names = statement.tables
    found = rows(conn, "policy_holders", schemas=[n.schema for n in names], names=[n.name for n in names])
    who = "; ".join(
        f"process {pid} ({user or 'unknown'}, {application or 'no name'}, {state}, for {age:.0f} s): {' '.join(query.split())}"
        for pid, user, application, state, age, query in found
    )
    what = statement.file or f"{statement.sql.split(' ON ')[0]} on {statement.table}"
    why = "a deadlock: each waited for the other" if error.deadlock else "waited too long for a lock"
    return Blocked(
        f"{what}: {why}; held by {who or 'somebody who is no longer to be seen'}",
        hint="end that transaction (pg_terminate_backend) or wait for it, then run the command again; "
        "all of it was rolled back, nothing was applied",
    )


def require_lock(conn: Connection, lock: RunnerLock) -> None:
    """Raise LockLost where the runner lock is no longer held."""
    try:
        conn.execute(lock.guard())
    except psycopg.Error as error:
        raise _lost(error) from error


def _lost(error: psycopg.Error) -> psycopg.Error | DbopsError:
    if "dbops: the runner lock was lost" not in str(error):
        return error
    return LockLost(
        "the runner lock was lost in the middle of the run (its connection was cut)",
        hint="all of it was rolled back; run the command again",
    )
