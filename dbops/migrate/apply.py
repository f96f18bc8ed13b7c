"""The executor: runs the acts of a plan, each in one transaction with its record, or step by step."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable

import psycopg
from psycopg import sql

from dbops.database import redact, translate
from dbops.errors import Blocked, DbopsError, HistoryMismatch, MigrationFileError, NotAllowed, StatementFailed
from dbops.migrate.events import Event, Observer
from dbops.migrate.files import shown
from dbops.migrate.history import History, StepRecord
from dbops.migrate.kinds import Mode, Step
from dbops.migrate.outside import Outside
from dbops.migrate.parse import Statement, tree_checksum
from dbops.migrate.plan import Act
from dbops.migrate.worker import Worker, is_lock_timeout
from dbops.sql import queries


class Runner:
    """Runs acts on a worker under the runner lock, and records them."""

    def __init__(self, worker: Worker, history: History, run: uuid.UUID, tell: Observer) -> None:
        self.worker, self.history, self.run, self.tell = worker, history, run, tell
        worker.conn.add_notice_handler(
            lambda d: tell(Event("notice", name=d.severity or "", detail=d.message_primary or ""))
        )

    def perform(self, act: Act) -> float:
        """Run one act and record it; its duration in ms.

        Raises StatementFailed with the place in the file, Blocked naming who blocks, LockLost, CannotConnect.
        """
        began = time.monotonic()
        self._tell("begin", act)
        if act.program.transactional:
            self._with_retries(act, lambda: self._in_one_transaction(act, began))
        else:
            self._step_by_step(act, began)
        duration = (time.monotonic() - began) * 1000
        self._tell("committed", act, duration_ms=duration)
        return duration

    def _tell(self, what: str, act: Act, step: int = 0, detail: str = "", duration_ms: float = 0.0) -> None:
        steps = len(act.program.statements)
        self.tell(Event(what, act.version, act.migration.name, step, steps, detail, duration_ms))

    def _in_one_transaction(self, act: Act, began: float) -> None:
        self._begin(act)
        for number, statement in enumerate(act.program.statements, 1):
            self._tell("statement", act, number, statement.sql)
            self._run(act, statement)
            self._tell("ran", act, number)
        self._tell("record", act)
        self._commit(act, self._record(act, began))

    def _begin(self, act: Act) -> None:
        self.worker.begin()
        self._tell("transaction", act)

    def _commit(self, act: Act, *statements: sql.Composed) -> None:
        """Undo what the file set, write what is to be written with it, and commit."""
        restored = queries("migrate")["restore_session"] + ";" + self.worker.limits
        # what is deferred (a foreign key) fails here: told with the place of the last statement
        self._run(act, act.program.statements[-1], _text(statements), before=restored)

    def _record(self, act: Act, began: float) -> sql.Composed:
        if act.direction == "down":
            return self.history.query("delete_record", version=act.version)
        return self.history.insertion(act.migration, act.program, self.run, (time.monotonic() - began) * 1000)

    def _run(self, act: Act, statement: Statement, text: str = "", before: str = "") -> None:
        """Run a statement of the file, or a text that ends its transaction."""
        try:
            with self.worker.watch.statement():
                self.worker.guarded(text or statement.sql, before)
        except psycopg.Error as error:
            raise failed(error, act, statement, None if text else self.worker.offset(before), self.worker) from error

    def _with_retries(self, act: Act, attempt: Callable[[], None]) -> None:
        """Give up after lock_tries; between tries nothing is held and nothing queues behind us."""
        tries = self.worker.settings.lock_tries
        for number in range(1, tries + 1):
            try:
                return attempt()
            except Blocked as error:
                self.worker.rollback()
                if number == tries:
                    raise
                pause = random.uniform(0.5, 1.5) * min(0.1 * 2**number, 5.0)
                again = f"trying again in {pause:.1f} s ({number} of {tries})"
                self._tell("retry", act, number, f"{error.message}; {again}")
                time.sleep(pause)
            except psycopg.Error as error:
                self.worker.rollback()
                raise translate(error) from error
            except BaseException:
                self.worker.rollback()
                raise
        return None

    def _step_by_step(self, act: Act, began: float) -> None:
        """Each statement by itself, its progress recorded, so that a killed run resumes where it stood."""
        steps = act.program.steps
        self._refuse_settings_behind_pooler(act, steps)
        known = {s.step: s for s in self.history.steps() if (s.version, s.direction) == (act.version, act.direction)}
        settings = ""
        for step in steps:
            if step.mode is Mode.SESSION:
                # a comment at the end of one must not swallow the next
                settings += step.statement.sql + "\n;\n"
                continue
            self._one_step(act, step, known.get(step.number), settings)
        self._tell("record", act)

        self.transaction(act, self._record(act, began), self._step_query("steps_forgotten", act))

    def _one_step(self, act: Act, step: Step, known: StepRecord | None, settings: str) -> None:
        checksum = tree_checksum([step.statement])
        if known is not None and known.checksum != checksum:
            raise HistoryMismatch(
                f"{shown(act.migration.path)}:{step.statement.line}: step {step.number} of {act.version} was "
                f"{known.state} by an earlier run and has been edited since",
                hint="put the statement back and run the command again; or give up with `dbops migrate repair "
                f"--forget-steps {act.version}` (what its steps did stays). Nothing more was done",
            )
        if known is not None and known.state == "done":
            self._tell("resumed", act, step.number)
            return
        self._tell("statement", act, step.number, step.statement.sql)
        if step.mode is Mode.OUTSIDE:
            Outside(self, act, step, settings, checksum).perform(known)
        else:
            self._with_retries(act, lambda: self._step_in_transaction(act, step, settings, checksum))
        self._tell("ran", act, step.number)

    def _step_in_transaction(self, act: Act, step: Step, settings: str, checksum: str) -> None:
        self._begin(act)
        if settings:
            self.worker.guarded(settings)
        self._run(act, step.statement)
        self._tell("step", act, step.number)
        self._commit(act, self.started(act, step, checksum, state="done"))
        self._tell("step_done", act, step.number)

    def started(
        self, act: Act, step: Step, checksum: str, *, state: str = "started", marker: str = "",
        before: list[str] | None = None, backend: tuple[int | None, object] = (None, None),
    ) -> sql.Composed:  # fmt: skip
        """The statement that records a step."""
        values = {"steps": len(act.program.statements), "checksum": checksum, "state": state, "marker": marker}
        values |= {"backend_pid": backend[0], "backend_start": backend[1], "before": before or []}
        return self._step_query("step_started", act, step=step.number, **values)

    def _step_query(self, statement: str, act: Act, **values: object) -> sql.Composed:
        key = {"record_table": self.history.table, "version": act.version, "direction": act.direction}
        return self.history.query(statement, **key, **values)

    def write(self, act: Act, *names: str, step: int) -> None:
        """Write a step's progress in a guarded transaction."""
        self.transaction(act, *(self._step_query(name, act, step=step) for name in names))

    def transaction(self, act: Act, *statements: sql.Composed) -> None:
        """Run dbops' own statements in a guarded transaction; what is set for the session stays."""

        def attempt() -> None:
            self._begin(act)
            self._run(act, act.program.statements[-1], _text(statements))

        self._with_retries(act, attempt)

    def _refuse_settings_behind_pooler(self, act: Act, steps: tuple[Step, ...]) -> None:
        settings = [step for step in steps if step.mode is Mode.SESSION]
        outside = [step for step in steps if step.mode is Mode.OUTSIDE]
        configured = self.worker.settings.search_path
        if not (self.worker.server.pooled and outside):
            return
        if configured or (settings and settings[0].number < outside[-1].number):
            what = settings[0].statement.sql if settings else f"search_path = {configured}"
            raise MigrationFileError(
                f"{shown(act.migration.path)}:{outside[-1].statement.line}: {what!r} cannot be carried through "
                f"a pooler to a statement outside a transaction ({act.program.reason})",
                hint="connect to the server directly for this migration, or qualify the names; nothing of it was done",
            )


def _text(statements: tuple[sql.Composed, ...]) -> str:
    return "".join(f"{statement.as_string()};" for statement in statements) + "COMMIT"


def failed(error: psycopg.Error, act: Act, statement: Statement, offset: int | None, worker: Worker) -> DbopsError:
    """The error of a migration's own statement, with its place in the file and what was left untouched.

    `offset` is how much was sent in front of it; None where what failed was not the statement itself.
    """
    if worker.conn.broken or worker.conn.closed or not error.sqlstate:
        return translate(error)
    if is_lock_timeout(error):
        blocker = worker.watch.seen or "no longer to be seen"
        waited = f"waited {worker.settings.lock_timeout:g} s for a lock" if error.sqlstate == "55P03" else "a deadlock"
        return Blocked(
            f"{shown(act.migration.path)}:{statement.line}: {waited}; blocked by {blocker}",
            hint="end that transaction (pg_terminate_backend) or wait for it, then run the command again; "
            f"{act.version} {_kept(act)}",
        )
    kind = NotAllowed if error.sqlstate == "42501" else StatementFailed
    return kind(_message(error, act, statement, offset), hint=_hint(error, act))


def _message(error: psycopg.Error, act: Act, statement: Statement, offset: int | None) -> str:
    diag = error.diag
    path = shown(act.migration.path)
    lines = statement.sql.splitlines() or [""]
    line, column, text = statement.line, 0, lines[0]
    position = -1 if offset is None else int(diag.statement_position or 0) - 1 - offset
    if 0 <= position <= len(statement.sql):
        head = statement.sql[:position]
        line += head.count("\n")
        column = position - (head.rfind("\n") + 1) + 1
        text = lines[min(head.count("\n"), len(lines) - 1)]
    place = f"{path}:{line}:{column}" if column else f"{path}:{line}"
    pointer = [f"  {' ' * (column - 1)}^"] if column and column < 200 else []
    details = [f"  {part}" for part in (diag.message_detail, diag.context) if part]
    message = [f"{place}: {diag.message_primary} ({error.sqlstate})", f"  {text[:200]}", *pointer, *details]
    return redact("\n".join(message))


def _hint(error: psycopg.Error, act: Act) -> str:
    if error.sqlstate == "25001":
        own = f"write `-- migrate:{act.direction} transaction:false`: this statement must run outside a transaction. "
    elif error.sqlstate == "42501":
        own = "connect as the owner, or grant the right that is missing. "
    else:
        own = f"{error.diag.message_hint} " if error.diag.message_hint else ""
    return f"{own}{act.version} {_kept(act)}; what was applied before stays recorded"


def _kept(act: Act) -> str:
    if act.program.transactional:
        return "was rolled back"
    return f"stopped at this statement; `{act.direction}` resumes there"
