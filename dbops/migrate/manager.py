"""MigrationManager: the public API of the room. It returns frozen values and raises DbopsErrors; it never prints."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dbops.config import Settings, libpq_url, load
from dbops.database import Server, connect, require_bypass, server_of, translated
from dbops.embedded import resolve
from dbops.errors import DbopsError, MigrationFileError
from dbops.lock import RunnerLock
from dbops.migrate.apply import Runner
from dbops.migrate.events import Event, Observer, silent
from dbops.migrate.files import Migration, read_folder
from dbops.migrate.history import History, Run
from dbops.migrate.plan import Plan, Status, choose_down, plan_down, plan_up, require_known, status
from dbops.migrate.worker import Worker
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection
    from dbops.fingerprint import SchemaText
    from dbops.migrate.prove import Proof


@dataclass(frozen=True)
class Outcome:
    """What a run did: the versions in the order in which they were done, and how long it took in ms."""

    plan: Plan
    versions: tuple[str, ...]
    duration_ms: float


class MigrationManager:
    """Migrations of one database.

    `url` is any PostgreSQL URL or conninfo; None takes the settings' (environment, dbops.toml, the embedded server).
    `observer` is called with an Event at each moment of a run.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None, observer: Observer = silent) -> None:
        self.settings = settings or load()
        if url is not None:
            self.settings = replace(self.settings, url=libpq_url(url), url_source="argument")
        self.tell = observer
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The URL in use; the embedded server is started where no other is named."""
        if self._url is None:
            self._url = resolve(
                self.settings, lambda server: self.tell(Event("embedded", detail=str(server.data_directory)))
            )
        return self._url

    def files(self) -> tuple[Migration, ...]:
        """The migrations of the folder. Raises MigrationFileError."""
        return read_folder(self.settings.migrations)

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, History]]:
        with connect(self.url, "migrate status") as conn:
            yield conn, History(conn, self.settings.table)

    def get_migration_status(self) -> Status:
        """How files and history stand to each other. Changes nothing."""
        files = self.files()
        with self._reading() as (conn, history):
            return self._status(files, conn, history)

    def _status(self, files: Sequence[Migration], conn: Connection, history: History) -> Status:
        records = history.records()
        steps = history.steps() if records or files else ()
        return status(files, records, extensions=lambda names: available_extensions(conn, names), steps=steps)

    def plan_up(self, *, to: str | None = None, count: int | None = None, allow_out_of_order: bool = False) -> Plan:
        """What `migrate_up` would do. Changes nothing."""
        return plan_up(self.get_migration_status(), to=to, count=count, allow_out_of_order=allow_out_of_order)

    def migrate_up(
        self, *, to: str | None = None, count: int | None = None, allow_out_of_order: bool = False
    ) -> Outcome:
        """Apply what is pending, each migration in one transaction with its record.

        Raises HistoryMismatch, LockHeld, StatementFailed, Blocked, LockLost, CannotConnect, MigrationFileError.
        """
        self._require_folder()
        before = self.plan_up(to=to, count=count, allow_out_of_order=allow_out_of_order)
        if not before.acts:
            return Outcome(before, (), 0.0)

        def plan(conn: Connection, history: History) -> Plan:
            # once more under the lock: another runner may have done some or all of it
            now = self._status(self.files(), conn, history)
            return plan_up(now, to=to, count=count, allow_out_of_order=allow_out_of_order)

        return self._run("up", plan)

    def _require_folder(self) -> None:
        if not self.settings.migrations.is_dir():
            raise MigrationFileError(
                f"{self.settings.migrations}: there is no such folder",
                hint="`dbops init` makes one; or set `migrations` in dbops.toml or DBOPS_MIGRATIONS. Nothing was applied",
            )

    def plan_down(self, *, version: str | None = None, to: str | None = None, count: int | None = None) -> Plan:
        """What `migrate_down` would do. Changes nothing. Raises Irreversible."""
        with self._reading() as (conn, history):
            return self._plan_down(conn, history, version, to, count)

    def _plan_down(self, conn: Connection, history: History, version: str | None, to: str | None, count: int | None) -> Plan:
        files = self.files()
        now = self._status(files, conn, history)
        chosen = choose_down(now, version=version, to=to, count=count)
        if version is not None and now.applied and version != now.applied[-1].version:
            from dbops.migrate.prove import require_independent

            with_scripts = [(record, history.scripts(record.version)) for record in now.applied]
            require_independent(version, with_scripts, self.settings, server_of(conn).major)
        return plan_down(chosen, {m.version: m for m in files}, history.scripts)

    def migrate_down(self, *, version: str | None = None, to: str | None = None, count: int | None = None) -> Outcome:
        """Reverse the newest migration, `count` of them, those after `to`, or one named version.

        Raises Irreversible where one has no way back or newer ones depend on it; nothing is reversed then.
        """
        return self._run("down", lambda conn, history: self._plan_down(conn, history, version, to, count))

    def rollback_migration(self, version: str) -> Outcome:
        """Reverse one named migration."""
        return self.migrate_down(version=version)

    def migrate_redo(self, *, count: int = 1) -> Outcome:
        """Reverse the newest migrations and apply them again."""
        down = self.migrate_down(count=count)
        up = self.migrate_up(to=down.versions[0]) if down.versions else down
        return Outcome(up.plan, down.versions, down.duration_ms + up.duration_ms)

    def _run(self, command: str, plan_under_lock: Callable[[Connection, History], Plan]) -> Outcome:
        """Take the lock, make the plan under it, act, write the ledger."""
        began, started_at = time.monotonic(), datetime.now(UTC)
        done: list[str] = []
        with self.locked() as (worker, history):
            plan = plan_under_lock(worker.conn, history)
            if plan.acts:
                require_bypass(worker.conn, worker.server)
            run = uuid.uuid4()
            runner = Runner(worker, history, run, self.tell)
            try:
                for act in plan.acts:
                    runner.perform(act)
                    done.append(act.version)
            finally:
                if done:
                    self.record_run(worker, history, run, command, done, started_at)
        return Outcome(plan, tuple(done), (time.monotonic() - began) * 1000)

    @contextmanager
    def locked(self) -> Iterator[tuple[Worker, History]]:
        """The runner lock, a worker under it, and the tables of the history made where they were missing."""

        def waits(holder: object) -> None:
            self.tell(Event("waiting", detail=str(holder or "another runner")))

        lock = RunnerLock(self.url, self.settings.table, wait=self.settings.wait, on_wait=waits)
        with lock, Worker(self.url, lock, self.settings) as worker:
            self.tell(Event("locked"))
            history = History(worker.conn, self.settings.table)
            history.ensure()
            yield worker, history

    def record_run(
        self, worker: Worker, history: History, run: uuid.UUID, command: str, versions: Sequence[str], started_at: datetime
    ) -> None:
        """Write a run and the schema as it stands now into the ledger; without pg_dump, with a word instead."""
        try:
            schema, note = self.schema_now(worker.server), ""
        except DbopsError as error:
            schema, note = None, f"the schema's text could not be taken: {error.message}"
            self.tell(Event("warning", detail=f"{note}; `dbops migrate check` will have nothing to compare with"))
        try:
            history.add_run(run, command, versions, started_at, note, schema)
        except DbopsError as error:
            # what was applied is committed and recorded: a lost ledger line must not hide that
            self.tell(Event("warning", detail=f"the run could not be written into the ledger: {error.message}"))

    def schema_now(self, server: Server) -> SchemaText:
        """The configured schemas as canonical text. Raises DbopsError where pg_dump is missing or a pooler stands between."""
        from dbops.fingerprint import schema_text

        if server.pooled:
            raise DbopsError(
                "pg_dump sets its session, which a pooler would hand to the next client",
                hint="connect to the server directly",
            )
        return schema_text(self.url, self.settings.schemas, exclude_tables=(self.settings.table,))

    def prove(self, versions: Sequence[str] | None = None, *, pending: bool = False) -> Proof:
        """Prove all migrations, the pending ones, or those named, on a scratch server. The target is only read.

        Raises UsageError for an unknown version, NotProven (exit 4) where there is nothing to prove.
        """
        from dbops.migrate.prove import prove

        files = self.files()
        known = {migration.version for migration in files}
        for version in versions or ():
            require_known(version, known)
        if pending:
            now = self.get_migration_status()
            selected = {m.version for m in now.pending} | {w.version for w in now.waiting}
        else:
            selected = set(versions or known)
        return prove(files, selected, self.settings, self.major(), self.tell)

    def major(self) -> int:
        """The target's major version; without a named server the embedded one's, which need not run for that."""
        if self.settings.url is None:
            return self.settings.postgres_version
        with connect(self.url, "migrate") as conn:
            return server_of(conn).major

    def history(self, limit: int = 50) -> tuple[Run, ...]:
        """The runs of the ledger, the newest first."""
        with self._reading() as (_, history):
            return history.runs(limit)


def available_extensions(conn: Connection, names: Collection[str]) -> set[str]:
    """Those of `names` that are installed, or that this role can create here (tried in a transaction that is rolled back)."""
    with translated():
        rows = conn.execute(queries("migrate")["extensions"], {"names": list(names)}).fetchall()
        server = server_of(conn)
    installed = {name for name, there in rows if there}
    if server.superuser or server.standby:
        return {name for name, _ in rows}
    return installed | {name for name, there in rows if not there and _can_create(conn, name)}


def _can_create(conn: Connection, name: str) -> bool:
    import psycopg
    from psycopg import sql

    try:
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL lock_timeout = '2s'")
            conn.execute(sql.SQL("CREATE EXTENSION {} CASCADE").format(sql.Identifier(name)))
    except psycopg.Error:
        return False
    return True


