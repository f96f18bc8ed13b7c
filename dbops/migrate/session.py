"""A session of work on one database's migrations: files, history, the lock, the ledger. Verbs are built on it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dbops.config import Settings, libpq_url, load, search_path_of
from dbops.database import Server, connect, require_bypass, seeing_all, server_of, translated
from dbops.embedded import resolve
from dbops.errors import DbopsError, MigrationFileError, UsageError
from dbops.migrate.events import Event, Observer, silent
from dbops.migrate.files import Migration, read_folder
from dbops.migrate.history import History
from dbops.migrate.plan import Plan, Status, status
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection
    from dbops.fingerprint import SchemaText
    from dbops.migrate.worker import Worker


@dataclass(frozen=True)
class Outcome:
    """What a run did: the versions in the order in which they were done, and how long it took in ms."""

    plan: Plan
    versions: tuple[str, ...]
    duration_ms: float


class Session:
    """One database, one folder of migrations, one observer.

    `url` is any PostgreSQL URL or conninfo; None takes the settings' (environment, dbops.toml, the embedded server).
    `observer` is called with an Event at each moment of a run.
    """

    def __init__(
        self, url: str | None = None, *, settings: Settings | None = None, observer: Observer = silent
    ) -> None:
        self.settings = settings or load()
        if url is not None:
            if not url.strip():
                raise UsageError("the URL is empty", hint="leave it out for the settings' own; nothing was done")
            path = self.settings.search_path or search_path_of(url)
            self.settings = replace(self.settings, url=libpq_url(url), url_source="argument", search_path=path)
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
        """The migrations of the folder. Raises MigrationFileError, also where there is no folder."""
        if not self.settings.migrations.is_dir():
            raise MigrationFileError(
                f"{self.settings.migrations}: there is no such folder",
                hint="`dbops init` makes one; or set `migrations` in dbops.toml or DBOPS_MIGRATIONS. Nothing was done",
            )
        return read_folder(self.settings.migrations)

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, History]]:
        with connect(self.url, "migrate status") as conn, seeing_all(conn, conn.info.server_version // 10000):
            yield conn, History(conn, self.settings.table)

    def _status(self, files: Sequence[Migration], conn: Connection, history: History) -> Status:
        records = history.records()
        steps = history.steps() if records or files else ()
        return status(files, records, extensions=lambda names: available_extensions(conn, names), steps=steps)

    def _run(self, command: str, plan_under_lock: Callable[[Connection, History], Plan]) -> Outcome:
        """Take the lock, make the plan under it, act, write the ledger."""
        from dbops.migrate.apply import Runner

        began, started_at = time.monotonic(), datetime.now(UTC)
        done: list[str] = []
        with self.locked() as (worker, history), translated():
            with seeing_all(worker.conn, worker.server.major):
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
                    worker.flush()
                    self.record_run(worker, run, command, done, started_at)
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
        self, worker: Worker, run: uuid.UUID, command: str, versions: Sequence[str], started_at: datetime,
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
            # a connection of its own: the worker's may have been idle for longer than its role allows
            with connect(self.url, "migrate") as conn:
                conn.read_only = False  # whatever the role's default is
                History(conn, self.settings.table).add_run(run, command, versions, started_at, note, schema)
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

    def major(self) -> int:
        """The target's major version; without a named server the embedded one's, which need not run for that."""
        if self.settings.url is None:
            return self.settings.postgres_version
        with connect(self.url, "migrate") as conn:
            return server_of(conn).major

    @contextmanager
    def _on_the_record(
        self, command: str, versions: Sequence[str], note: str
    ) -> Iterator[tuple[Worker, History, uuid.UUID]]:
        """Work under the lock that ends up in the ledger."""
        started, run = datetime.now(UTC), uuid.uuid4()
        with self.locked() as (worker, history), translated():
            yield worker, history, run
            self.record_run(worker, run, command, versions, started, note)


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
