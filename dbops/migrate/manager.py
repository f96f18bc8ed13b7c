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
from dbops.migrate.events import Event, Observer, silent
from dbops.migrate.files import Migration, read_folder
from dbops.migrate.history import History, Run
from dbops.migrate.plan import Plan, Status, choose_down, plan_down, plan_up, require_known, status
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection
    from dbops.fingerprint import SchemaText
    from dbops.migrate.adopt import Adoption
    from dbops.migrate.prove import Proof
    from dbops.migrate.reverse import Reversal
    from dbops.migrate.upkeep import Drift
    from dbops.migrate.worker import Worker
    from dbops.migrate.xray import Xray


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
        files = self.files()
        with self._reading() as (conn, history):
            before = self._status(files, conn, history)
        if not before.pending:
            return Outcome(plan_up(before, to=to, count=count, allow_out_of_order=allow_out_of_order), (), 0.0)

        def plan(conn: Connection, history: History) -> Plan:
            # once more under the lock: another runner may have done some or all of it
            now = self._status(files, conn, history)
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
        from dbops.migrate.apply import Runner

        began, started_at = time.monotonic(), datetime.now(UTC)
        done: list[str] = []
        with self.locked() as (worker, history), translated():
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
    def locked(self, *, ensure: bool = True) -> Iterator[tuple[Worker, History]]:
        """The runner lock, a worker under it, and the tables of the history made where they were missing."""
        from dbops.lock import RunnerLock
        from dbops.migrate.worker import Worker

        def waits(holder: object) -> None:
            self.tell(Event("waiting", detail=str(holder or "another runner")))

        lock = RunnerLock(self.url, self.settings.table, wait=self.settings.wait, on_wait=waits)
        with lock, Worker(self.url, lock, self.settings) as worker:
            self.tell(Event("locked"))
            history = History(worker.conn, self.settings.table)
            if ensure:
                history.ensure()
            yield worker, history

    def record_run(
        self, worker: Worker, history: History, run: uuid.UUID, command: str, versions: Sequence[str], started_at: datetime,
        note: str = "",
    ) -> None:  # fmt: skip
        """Write a run and the schema as it stands now into the ledger; without pg_dump, with a word instead."""
        try:
            schema = self.schema_now(worker.server)
        except DbopsError as error:
            schema = None
            missing = f"the schema's text could not be taken: {error.message}"
            note = "; ".join(filter(None, (note, missing)))
            self.tell(Event("warning", detail=f"{missing}; `dbops migrate check` will have nothing to compare with"))
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

    def xray(self, plan: Plan) -> Xray:
        """Run a plan on a scratch copy of the target's schema: locks, rewrites, what would block. The target is only read."""
        from dbops.migrate.xray import xray

        return xray(plan, self.url, self.settings, self.major(), self.tell)

    def reverse(self, version: str) -> tuple[Migration, Reversal]:
        """The down part that follows from a migration's up part. Raises UsageError for an unknown version."""
        from dbops.migrate.kinds import program
        from dbops.migrate.reverse import reverse

        files = {migration.version: migration for migration in self.files()}
        require_known(version, files)
        return files[version], reverse(program(files[version].up).statements)

    def check(self) -> Drift:
        """How the configured schemas differ from what the last run left. Changes nothing."""
        from dbops.migrate.upkeep import drift

        with self._reading() as (conn, history):
            recorded = history.last_schema() if history.exists() else None
            return drift(recorded, self.schema_now(server_of(conn)))

    def edit_diff(self, version: str) -> str:
        """What was edited in the file of an applied migration, as a unified diff."""
        from dbops.migrate.upkeep import edit_diff

        migration = next(m for m in self.files() if m.version == version)
        with self._reading() as (_, history):
            scripts = history.scripts(version)
        return edit_diff(migration, scripts.up if scripts else "")

    def plan_repair(self, versions: Sequence[str] = ()) -> tuple[Migration, ...]:
        """The edited files that `repair` would accept."""
        from dbops.migrate.upkeep import edited

        return edited(self.get_migration_status(), self.files(), versions)

    def repair(self, versions: Sequence[str] = ()) -> tuple[str, ...]:
        """Accept edited files as they are now, on the record. The versions accepted."""
        from dbops.migrate.upkeep import accept

        migrations = self.plan_repair(versions)
        accepted = tuple(migration.version for migration in migrations)
        if migrations:
            note = "\n".join(self.edit_diff(version) for version in accepted)
            with self._on_the_record("repair", accepted, note) as (worker, history, _):
                accept(worker, history, migrations)
        return accepted

    def settle_step(self, version: str, *, done: bool) -> int:
        """Say of a step that a killed run began whether it was done (else it runs again). Its number."""
        from dbops.migrate.upkeep import settle_step

        with self._on_the_record("repair", (version,), f"the step begun counts as {'done' if done else 'not done'}") as (w, h, _):
            return settle_step(w, h, version, done=done)

    def plan_baseline(self, version: str) -> tuple[Migration, ...]:
        """The migrations that a baseline at `version` would record without running them."""
        from dbops.migrate.upkeep import plan_baseline

        with self._reading() as (_, history):
            return plan_baseline(self.files(), history.records(), version)

    def baseline(self, version: str) -> tuple[str, ...]:
        """Record all migrations up to `version` as applied, without running them. The versions recorded."""
        from dbops.migrate.upkeep import record_without_running

        migrations = self.plan_baseline(version)
        versions = tuple(migration.version for migration in migrations)
        with self._on_the_record("baseline", versions, "") as (worker, history, run):
            record_without_running(worker, history, migrations, "baseline", run)
        return versions

    def plan_adopt(self, tool: str | None = None) -> Adoption:
        """What taking over another tool's history would mean. Changes nothing."""
        from dbops.migrate.adopt import plan_adoption

        with self._reading() as (conn, history):
            return plan_adoption(conn, history, self.files(), tool)

    def adopt(self, tool: str | None = None) -> Adoption:
        """Take over another tool's history: its versions become records, a table of our name is renamed; one transaction."""
        from dbops.migrate.adopt import plan_adoption, rename
        from dbops.migrate.upkeep import record_without_running

        started, run = datetime.now(UTC), uuid.uuid4()
        with self.locked(ensure=False) as (worker, history):
            adoption = plan_adoption(worker.conn, history, self.files(), tool)
            with translated(), worker.conn.transaction():
                if adoption.rename_to:
                    rename(worker.conn, adoption)
                history.ensure()
                record_without_running(worker, history, adoption.migrations, "adopted", run)
            versions = [migration.version for migration in adoption.migrations]
            self.record_run(worker, history, run, "adopt", versions, started, f"from {adoption.source.tool.name}")
        return adoption

    @contextmanager
    def _on_the_record(
        self, command: str, versions: Sequence[str], note: str
    ) -> Iterator[tuple[Worker, History, uuid.UUID]]:
        """Work under the lock that ends up in the ledger."""
        started, run = datetime.now(UTC), uuid.uuid4()
        with self.locked() as (worker, history), translated():
            yield worker, history, run
            self.record_run(worker, history, run, command, versions, started, note)

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


