"""The connection that runs migrations: its transactions, its guards, and who blocks it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql

from dbops.config import Settings
from dbops.database import connect, endless, local_settings, primary_of, translated
from dbops.errors import LockHeld, LockLost
from dbops.lock import INNER_NAMESPACE, RunnerLock
from dbops.sql import queries

Cursor = psycopg.Cursor[tuple[Any, ...]]
_LOCK_TIMEOUT = "55P03"


class Worker:
    """One connection in autocommit mode under a runner lock. What is set, is set for one transaction.

    Behind a pooler nothing is ever set for the session: another client would inherit it.
    """

    def __init__(self, url: str, lock: RunnerLock, settings: Settings) -> None:
        self.conn = connect(url, "migrate")
        # of `conn.transaction()`: a role's defaults may be repeatable read and read-only
        self.conn.isolation_level, self.conn.read_only = psycopg.IsolationLevel.READ_COMMITTED, False
        self.lock, self.settings = lock, settings
        self.server = primary_of(self.conn)
        self.guard = lock.guard().as_string()
        self.pid = self.conn.info.backend_pid
        self.watch = BlockerWatch(lock, self)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watch.stop()
        with suppress(Exception):
            self.conn.close()

    @cached_property
    def limits(self) -> str:
        """The settings of a migration's transaction, whatever the role's defaults are."""
        values = endless(self.server.major) | {
            "statement_timeout": f"{int(self.settings.statement_timeout * 1000)}ms",
            "lock_timeout": f"{int(self.settings.lock_timeout * 1000)}ms",
            "row_security": "off",
            # commits need not wait for the disk one by one: `flush` waits for all of them before success is told
            "synchronous_commit": "off",
        }
        return local_settings(values | self._notice)

    @cached_property
    def _notice(self) -> dict[str, str]:
        """The setting by which a statement ends soon after its client has gone, where the server can see that."""
        row = self.conn.execute(queries("migrate")["notices_gone_client"]).fetchone()
        return {"client_connection_check_interval": "200ms"} if row == (True,) else {}

    @cached_property
    def _beginning(self) -> str:
        """How a transaction begins: as the role that logged in, even within a `session` that set another."""
        return queries("migrate")["begin"] + ";" + self.limits + self.set_search_path()

    @cached_property
    def _inner_lock(self) -> str:
        return self._locking("inner_lock")

    def _locking(self, query: str) -> str:
        names = {"namespace": INNER_NAMESPACE, "key": self.lock.key}
        literals = {name: sql.Literal(value) for name, value in names.items()}
        return sql.SQL(queries("migrate")[query]).format(**literals).as_string()

    @cached_property
    def whole_beginning(self) -> str:
        """How a message begins that holds a whole transaction: it fails (`is_busy`) where a predecessor's lives on."""
        return self._beginning + self._locking("inner_lock_or_error") + ";"

    def set_search_path(self) -> str:
        """`SET search_path` as configured (a list of names, unlike other settings), or nothing."""
        path = self.settings.search_path
        parts = [sql.Identifier(name.strip().strip('"')) for name in path.split(",") if name.strip()]
        return sql.SQL("SET LOCAL search_path = {};").format(sql.SQL(", ").join(parts)).as_string() if parts else ""

    def send(self, text: str) -> Cursor:
        """Run a text of one or more statements as it is; the cursor stands at the first result."""
        if self.conn.info.parameter_status("client_encoding") != "UTF8":
            # set by a file: it would misread what follows, the record too
            self.conn.execute("SET client_encoding TO 'UTF8'")
        return self.conn.execute(text.encode())

    def begin(self) -> None:
        """Begin a transaction under the inner lock; what follows in it is guarded.

        Raises LockHeld where a predecessor's transaction lives on.
        """
        end = time.monotonic() + max(self.settings.wait, 10.0)
        while True:
            cursor = self.send(self._beginning + self._inner_lock)
            while cursor.nextset():
                pass
            held, self.pid = cursor.fetchone() or (False, self.pid)
            if held:
                return
            self.rollback()
            if time.monotonic() > end:
                raise LockHeld(
                    "the transaction of an earlier runner is still open on the server",
                    hint="see pg_stat_activity for `dbops migrate`; pg_terminate_backend ends it. Nothing was applied",
                )
            time.sleep(random.uniform(0.05, 0.2))

    def guarded(self, text: str, before: str = "") -> None:
        """Run a text only if the runner lock is still held. Raises LockLost where it is not."""
        self.fenced(before + self.guard + text)

    def fenced(self, text: str) -> None:
        """Run a text with guards in it. Raises LockLost where one of them found the lock gone."""
        try:
            self.send(text)
        except psycopg.errors.InvalidTextRepresentation as error:
            if "dbops: the runner lock was lost" not in str(error):
                raise
            raise LockLost(
                "the runner lock was lost in the middle of the run (its connection was cut)",
                hint="nothing more was done; what was committed is recorded. Run the command again",
            ) from error

    def offset(self, before: str = "") -> int:
        """How many characters stand in front of a guarded text when it is sent."""
        return len(before) + len(self.guard)

    def rollback(self) -> None:
        """Roll back, also what outlives a rollback (a pooler would pass it on); silent where the connection is gone."""
        with suppress(psycopg.Error):
            self.send(queries("migrate")["roll_back"])

    def flush(self) -> None:
        """Wait until all that was committed is on disk (and on the synchronous standbys).

        The log is written in order: after a crash before this, the last migrations and their records are missing
        together (https://www.postgresql.org/docs/current/wal-async-commit.html).
        """
        with translated():
            self.send(queries("migrate")["flush"])

    @contextmanager
    def session(self, statements: str) -> Iterator[None]:
        """Settings for a statement that runs outside a transaction, taken back afterwards; none behind a pooler.

        CREATE INDEX CONCURRENTLY has no lock_timeout: it would leave an invalid index behind.
        """
        if self.server.pooled:
            yield
            return
        values = endless(self.server.major) | self._notice | {"row_security": "off"}
        values |= {"default_transaction_read_only": "off", "default_transaction_isolation": "read committed"}
        self.send((local_settings(values) + self.set_search_path()).replace("SET LOCAL ", "SET ") + statements)
        try:
            yield
        finally:
            with suppress(psycopg.Error):
                self.send("RESET ALL; RESET SESSION AUTHORIZATION; RESET ROLE")


class BlockerWatch:
    """Looks, on the lock's idle connection, who blocks the worker once a statement takes long."""

    def __init__(self, lock: RunnerLock, worker: Worker) -> None:
        self.lock, self.worker = lock, worker
        self.seen = ""
        self._stop = threading.Event()
        self._since: float | None = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def statement(self) -> Iterator[None]:
        """While this is open, a statement runs on the worker."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dbops-blockers", daemon=True)
            self._thread.start()
        self.seen, self._since = "", time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _run(self) -> None:
        pause = min(0.2, max(self.worker.settings.lock_timeout / 4, 0.02))
        while not self._stop.wait(pause):
            since = self._since
            if since is not None and time.monotonic() - since > pause:
                try:
                    # the lock's transaction would see the activity of its first look for ever
                    self.lock.conn.execute(queries()["look_again"])
                    rows = self.lock.conn.execute(queries()["blockers"], {"pid": self.worker.pid}).fetchall()
                except psycopg.Error:
                    return  # the guard in front of the next statement tells what happened
                if rows:
                    self.seen = "; ".join(_blocker(*row) for row in rows)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)


def _blocker(pid: int, user: str, application: str, state: str, query: str, age: Any) -> str:
    who = f"process {pid} ({user or 'unknown'}{f', {application}' if application else ''}, {state or 'state hidden'}"
    seconds = f", for {age:.0f} s" if age is not None else ""
    return f"{who}{seconds}){': ' + ' '.join(query.split())[:120] if query else ''}"


def is_busy(error: psycopg.Error) -> bool:
    """Whether a whole transaction was not begun, since an earlier runner's is still open."""
    return error.sqlstate == "22P02" and "dbops: an earlier transaction is open" in str(error)


def is_lock_timeout(error: psycopg.Error) -> bool:
    """Whether a statement gave up waiting for a lock, or a deadlock was broken at its expense."""
    return error.sqlstate in (_LOCK_TIMEOUT, "40P01")
