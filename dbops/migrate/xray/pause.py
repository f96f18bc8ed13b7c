"""The locks of a statement that runs outside a transaction: it is stopped on its way and looked at from beside.

When such a statement (CREATE INDEX CONCURRENTLY, VACUUM, DETACH PARTITION CONCURRENTLY …) has ended, its locks are
gone. So other transactions hold SHARE UPDATE EXCLUSIVE, which all of these ask for, and ROW EXCLUSIVE, which most of
them wait out, on each of its tables. Whenever the statement waits for one of them, its locks are noted, those that it
has and the one that it asks for, and that transaction lets go.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.database import connect
from dbops.migrate.kinds import names
from dbops.migrate.parse import unwrap, walk
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection
    from dbops.migrate.parse import Statement

_HELD = ("SHARE UPDATE EXCLUSIVE", "ROW EXCLUSIVE")
_EVERY_S = 0.002
_AT_MOST_S = 30.0  # a statement that is held up for longer is let go unseen


class Pause:
    """From its making until `locks` the statement of the server process `pid` is stopped at each lock."""

    def __init__(self, url: str, pid: int, tables: list[tuple[str, str]]) -> None:
        self._url, self._pid = url, pid
        self._locks: set[tuple[int, str]] = set()
        self._holders: dict[int, Connection] = {}
        self._over = threading.Event()
        self._watcher = connect(url, "xray")
        try:
            for table in tables:
                for mode in _HELD:
                    self._hold(table, mode)
        except BaseException:
            self._release(set(self._holders))
            raise
        self._thread = threading.Thread(target=self._run, name="dbops-xray", daemon=True)
        self._thread.start()

    def _hold(self, table: tuple[str, str], mode: str) -> None:
        holder = connect(self._url, "xray")
        self._holders[holder.info.backend_pid] = holder
        holder.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        # ONLY: a partition is held for itself where the statement names it
        lock = sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(sql.Identifier(*table), sql.SQL(mode))
        holder.execute(lock)

    def _run(self) -> None:
        end = time.monotonic() + _AT_MOST_S
        try:
            while not self._over.wait(_EVERY_S) and time.monotonic() < end:
                self._look()
        except psycopg.Error:
            return  # the server is gone: the statement itself tells so
        finally:
            self._release(set(self._holders))

    def _look(self) -> None:
        values = {"pid": self._pid}
        row = self._watcher.execute(queries("migrate")["xray_blockers"], values).fetchone()
        # after that: what is noted is what it had while it waited
        self._locks |= set(self._watcher.execute(queries("migrate")["xray_locks"], values).fetchall())
        self._release(set(row[0] if row else ()) & set(self._holders))

    def _release(self, pids: set[int]) -> None:
        for pid in pids:
            self._holders.pop(pid).close()

    def locks(self) -> set[tuple[int, str]]:
        """The locks that were seen, as (oid, mode of pg_locks). Lets go of everything."""
        self._over.set()
        self._thread.join()
        self._watcher.close()
        return self._locks


def tables_of(conn: Connection, statement: Statement) -> list[tuple[str, str]]:
    """The tables that a statement names, by themselves or by an index."""
    node = statement.node
    named = [
        sql.Identifier(*(part for part in (item.schemaname, item.relname) if part)).as_string()
        for item in walk(node)
        if item.DESCRIPTOR.name == "RangeVar"
    ]
    if statement.kind == "drop_stmt":
        named += [sql.Identifier(*names(unwrap(item).items)).as_string() for item in node.objects]
    found = [conn.execute(queries("migrate")["xray_table"], {"name": name}).fetchone() for name in named]
    return list(dict.fromkeys((row[0], row[1]) for row in found if row))
