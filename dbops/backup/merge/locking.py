"""The one transaction of a merge: the runner lock, the tables locked against writers, triggers kept quiet."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from dbops.backup.merge.catalog import ROOM, LiveTable, sequence_oids
from dbops.backup.merge.model import Tell
from dbops.backup.merge.session import Session
from dbops.backup.merge.target import COMMA, Target, qualified, trusted
from dbops.database import redact, translated
from dbops.errors import Blocked, LockLost
from dbops.lock import Holder, RunnerLock
from dbops.sql import queries

_TIMEOUT, _DEADLOCK = "55P03", "40P01"


@contextmanager
def runner_lock(session: Session, tell: Tell) -> Iterator[RunnerLock]:
    """No migration, no policy and no other restore meanwhile. Raises LockHeld."""

    def waits(holder: Holder | None) -> None:
        tell(f"waiting for another runner: {holder or 'who it is is not shown'}")

    settings = session.settings
    with RunnerLock(session.url, settings.table, wait=settings.wait, on_wait=waits) as lock:
        yield lock


@contextmanager
def locked(session: Session, tables: Sequence[LiveTable], lock: RunnerLock, tell: Tell) -> Iterator[None]:
    """A transaction in which nobody else writes to the tables; committed only while the runner lock is held.

    A try that waits longer than `lock_timeout` lets go, so that nobody queues behind it. Raises Blocked with the
    processes in the way after `lock_tries`, LockLost.
    """
    for number in range(1, session.settings.lock_tries + 1):
        began = False
        try:
            with session.transaction(settings={"lock_timeout": _milliseconds(session.settings.lock_timeout)}):
                session.conn.execute(_lock_statement(tables))
                began = True
                tell("locked")
                yield
                _guard(session, lock)
                tell("committing")
            return
        except Exception as error:
            cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
            waited = isinstance(cause, psycopg.Error) and cause.sqlstate in (_TIMEOUT, _DEADLOCK)
            if not waited:
                raise
            if began:
                raise _rows_blocked(session, tables, cause) from error
            blockers = _blockers(session, [table.oid for table in tables], ("AccessShareLock", "RowShareLock"))
            if number == session.settings.lock_tries:
                raise _blocked(session, blockers, number) from error
        tell(f"waiting for a lock: {blockers or 'its holder has just let go'}")
        # let those go first that queued behind
        time.sleep(random.uniform(0.5, 1.0) * min(session.settings.lock_timeout, 1.0))


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"


def _lock_statement(tables: Sequence[LiveTable]) -> Composed:
    # in one order for all: two restores do not lock each other out
    ordered = sorted(tables, key=lambda table: table.name)
    names = [SQL("{}{}").format(SQL("" if each.partitioned else "ONLY "), qualified(each.name)) for each in ordered]
    return SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(COMMA.join(names))


def _guard(session: Session, lock: RunnerLock) -> None:
    try:
        session.conn.execute(lock.guard())
    except psycopg.errors.InvalidTextRepresentation as error:
        raise LockLost(
            "the runner lock was lost in the middle of the restore (its connection was cut)",
            hint="nothing was written; run the command again",
        ) from error


def _blockers(session: Session, relations: Sequence[int], but: Sequence[str]) -> str:
    """Who holds locks on these relations, of other modes than `but`, in words."""
    with session.transaction():
        parameters = {"relations": list(relations), "but": list(but)}
        rows = session.conn.execute(queries(ROOM)["lock_holders"], parameters).fetchall()
    return "; ".join(
        f"{_who(pid, user, app, state)}, for {age:.0f} s) holds {table}: {redact(' '.join(query.split()))}"
        for pid, user, app, state, query, table, age in rows
    )


def _who(pid: int, user: str, app: str, state: str) -> str:
    if not pid:
        return f"a prepared transaction (of {user}"
    return f"process {pid} ({user or 'unknown'}{f', {app}' if app else ''}, {state or 'state hidden'}"


def _rows_blocked(session: Session, tables: Sequence[LiveTable], cause: BaseException) -> Blocked:
    """A row or a sequence is locked. Its holder has a weaker lock on the table as well."""
    names, keys = {table.name for table in tables}, session.catalog.foreign_keys
    near = {end for key in keys if names & {key.child, key.parent} for end in (key.child, key.parent)}
    relations = [session.catalog.tables[name].oid for name in names | near]
    with session.transaction(read_only=True):
        relations += sequence_oids(session.conn, tables)
    blockers = _blockers(session, relations, ("AccessShareLock",))
    return Blocked(
        f"a row or a sequence stayed locked for {session.settings.lock_timeout:g} s: "
        f"{blockers or str(cause).splitlines()[0]}",
        hint="nothing was written: the transaction was rolled back; end that process (pg_terminate_backend, ROLLBACK "
        "PREPARED), wait, or give a longer lock_timeout",
    )


def _blocked(session: Session, blockers: str, tries: int) -> Blocked:
    return Blocked(
        f"the tables could not be locked within {session.settings.lock_timeout:g} s, tried {tries} times: "
        f"{blockers or 'the holder has just let go'}",
        hint="nothing was written; end that process (pg_terminate_backend, ROLLBACK PREPARED), wait, or give a longer "
        "lock_timeout",
    )


def may_be_replica(session: Session) -> bool:
    """Whether the role may set session_replication_role: then no trigger, cascade or foreign key check runs."""
    names = ["is_superuser"] + ["may_be_replica"] * (session.server.major >= 15)
    with translated():
        return any(session.conn.execute(queries(ROOM)[name], {}).fetchone() == (True,) for name in names)


@contextmanager
def quiet(session: Session, targets: Sequence[Target], *, replica: bool) -> Iterator[None]:
    """User triggers do not fire; those that were off before stay off, those that fired always do so again."""
    conn = session.conn
    if replica:
        conn.execute("SET LOCAL session_replication_role = 'replica'")
    oids = [target.live.oid for target in targets]
    triggers = conn.execute(queries(ROOM)["triggers"], {"tables": oids, "replica": replica}).fetchall()
    for schema, table, trigger, _ in triggers:
        _switch(session, "DISABLE", schema, table, trigger)
    yield
    if not replica:
        # what foreign keys still have to check is checked now: tables with events waiting cannot be altered
        conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for schema, table, trigger, enabled in triggers:
        how = {"A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}.get(enabled, "ENABLE")
        _switch(session, how, schema, table, trigger)


def _switch(session: Session, how: str, schema: str, table: str, trigger: str) -> None:
    statement = SQL("ALTER TABLE ONLY {} {} TRIGGER {}")
    session.conn.execute(statement.format(Identifier(schema, table), trusted(how), Identifier(trigger)))
