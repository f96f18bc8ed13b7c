"""A whole backup into an empty database: definitions, rows by worker processes, indexes as soon as a table is full.

From the first change to the last the database bears a mark (restoring/target.py): one that was interrupted says so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.backup.create import Progress, Tell
from dbops.backup.loading import Run, Task, Workers, failed, prepare_session, run
from dbops.backup.model import Column, Manifest, Name, Omitted, Sequence, Table
from dbops.backup.restoring.plan import Choices, Plan, loads, make_plan
from dbops.backup.restoring.target import clean as clean_target
from dbops.backup.restoring.target import read_mark, refuse_unfinished, refuse_used, remove_mark, set_mark
from dbops.backup.roles import make_roles
from dbops.backup.schema import Entry
from dbops.backup.store import Store
from dbops.config import Settings
from dbops.database import connect, primary_of, translated
from dbops.errors import BackupDamaged, CannotConnect, DbopsError, NotAllowed, UnfitServer
from dbops.lock import RunnerLock
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

_STATEMENTS = queries("backup/restoring")
_LOCK = "dbops restore"
_NOT_MADE = "the backup has rows of it, its definitions do not make it"


@dataclass(frozen=True)
class Restored:
    """What was restored. `left_out`: rights of roles that were missing and, in a partial restore, what could not be made."""

    tables: int
    rows: int
    duration_ms: float
    notes: tuple[str, ...] = ()
    left_out: tuple[Omitted, ...] = ()


def restore_whole(
    manifest: Manifest,
    store: Store,
    url: str,
    settings: Settings,
    *,
    create_roles: bool = False,
    no_owner: bool = False,
    clean: bool = False,
    partial: bool = False,
    tell: Tell = lambda _: None,
) -> Restored:
    """Restore a backup into the empty database that `url` names, all tables analysed.

    Roles that are missing are made (`create_roles`, without login) or left out with ownership (`no_owner`). `clean`
    drops first what an interrupted restore left. `partial` (for drills) goes on without what needs an extension that
    the server does not have, and names it in `left_out`.
    Raises UsageError for a database that is not empty and for roles that are missing, ConfirmationRequired for an
    unfinished restore without `clean`, BackupDamaged, UnfitServer for a missing extension, a standby or a pooler,
    LockHeld, NotAllowed, CannotConnect, StoreError.
    """
    began = time.monotonic()
    with (
        RunnerLock(url, _LOCK, wait=settings.wait),
        closing(connect(url, "restore", keepalives_idle=30)) as conn,
    ):
        _refuse_unfit(conn)
        prepare_session(conn)
        with translated():
            plan = make_plan(conn, manifest, store, Choices(create_roles, no_owner, partial))
            _take(conn, manifest, clean)
        make_roles(conn, plan.roles)
        work = _Restore(conn, manifest, plan, tell)
        work.whole(url, store, settings.workers)
        remove_mark(conn)
    duration = (time.monotonic() - began) * 1000
    rows = sum(table.rows for table in work.restored)
    return Restored(len(work.restored), rows, duration, plan.notes, (*plan.left_out, *work.left_out))


def _refuse_unfit(conn: Connection) -> None:
    if primary_of(conn).pooled:
        raise UnfitServer(
            "a restore sets its sessions, which a pooler would hand to the next client",
            hint="connect to the server directly; nothing was done",
        )


def examine_target(url: str) -> str:
    """What an interrupted restore left in the database at `url`, in words, or "". Changes nothing.

    Raises UsageError for a database that is not empty, UnfitServer for a standby or a pooler, CannotConnect.
    """
    with closing(connect(url, "restore")) as conn:
        _refuse_unfit(conn)
        with translated():
            if mark := read_mark(conn):
                return f"an unfinished restore of {mark.backup}, begun at {mark.began_at}"
            refuse_used(conn)
    return ""


def _take(conn: Connection, manifest: Manifest, clean: bool) -> None:
    """Make the database this restore's: empty, and marked. One that is somebody's is not touched."""
    mark = read_mark(conn)
    if mark and not clean:
        refuse_unfinished(conn, mark)
    if mark:
        clean_target(conn, mark)
    refuse_used(conn)
    set_mark(conn, manifest.id)


@dataclass
class _Restore:
    """A restore under way; `restored` are the tables whose rows are in."""

    conn: Connection
    manifest: Manifest
    plan: Plan
    tell: Tell
    restored: list[Table] = field(default_factory=list)
    left_out: list[Omitted] = field(default_factory=list)
    _bytes: int = 0
    _total: int = 0
    _began: float = field(default_factory=time.monotonic)

    def whole(self, url: str, store: Store, workers: int) -> None:
        before = {row[0] for row in self.conn.execute(_STATEMENTS["schemas"])}
        for entry in self.plan.pre:
            # an empty schema may be there before: public, or one that an extension was put into
            if entry.kind != "SCHEMA" or entry.name not in before:
                self._make(entry)
        with Workers(url, store, workers, self._progress) as pool:
            later = self._rows_and_indexes(pool)
            for sequence in self.manifest.sequences:
                self._set(sequence)
            for entry in later:
                self._make(entry)
            self._analyse(pool)

    def _make(self, entry: Entry) -> None:
        with self._or_left_out(str(entry)):
            run(self.conn, Run(str(entry), entry.text))

    @contextmanager
    def _or_left_out(self, what: str) -> Iterator[None]:
        """In a partial restore what fails is left out by name."""
        try:
            yield
        except CannotConnect as error:
            if not isinstance(error, NotAllowed):
                raise
            self._fail(what, error)
        except DbopsError as error:
            self._fail(what, error)

    def _fail(self, what: str, error: DbopsError) -> None:
        if not (self.plan.partial and _follows_from_lack(error)):
            error.hint = f"{error.hint or 'mend the reason'}; the database is marked as unfinished: --yes begins anew"
            raise error
        self.left_out.append(Omitted(what, error.message))

    # --- rows and what is built on them ------------------------------------------------------------

    def _rows_and_indexes(self, pool: Workers) -> list[Entry]:
        """Load all tables, and build on each what goes with it as soon as it is full. The entries that remain."""
        own = self._checked()
        built_on = {entry: entry.built_on for entry in self.plan.post}
        self._total = sum(chunk.raw_bytes for table in self.restored for chunk in table.chunks)
        tasks = loads(self.restored, own, pool.count, self.manifest.encoding)
        left = Counter(task.table for task in tasks)
        done: set[Entry] = set()

        def ready(table: Name) -> list[Task]:
            return [Run(str(entry), entry.text, entry) for entry, where in built_on.items() if where == table]

        def after(task: Task, error: DbopsError | None) -> list[Task]:
            if isinstance(task, Run):
                # one that fails here may need what comes later: it is made again in its turn
                done.update({task.entry} if task.entry and not error else ())
                return []
            if error:
                pool.stop()
                self._empty(task.table)
                raise error
            left[task.table] -= 1
            return [] if left[task.table] else ready(task.table)

        pool.do(tasks, after)
        return [entry for entry in self.plan.post if entry not in done]

    def _checked(self) -> list[Table]:
        """Find the tables that can be loaded (`restored`): each as the manifest describes it. Those that are ours."""
        wanted = [table for table in self.manifest.tables if table.kind != "foreign"]
        names = {"schemas": [t.name.schema for t in wanted], "names": [t.name.name for t in wanted]}
        there: dict[Name, list[tuple[str, str, bool]]] = {}
        others: set[Name] = set()
        with translated():
            for schema, name, *column, other in self.conn.execute(_STATEMENTS["restored_columns"], names):
                columns = there.setdefault(Name(schema, name), [])
                columns += [(column[0], column[1], column[2])] if column[0] is not None else []
                others.update({Name(schema, name)} if other else ())
        for table in wanted:
            with self._or_left_out(f"table {table.name}"):
                if table.kind != "large objects":
                    _refuse_other_form(table, there.get(table.name))
                self.restored.append(table)
        return [table for table in self.restored if table.name not in others]

    def _empty(self, table: Name) -> None:
        """Take out what other workers had committed of a table of which a part cannot be loaded."""
        with suppress(psycopg.Error):
            self.conn.execute(sql.SQL("TRUNCATE ONLY {}").format(sql.Identifier(table.schema, table.name)))

    def _progress(self, size: int) -> None:
        self._bytes += size
        self.tell(Progress(self._bytes, self._total, time.monotonic() - self._began))

    # --- the rest -----------------------------------------------------------------------------------

    def _set(self, sequence: Sequence) -> None:
        what = f"sequence {sequence.name}"
        values: dict[str, str | int] = {"schema": sequence.name.schema, "name": sequence.name.name}
        values |= {"last_value": sequence.last_value, "is_called": sequence.is_called}
        with self._or_left_out(what):
            try:
                self.conn.execute(_STATEMENTS["set_sequence"], values)
            except psycopg.Error as error:
                raise failed(what, error) from error

    def _analyse(self, pool: Workers) -> None:
        """Without it the planner knows nothing of the rows until autovacuum comes by."""
        tables = [sql.Identifier(*row) for row in self.conn.execute(_STATEMENTS["analysed"])]
        texts = [sql.SQL("ANALYZE {}").format(table).as_string() for table in tables]

        def after(_: Task, error: DbopsError | None) -> list[Task]:
            if error:
                raise error
            return []

        pool.do([Run(f"statistics: {text}", text) for text in texts], after)


def _follows_from_lack(error: DbopsError) -> bool:
    """Whether this can come of an extension that the server does not have: what is wrong with rows cannot."""
    if isinstance(error, BackupDamaged):
        return _NOT_MADE in error.message
    # https://www.postgresql.org/docs/current/errcodes-appendix.html: no such name, schema or feature, no such file
    state = str(getattr(error.__cause__, "sqlstate", None) or "")
    return state[:2] in ("42", "3F", "0A", "58")


def _refuse_other_form(table: Table, there: list[tuple[str, str, bool]] | None) -> None:
    """Binary COPY takes an int8 for a timestamptz without a word: types must be equal to the letter."""
    if there is None:
        what = _NOT_MADE
    elif there != _form(table.columns):
        what = f"its columns are {_listed(there)}; the rows are of {_listed(_form(table.columns))}"
    else:
        return
    raise BackupDamaged(f"table {table.name}: {what}", hint="nothing of this table was loaded")


def _form(columns: tuple[Column, ...]) -> list[tuple[str, str, bool]]:
    return [(each.name, each.type, each.generated) for each in columns]


def _listed(columns: list[tuple[str, str, bool]]) -> str:
    return ", ".join(f"{name} {kind}{' (generated)' * generated}" for name, kind, generated in columns)
