"""MigrationManager: the public API of the room. It returns frozen values and raises DbopsErrors; it never prints."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dbops.database import server_of, translated
from dbops.migrate.files import Migration, read_folder
from dbops.migrate.history import History, Run
from dbops.migrate.kinds import program
from dbops.migrate.plan import (
    Act,
    Plan,
    Status,
    choose_down,
    plan_down,
    plan_up,
    require_expected,
    require_known,
    require_redoable,
)
from dbops.migrate.session import Outcome, Session

if TYPE_CHECKING:
    from dbops.database import Connection
    from dbops.migrate.adopt import Adoption
    from dbops.migrate.prove import Proof
    from dbops.migrate.reverse import Reversal
    from dbops.migrate.upkeep import Drift
    from dbops.migrate.xray import Xray

__all__ = ["MigrationManager", "Outcome"]


class MigrationManager(Session):
    """Migrations of one database.

    `url` is any PostgreSQL URL or conninfo; None takes the settings' (environment, dbops.toml, the embedded server).
    `observer` is called with an Event at each moment of a run.
    """

    def get_migration_status(self) -> Status:
        """How files and history stand to each other. Changes nothing."""
        files = self.files()
        with self._reading() as (conn, history):
            return self._status(files, conn, history)

    def plan_up(self, *, to: str | None = None, count: int | None = None, allow_out_of_order: bool = False) -> Plan:
        """What `migrate_up` would do. Changes nothing."""
        return plan_up(self.get_migration_status(), to=to, count=count, allow_out_of_order=allow_out_of_order)

    def migrate_up(
        self, *, to: str | None = None, count: int | None = None, allow_out_of_order: bool = False
    ) -> Outcome:
        """Apply what is pending, each migration in one transaction with its record.

        Raises HistoryMismatch, LockHeld, StatementFailed, Blocked, LockLost, CannotConnect, MigrationFileError.
        """
        files = self.files()
        with self._reading() as (conn, history):
            before = self._status(files, conn, history)
            unrecorded = bool(history.unrecorded_runs())
        if unrecorded:
            self._complete_ledger()
        if not before.pending:
            return Outcome(plan_up(before, to=to, count=count, allow_out_of_order=allow_out_of_order), (), 0.0)

        def plan(conn: Connection, history: History) -> Plan:
            # once more under the lock: another runner may have done some or all of it
            now = self._status(files, conn, history)
            return plan_up(now, to=to, count=count, allow_out_of_order=allow_out_of_order)

        return self._run("up", plan)

    def plan_down(self, *, version: str | None = None, to: str | None = None, count: int | None = None) -> Plan:
        """What `migrate_down` would do. Changes nothing. Raises Irreversible."""
        with self._reading() as (conn, history):
            return self._plan_down(conn, history, version, to, count)

    def _plan_down(
        self, conn: Connection, history: History, version: str | None, to: str | None, count: int | None
    ) -> Plan:
        # a rollback works from a checkout that lacks the files
        files = read_folder(self.settings.migrations)
        now = self._status(files, conn, history)
        chosen = choose_down(now, version=version, to=to, count=count)
        if version is not None and now.applied and version != now.applied[-1].version:
            from dbops.migrate.prove import require_independent

            with_scripts = [(record, history.scripts(record.version)) for record in now.applied]
            require_independent(version, with_scripts, self.settings, server_of(conn).major)
        return plan_down(chosen, {m.version: m for m in files}, history.scripts)

    def migrate_down(
        self,
        *,
        version: str | None = None,
        to: str | None = None,
        count: int | None = None,
        expected: Sequence[str] | None = None,
    ) -> Outcome:
        """Reverse the newest migration, `count` of them, those after `to`, or one named version.

        `expected` are the versions that were confirmed. Raises HistoryMismatch where others would be reversed by now,
        Irreversible where one has no way back or newer ones depend on it; nothing is reversed then.
        """

        def plan(conn: Connection, history: History) -> Plan:
            found = self._plan_down(conn, history, version, to, count)
            require_expected(found, expected)
            return found

        return self._run("down", plan)

    def rollback_migration(self, version: str) -> Outcome:
        """Reverse one named migration."""
        return self.migrate_down(version=version)

    def migrate_redo(self, *, count: int = 1, expected: Sequence[str] | None = None) -> Outcome:
        """Reverse the newest migrations and apply them again.

        Raises HistoryMismatch or MigrationFileError, before anything is reversed, where they could not be applied again.
        """
        migrations = self.files()
        require_redoable(self.get_migration_status(), migrations, count)
        files = {migration.version: migration for migration in migrations}

        def plan(conn: Connection, history: History) -> Plan:
            down = self._plan_down(conn, history, None, None, count)
            require_expected(down, expected)
            again = tuple(Act(files[v], "up", program(files[v].up)) for v in reversed(down.versions))
            return Plan("redo", down.acts + again)

        outcome = self._run("redo", plan)
        half = len(outcome.plan.acts) // 2
        return Outcome(outcome.plan, outcome.versions[:half], outcome.duration_ms)

    def _complete_ledger(self) -> None:
        """Write the ledger's lines that a killed run owes: after its last commit, before its line."""
        with self.locked() as (worker, history), translated():
            for run, versions in history.unrecorded_runs().items():
                self.record_run(
                    worker, run, "up", versions, datetime.now(UTC), "written by a later run: this one was killed"
                )

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

    def xray(self, plan: Plan) -> Xray:
        """Run a plan on a scratch copy of the target's schema: locks, rewrites, what would block. The target is only read."""
        from dbops.migrate.xray import xray

        return xray(plan, self.url, self.settings, self.major(), self.tell)

    def reverse(self, version: str) -> tuple[Migration, Reversal]:
        """The down part that follows from a migration's up part. Raises UsageError for an unknown version."""
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
            note = "\n".join(("edits accepted", *(self.edit_diff(version) for version in accepted)))
            with self._on_the_record("repair", accepted, note) as (worker, history, _):
                accept(worker, history, migrations)
        return accepted

    def settle_step(self, version: str, *, done: bool) -> int:
        """Say of a step that a killed run began whether it was done (else it runs again). Its number."""
        from dbops.migrate.upkeep import settle_step

        with self._on_the_record(
            "repair", (version,), f"the step begun counts as {'done' if done else 'not done'}"
        ) as (w, h, _):
            return settle_step(w, h, version, done=done)

    def forget_steps(self, version: str) -> int:
        """Give up a migration that stopped half-way: what its steps did stays, the record of them goes. Their number."""
        from dbops.migrate.upkeep import forget_steps

        with self._on_the_record("repair", (version,), "the steps of a run that stopped half-way were forgotten") as (
            w,
            h,
            _,
        ):
            return forget_steps(w, h, version)

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
            self.record_run(worker, run, "adopt", versions, started, f"from {adoption.source.tool.name}")
        return adoption

    def history(self, limit: int = 50) -> tuple[Run, ...]:
        """The runs of the ledger, the newest first."""
        with self._reading() as (_, history):
            return history.runs(limit)
