"""The error of a migration's own statement: its place in the file, who blocked it, what was left untouched."""

from __future__ import annotations

import psycopg

from dbops.database import redact, translate
from dbops.errors import Blocked, DbopsError, NotAllowed, StatementFailed, shown
from dbops.migrate.parse import Statement
from dbops.migrate.plan import Act
from dbops.migrate.worker import Worker, is_lock_timeout


def failed(error: psycopg.Error, act: Act, statement: Statement, offset: int | None, worker: Worker) -> DbopsError:
    """The error of a migration's own statement, with its place in the file and what was left untouched.

    `offset` is how much was sent in front of it; None where what failed was not the statement itself.
    """
    if worker.conn.broken or worker.conn.closed or not error.sqlstate:
        return translate(error)
    if is_lock_timeout(error):
        blocker = worker.watch.seen or "no longer to be seen"
        waited = f"waited {worker.settings.lock_timeout:g} s for a lock" if error.sqlstate == "55P03" else "a deadlock"
        return Blocked(
            f"{shown(act.migration.path)}:{statement.line}: {waited}; blocked by {blocker}",
            hint="end that transaction (pg_terminate_backend) or wait for it, then run the command again; "
            f"{act.version} {_kept(act)}",
        )
    kind = NotAllowed if error.sqlstate == "42501" else StatementFailed
    return kind(_message(error, act, statement, offset), hint=_hint(error, act))


def _message(error: psycopg.Error, act: Act, statement: Statement, offset: int | None) -> str:
    diag = error.diag
    path = shown(act.migration.path)
    lines = statement.sql.splitlines() or [""]
    line, column, text = statement.line, 0, lines[0]
    position = -1 if offset is None else int(diag.statement_position or 0) - 1 - offset
    if 0 <= position <= len(statement.sql):
        head = statement.sql[:position]
        line += head.count("\n")
        column = position - (head.rfind("\n") + 1) + 1
        text = lines[min(head.count("\n"), len(lines) - 1)]
    place = f"{path}:{line}:{column}" if column else f"{path}:{line}"
    pointer = [f"  {' ' * (column - 1)}^"] if column and column < 200 else []
    details = [f"  {part}" for part in (diag.message_detail, diag.context) if part]
    message = [f"{place}: {diag.message_primary} ({error.sqlstate})", f"  {text[:200]}", *pointer, *details]
    return redact("\n".join(message))


def _hint(error: psycopg.Error, act: Act) -> str:
    if error.sqlstate == "25001":
        own = f"write `-- migrate:{act.direction} transaction:false`: this statement must run outside a transaction. "
    elif error.sqlstate == "42501":
        own = "connect as the owner, or grant the right that is missing. "
    else:
        own = f"{error.diag.message_hint} " if error.diag.message_hint else ""
    return f"{own}{act.version} {_kept(act)}; what was applied before stays recorded"


def _kept(act: Act) -> str:
    if act.program.transactional:
        return "was rolled back"
    return f"stopped at this statement; `{act.direction}` resumes there"
