"""The executor: runs the acts of a plan, each in one transaction with its record, or step by step."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable

import psycopg
from psycopg import sql

from dbops.database import translate
from dbops.errors import Blocked, HistoryMismatch, MigrationFileError, shown
from dbops.migrate.events import Event, Observer
from dbops.migrate.failure import failed
from dbops.migrate.history import History, StepRecord
from dbops.migrate.kinds import Mode, Step
from dbops.migrate.outside import Outside
from dbops.migrate.parse import Statement, tree_checksum
from dbops.migrate.plan import Act
from dbops.migrate.worker import Worker, is_busy
from dbops.sql import queries


class Runner:
    """Runs acts on a worker under the runner lock, and records them.

    `messages` allows one message for a whole transaction; an observer who looks into the transaction forbids it.
    """

    def __init__(
        self, worker: Worker, history: History, run: uuid.UUID, tell: Observer, *, messages: bool = True
    ) -> None:
        self.worker, self.history, self.run, self.tell = worker, history, run, tell
        # behind a pooler the backend is known only once the transaction is open
        self.messages = messages and not worker.server.pooled
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
        if self.messages and len(act.program.statements) == 1 and self._in_one_message(act):
            return
        self._begin(act)
        for number, statement in enumerate(act.program.statements, 1):
            self._tell("statement", act, number, statement.sql)
            self._run(act, statement)
            self._tell("ran", act, number)
        self._tell("record", act)
        self._commit(act, self._record(act, began))

    def _in_one_message(self, act: Act) -> bool:
        """A migration of one statement with its record; False where an earlier runner's transaction is still open."""
        worker, [statement] = self.worker, act.program.statements
        plain = act.program.keeps_session
        # one look at the lock, before the record, is enough for a statement that a rollback undoes wholly
        beginning = worker.whole_beginning + ("" if plain else worker.guard)
        restored = "" if plain else self._restored
        # a comment at the end of a statement must not swallow what follows
        ending = f"\n;{restored}{worker.guard}{_text((self._record(act, None),))}"
        self._tell("transaction", act)
        self._tell("statement", act, 1, statement.sql)
        try:
            with worker.watch.statement():
                worker.fenced(beginning + statement.sql + ending)
        except psycopg.Error as error:
            if not is_busy(error):
                raise failed(error, act, statement, len(beginning), worker) from error
            worker.rollback()
            return False
        self._tell("ran", act, 1)
        return True

    def _begin(self, act: Act) -> None:
        self.worker.begin()
        self._tell("transaction", act)

    def _commit(self, act: Act, *statements: sql.Composed) -> None:
        """Undo what the file set, write what is to be written with it, and commit."""
        # what is deferred (a foreign key) fails here: told with the place of the last statement
        self._run(act, act.program.statements[-1], _text(statements), before=self._restored)

    @property
    def _restored(self) -> str:
        return queries("migrate")["restore_session"] + ";" + self.worker.limits

    def _record(self, act: Act, began: float | None) -> sql.Composed:
        """The statement that records an act: its duration is since `began`, or for None since the message came."""
        if act.direction == "down":
            return self.history.query("delete_record", version=act.version)
        duration = None if began is None else (time.monotonic() - began) * 1000
        return self.history.insertion(act.migration, act.program, self.run, duration)

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
