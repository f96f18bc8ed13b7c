"""The one runner lock: migrate up, policy apply and restore take it, so that two never run at once.

It is an advisory lock of a transaction that does nothing else, on a connection of its own: it goes with the connection,
works behind a pooler in transaction mode, and holds no snapshot, so CREATE INDEX CONCURRENTLY does not wait for it.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dbops.database import connect, endless, local_settings, primary_of, translate, translated
from dbops.errors import LockHeld
from dbops.sql import queries

if TYPE_CHECKING:
    from psycopg import sql

# the first four bytes of sha256("dbops runner lock"), positive: other programs' advisory locks stay apart
NAMESPACE = 0x3A5C0D1E
# a transactional migration takes this one too: a successor cannot begin before it has ended
INNER_NAMESPACE = NAMESPACE + 1


def lock_key(table: str) -> int:
    """The lock's key (31 bits) for a record table: two sets of migrations in a database do not wait for each other."""
    return int.from_bytes(hashlib.sha256(table.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Holder:
    """Who holds the lock."""

    pid: int
    application: str
    user: str
    host: str
    since: str

    def __str__(self) -> str:
        who = f"{self.application or 'a client'} as {self.user} from {self.host}"
        return f"{who}, server process {self.pid}, since {self.since} UTC"


class RunnerLock:
    """The lock as a context manager. Raises LockHeld (exit 11) where another runner keeps it for over `wait` seconds.

    `on_wait` is called with the Holder (None where the server does not say) when waiting begins.
    """

    def __init__(
        self, url: str, table: str, *, wait: float, on_wait: Callable[[Holder | None], None] | None = None
    ) -> None:
        from psycopg import ClientCursor

        self.key = lock_key(table)
        self.wait = wait
        self.on_wait = on_wait or (lambda _: None)
        # the extended protocol would leave a portal open, and with it a snapshot for CREATE INDEX CONCURRENTLY to wait on
        self.conn = connect(url, "lock", keepalives_idle=30, cursor_factory=ClientCursor)
        self.pid = self.database = 0
        self.server = primary_of(self.conn)

    @property
    def _names(self) -> dict[str, Any]:
        return {"namespace": NAMESPACE, "key": self.key}

    def __enter__(self) -> RunnerLock:
        try:
            self._acquire()
        except BaseException:
            self.conn.close()
            raise
        return self

    def _acquire(self) -> None:
        end = time.monotonic() + self.wait
        told = False
        with translated():
            while not self._try():
                if not told:
                    self.on_wait(self.holder())
                    told = True
                left = end - time.monotonic()
                if left <= 0:
                    holder = self.holder() or "it has just let go"
                    raise LockHeld(
                        f"another runner holds the lock on {self.server.database}: {holder}",
                        hint="wait for it (--wait 10min), or end that process on its machine; nothing was done",
                    )
                # jitter: twenty runners that start together do not ask together
                time.sleep(min(left, random.uniform(0.05, 0.25)))

    def _try(self) -> bool:
        import psycopg

        # READ COMMITTED: under repeatable read our own snapshot would hold up CREATE INDEX CONCURRENTLY for ever
        self.conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        row = None
        try:
            self.conn.execute(local_settings(endless(self.server.major)).encode())
            row = self.conn.execute(queries()["lock_try"], self._names).fetchone()
        except psycopg.Error as error:
            raise translate(error) from error
        assert row is not None
        if not row[0]:
            # polling inside one open transaction would keep a pooler's server connection: let go between tries
            self.conn.execute("ROLLBACK")
        _, self.pid, self.database = row
        return bool(row[0])

    def holder(self) -> Holder | None:
        """Who holds the lock now; None where nobody does or the server does not say."""
        row = self.conn.execute(queries()["lock_holder"], self._names).fetchone()
        return Holder(*row) if row else None

    def guard(self) -> sql.Composed:
        """SQL that fails unless this very lock is still held: sent in front of each statement that it guards."""
        from psycopg import sql

        names = {"pid": self.pid, "database": self.database, "namespace": NAMESPACE, "key": self.key}
        return sql.SQL(queries()["lock_guard"] + ";").format(**{k: sql.Literal(v) for k, v in names.items()})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(Exception):
            self.conn.execute("ROLLBACK")
        self.conn.close()
