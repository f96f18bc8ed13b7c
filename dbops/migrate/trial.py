"""Databases of a scratch server in which migrations are tried, by the same executor that runs them for real."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from dbops.config import Settings
from dbops.database import connect, translated
from dbops.embedded import Scratch
from dbops.fingerprint import SchemaText, schema_text
from dbops.lock import RunnerLock
from dbops.migrate.apply import Runner
from dbops.migrate.events import Observer, silent
from dbops.migrate.files import Migration
from dbops.migrate.history import History
from dbops.migrate.kinds import program
from dbops.migrate.plan import Act
from dbops.migrate.worker import Worker
from dbops.scratch_database import scratch_database


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
    """A database for trials, see `scratch_database`. Raises LockHeld after `settings.wait`."""
    made: set[str] = set()
    with scratch_database(server, settings.wait, made, template) as url:
        yield Trial(url, settings, made)


def available(server: Scratch, names: Sequence[str]) -> set[str]:
    """Those of the extensions that the scratch server has."""
    from dbops.migrate.session import available_extensions

    with connect(server.url, "trial") as conn, translated():
        return available_extensions(conn, names)
