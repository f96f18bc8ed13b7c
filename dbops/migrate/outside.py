"""Statements that PostgreSQL refuses in a transaction: recorded before and after, recovered when a run was killed.

A killed runner may leave a backend that goes on, an invalid index, a detach that is pending: each is waited for,
dropped or finished before the step is run again (https://www.postgresql.org/docs/current/sql-createindex.html).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dbops.errors import DbopsError, HistoryMismatch, LockHeld, StatementFailed, shown
from dbops.migrate.failure import failed
from dbops.migrate.history import StepRecord
from dbops.migrate.kinds import Step, names, outside_reason
from dbops.migrate.parse import Node, unwrap
from dbops.migrate.plan import Act
from dbops.migrate.worker import is_lock_timeout
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.migrate.apply import Runner


class Outside:
    """One such statement of a migration."""

    def __init__(self, runner: Runner, act: Act, step: Step, settings: str, checksum: str) -> None:
        self.runner, self.act, self.step, self.settings, self.checksum = runner, act, step, settings, checksum
        self.worker = runner.worker
        self.node: Node = step.statement.node
        self.what = outside_reason(step.statement)
        self.place = f"{shown(act.migration.path)}:{step.statement.line}"
        self.marker = f"/* dbops {runner.run} {act.version}/{step.number} */"

    def perform(self, known: StepRecord | None) -> None:
        """Run the statement, or finish what a killed run began."""
        with self.worker.session(self.settings):
            before = known.before if known else self._indexes()
            if known is not None:
                self._await_abandoned(known)
                if self._happened(known):
                    self.runner.write(self.act, "step_done", step=self.step.number)
                    return
                self.runner.write(self.act, "step_forgotten", step=self.step.number)
            self._drop_invalid(before)
            self._record_start(before)
            for attempt in range(self.worker.settings.lock_tries, -1, -1):
                if self._ran(before, last=attempt == 0):
                    break
        self.runner.write(self.act, "step_done", step=self.step.number)
        self.runner._tell("step_done", self.act, self.step.number)

    def _record_start(self, before: list[str]) -> None:
        # behind a pooler the statement may reach another backend: there the marker in its text tells
        backend = (None, None) if self.worker.server.pooled else self._one("backend")
        record = self.runner.started(
            self.act, self.step, self.checksum, marker=self.marker, before=before, backend=backend or (None, None)
        )
        self.runner.transaction(self.act, record)
        self.runner._tell("step", self.act, self.step.number)

    def _ran(self, before: list[str], *, last: bool) -> bool:
        """Run it; False where a deadlock or a lock time-out ended it and it may be tried again."""
        self.worker.guarded("")
        text = self._finalize() or self.step.statement.sql
        try:
            with self.worker.watch.statement():
                self.worker.send(f"{self.marker} {text}")
        except psycopg.Error as error:
            problem = self._gave_up(error, before)
            if is_lock_timeout(error) and not last:
                self.runner._tell("retry", self.act, self.step.number, problem.message)
                time.sleep(0.5)
                return False
            raise problem from error
        except KeyboardInterrupt:
            self._clean_up(before)
            raise
        self._require_valid(before)
        return True

    def _gave_up(self, error: psycopg.Error, before: list[str]) -> DbopsError:
        problem = failed(error, self.act, self.step.statement, len(self.marker) + 1, self.worker)
        if not self.worker.conn.broken and not is_lock_timeout(error):
            self._clean_up(before)
        elif is_lock_timeout(error):
            self._drop_invalid(before)
        return problem

    def _clean_up(self, before: list[str]) -> None:
        """Drop the invalid index that the statement left, and forget that it was begun.

        The drop waits for whoever uses the table, but not for long: then the step stays as begun, and the next run
        recovers it.
        """
        limit = threading.Timer(max(self.worker.settings.lock_timeout, 5.0), self.worker.conn.cancel_safe)
        limit.start()
        try:
            self._drop_invalid(before)
            self.runner.write(self.act, "step_forgotten", step=self.step.number)
        except (psycopg.Error, DbopsError) as error:
            reason = str(error).splitlines()[0]
            detail = f"{self.act.version}: an invalid index may be left until the next run ({reason})"
            self.runner._tell("warning", self.act, self.step.number, detail)
        finally:
            limit.cancel()

    def _rows(self, statement: str, /, **values: Any) -> list[tuple[Any, ...]]:
        # binary: a role's DateStyle must not matter
        return self.worker.conn.execute(queries("migrate")[statement], values, binary=True).fetchall()

    def _one(self, statement: str, /, **values: Any) -> Any:
        return next(iter(self._rows(statement, **values)), None)

    def _await_abandoned(self, known: StepRecord) -> None:
        """Wait for the backend of a killed runner: it may still be building the index."""
        values = {"marker": known.marker, "pid": known.backend_pid, "backend_start": known.backend_start}
        end = time.monotonic() + max(self.worker.settings.wait, 5.0)
        told = False
        while rows := self._rows("abandoned_backends", **values):
            if not told:
                detail = f"server process {rows[0][0]} of a killed run still works on step {self.step.number}"
                self.runner._tell("abandoned", self.act, self.step.number, detail)
                told = True
            if time.monotonic() > end:
                raise LockHeld(
                    f"server process {rows[0][0]} still runs step {self.step.number} of {self.act.version} "
                    "for a runner that was killed",
                    hint="wait for it (--wait 1h) or end it with pg_terminate_backend; nothing more was done",
                )
            time.sleep(0.1)

    # What each command leaves, and how one sees that it happened.

    def _happened(self, known: StepRecord) -> bool:
        """Whether a step that was begun has had its effect. Raises HistoryMismatch where nobody can tell."""
        node, what = self.node, self.what
        if what == "CREATE INDEX CONCURRENTLY":
            return any(valid for name, valid in self._made(known.before))
        if what == "DROP INDEX CONCURRENTLY":
            return not any(self._one("index_state", index=index) for index in dropped(node))
        if what == "DETACH PARTITION CONCURRENTLY":
            return self._one("partition_state", **partition(node)) is None
        for kind in ("database", "tablespace", "subscription"):
            if what.endswith(kind.upper()) and what.startswith(("CREATE", "DROP")):
                found = self._one("object_exists", what=kind, name=object_name(node))[0]
                return bool(found) == what.startswith("CREATE")
        if what:
            return False  # VACUUM, REINDEX, CLUSTER, ALTER SYSTEM: running it once more is right
        version = self.act.version
        raise HistoryMismatch(
            f"{self.place}: step {self.step.number} of {version} was begun by a run that was killed; "
            "nobody can tell how much of it was done",
            hint=f"look at the database, then `dbops migrate repair --step-done {version}` or `--step-again {version}`",
        )

    def _finalize(self) -> str:
        """For a detach that was interrupted: the command that finishes it."""
        if self.what != "DETACH PARTITION CONCURRENTLY":
            return ""
        state = self._one("partition_state", **partition(self.node))
        if not state or not state[0]:
            return ""
        where = partition(self.node)
        return f"ALTER TABLE {where['table']} DETACH PARTITION {where['partition']} FINALIZE"

    def _listed(self) -> list[tuple[Any, ...]]:
        """The indexes among which are those that the statement makes."""
        if self.what == "CREATE INDEX CONCURRENTLY":
            return self._rows("indexes_of", table=relation(self.node.relation))
        return self._rows("reindex_leftovers") if self.what == "REINDEX CONCURRENTLY" else []

    def _indexes(self) -> list[str]:
        """Those indexes before the statement runs."""
        return [row[0] for row in self._listed()]

    def _made(self, before: list[str]) -> list[tuple[str, bool]]:
        """The index of that name, or where it has none those that are new, with whether they are valid."""
        rows = self._listed()
        if self.what == "CREATE INDEX CONCURRENTLY" and self.node.idxname:
            # among the table's own: another schema on the search_path may have an index of that name
            return [(row[0], row[2]) for row in rows if row[1] == self.node.idxname]
        return [(row[0], row[2]) for row in rows if row[0] not in before]

    def _drop_invalid(self, before: list[str]) -> None:
        for name, valid in self._made(before):
            if not valid:
                # the name comes from regclass, which quotes it
                self.worker.guarded("")
                self.worker.send(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
                self.runner._tell("rebuilt", self.act, self.step.number, f"dropped the invalid index {name}")

    def _require_valid(self, before: list[str]) -> None:
        for name, valid in self._made(before):
            if not valid and self.what == "CREATE INDEX CONCURRENTLY":
                raise StatementFailed(
                    f"{self.place}: index {name} is not valid after its build",
                    hint="run the command again: it drops and rebuilds the index; "
                    f"{self.act.version} does not count as applied",
                )


def relation(node: Node) -> str:
    """A RangeVar as SQL."""
    parts = [part for part in (node.schemaname, node.relname) if part]
    return sql.Identifier(*parts).as_string()


def dropped(node: Node) -> list[str]:
    """The names in a DropStmt as SQL."""
    return [sql.Identifier(*names(unwrap(item).items)).as_string() for item in node.objects]


def partition(node: Node) -> dict[str, str]:
    """Table and partition of ALTER TABLE … DETACH PARTITION, as SQL."""
    command = unwrap(getattr(unwrap(node.cmds[0]), "def"))
    return {"table": relation(node.relation), "partition": relation(command.name)}


def object_name(node: Node) -> str:
    """The name in CREATE or DROP DATABASE, TABLESPACE, SUBSCRIPTION."""
    return str(next(getattr(node, field) for field in ("dbname", "tablespacename", "subname") if hasattr(node, field)))
