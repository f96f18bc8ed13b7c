"""Databases of a scratch server in which migrations are tried, by the same executor that runs them for real."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import replace

import psycopg
from psycopg import sql

from dbops.config import Settings
from dbops.database import connect, translated
from dbops.embedded import Scratch
from dbops.errors import LockHeld
from dbops.fingerprint import SchemaText, schema_text
from dbops.lock import NAMESPACE, RunnerLock
from dbops.migrate.apply import Runner
from dbops.migrate.events import Observer, silent
from dbops.migrate.files import Migration
from dbops.migrate.history import History
from dbops.migrate.kinds import program
from dbops.migrate.plan import Act
from dbops.migrate.worker import Worker

# beside the runner lock's two
_TRIALS = NAMESPACE + 2
# the shared servers whose lock this thread holds: trials are nested
_held: ContextVar[frozenset[str]] = ContextVar("_held", default=frozenset())


class Trial:
    """One scratch database. Nothing here ever touches the target.

    `roles_made` names the roles that were made for it: whoever makes some adds them, acts that are performed do.
    """

    def __init__(self, url: str, settings: Settings, roles_made: set[str]) -> None:
        self.roles_made = roles_made
        # a scratch server has no other runner: nothing to wait for
        self.url, self.settings = url, replace(settings, url=url, wait=5.0, lock_tries=1)

    def perform(self, *acts: Act, tell: Observer = silent) -> None:
        """Run acts with their records. Raises StatementFailed and the like."""
        self.expect(acts)
        with (
            RunnerLock(self.url, self.settings.table, wait=5.0) as lock,
            Worker(self.url, lock, self.settings) as worker,
        ):
            history = History(worker.conn, self.settings.table)
            history.ensure()
            runner = Runner(worker, history, uuid.uuid4(), tell)
            for act in acts:
                runner.perform(act)

    def expect(self, acts: Iterable[Act]) -> None:
        """Take note of the roles that acts make."""
        statements = (statement for act in acts for statement in act.program.statements)
        self.roles_made |= {s.node.role for s in statements if s.kind == "create_role_stmt"}

    def up(self, migration: Migration) -> None:
        self.perform(Act(migration, "up", program(migration.up)))

    def down(self, migration: Migration) -> None:
        assert migration.down is not None
        self.perform(Act(migration, "down", program(migration.down)))

    def schema(self) -> SchemaText:
        """The schemas as canonical text: all of them, since a scratch database holds nothing but what the migrations made."""
        return schema_text(self.url, self.schemas(), exclude_tables=(self.settings.table,))

    def schemas(self) -> tuple[str, ...]:
        """The schemas of the database, without PostgreSQL's and dbops' own."""
        with connect(self.url, "trial") as conn, translated():
            rows = conn.execute(
                "select nspname::text from pg_catalog.pg_namespace where nspname !~ '^pg_' "
                "and nspname not in ('information_schema', 'dbops') order by 1"
            )
            return tuple(row[0] for row in rows)


@contextmanager
def trial(server: Scratch, settings: Settings, template: str = "template0") -> Iterator[Trial]:
    """A database for trials, and afterwards without it, and without the roles that were made meanwhile.

    A server of --scratch-url is others' too: trials on it take turns (raises LockHeld after `settings.wait`), and of
    the new roles only those go that the trial is known to have made. Roles made inside DO blocks and functions cannot
    be seen and stay there.
    """
    with _turn(server, settings.wait):
        before, made = roles(server), set[str]()
        try:
            with server.database(template) as url:
                yield Trial(url, settings, made)
        finally:
            new = roles(server) - before
            drop_roles(server, new & made if server.kind == "scratch-url" else new)


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


def roles(server: Scratch) -> set[str]:
    """The roles of a server: they outlive the databases."""
    with connect(server.url, "trial") as conn, translated():
        return {row[0] for row in conn.execute("select rolname::text from pg_catalog.pg_roles")}


def drop_roles(server: Scratch, names: set[str]) -> None:
    """Drop roles. On a shared server those stay that others have come to use meanwhile."""
    with connect(server.url, "trial") as conn, translated():
        for name in sorted(names):
            try:
                conn.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))
            except psycopg.Error:
                if server.kind != "scratch-url":
                    raise


def available(server: Scratch, names: Sequence[str]) -> set[str]:
    """Those of the extensions that the scratch server has."""
    from dbops.migrate.session import available_extensions

    with connect(server.url, "trial") as conn, translated():
        return available_extensions(conn, names)
