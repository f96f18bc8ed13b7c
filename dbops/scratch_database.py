"""A database of a scratch server, taken in turn where others share the server, and gone with its roles afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar

import psycopg
from psycopg import sql

from dbops.database import connect, translated
from dbops.embedded import Scratch
from dbops.errors import DbopsError, LockHeld
from dbops.lock import NAMESPACE

# beside the runner lock's two
_TRIALS = NAMESPACE + 2
# the shared servers whose lock this thread holds: trials are nested
_held: ContextVar[frozenset[str]] = ContextVar("_held", default=frozenset())


@contextmanager
def scratch_database(server: Scratch, wait: float, roles_made: set[str], template: str = "template0") -> Iterator[str]:
    """The URL of a new database, gone afterwards, and without the roles that were made meanwhile.

    A server of --scratch-url is others' too: trials on it take turns (raises LockHeld after `wait` seconds), and of the
    new roles only those go that whoever works there adds to `roles_made`. Roles made inside DO blocks and functions
    cannot be seen and stay there.
    """
    with _turn(server, wait):
        before = _roles(server)
        try:
            with server.database(template) as url:
                yield url
        except BaseException:
            # a server that is full or gone fails here too: what failed first is what is told
            with suppress(DbopsError, psycopg.Error):
                _clean_up(server, before, roles_made)
            raise
        _clean_up(server, before, roles_made)


@contextmanager
def _turn(server: Scratch, wait: float) -> Iterator[None]:
    """No other trial on a shared server, for as long as a connection of its own holds the lock (of its database)."""
    if server.kind != "scratch-url" or server.url in _held.get():
        yield
        return
    with closing(connect(server.url, "trial lock", keepalives_idle=30)) as conn:
        with translated():
            conn.execute(
                "select set_config(name, case name when 'lock_timeout' then %s else '0' end, false) "
                "from pg_catalog.pg_settings where name in ('lock_timeout', 'statement_timeout', 'idle_session_timeout')",
                [f"{max(1, int(wait * 1000))}ms"],
            )
            try:
                conn.execute("select pg_catalog.pg_advisory_lock(%s, 0)", [_TRIALS])
            except psycopg.errors.LockNotAvailable:
                raise LockHeld(
                    f"another trial holds the scratch server for more than {wait:.0f} s",
                    hint="wait for it (--wait 10min), or give another --scratch-url; nothing was done",
                ) from None
        token = _held.set(_held.get() | {server.url})
        try:
            yield
        finally:
            _held.reset(token)


def _clean_up(server: Scratch, before: set[str], roles_made: set[str]) -> None:
    new = _roles(server) - before
    _drop_roles(server, new & roles_made if server.kind == "scratch-url" else new)


def _roles(server: Scratch) -> set[str]:
    """The roles of a server: they outlive the databases."""
    with connect(server.url, "trial") as conn, translated():
        return {row[0] for row in conn.execute("select rolname::text from pg_catalog.pg_roles")}


def _drop_roles(server: Scratch, names: set[str]) -> None:
    """Drop roles. On a shared server those stay that others have come to use meanwhile."""
    with connect(server.url, "trial") as conn, translated():
        for name in sorted(names):
            try:
                conn.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))
            except psycopg.Error:
                if server.kind != "scratch-url":
                    raise
