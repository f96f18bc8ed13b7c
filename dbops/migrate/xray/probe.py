"""Looks at a run of migrations from within: what each statement locked, rewrote, scanned and built.

It is the observer of the same executor that runs migrations for real, and asks on the executor's own connection, in
its transaction, where what the statement made can be seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from dbops.errors import DbopsError
from dbops.migrate.events import Event
from dbops.migrate.kinds import Mode, outside_reason
from dbops.migrate.parse import Statement
from dbops.migrate.plan import Act
from dbops.migrate.worker import Worker
from dbops.migrate.xray.estimate import MODES, Built, Lock, Seen, mode_of, strongest
from dbops.migrate.xray.pause import Pause, tables_of
from dbops.sql import queries

# the last three may hold any statement inside
_CHANGES = ("update_stmt", "delete_stmt", "merge_stmt", "do_stmt", "call_stmt", "select_stmt")


@dataclass(frozen=True)
class Relation:
    """A relation as the catalog has it at one moment; `scans` are those of this transaction."""

    name: str
    kind: str
    filenode: int
    table: int | None
    method: str
    scans: int


@dataclass(frozen=True)
class Look:
    """The catalog and the worker's locks at one moment. `keys`: the tables of valid foreign keys, by constraint."""

    relations: Mapping[int, Relation]
    keys: Mapping[int, int]
    locks: frozenset[tuple[int, str]]


class Probe:
    """The observer of a run on `worker`. What stands in the database when it is made is what the target has."""

    def __init__(self, worker: Worker, url: str) -> None:
        self.worker, self._url = worker, url
        self._target = {oid: relation.name for oid, relation in self._look().relations.items()}
        self._statements: list[Seen] = []
        self._current = -1
        self._act: Act
        self._before: Look
        self._began = 0.0
        self._pause: Pause | None = None

    def start(self, act: Act, left_out: Mapping[int, str]) -> None:
        """Look at another act. `left_out` gives reasons for the steps that the executor will not run."""
        self._act, self._current, self._left_out = act, -1, left_out
        self._statements = [Seen(statement.sql, statement.line) for statement in act.program.statements]

    def __call__(self, event: Event) -> None:
        if event.what == "statement":
            self._current = event.step - 1
            self._ready()
        elif event.what == "transaction" and self._mode is Mode.TRANSACTION and not self._act.program.transactional:
            self._ready()  # what a transaction has scanned is counted from its beginning
        elif event.what == "step" and self._mode is Mode.OUTSIDE:
            tables = tables_of(self.worker.conn, self._statement)
            self._pause = Pause(self._url, self.worker.conn.info.backend_pid, tables)
            self._ready()
        elif event.what == "step" or (event.what == "ran" and self._unfinished):
            self._finish()
        elif event.what == "resumed":
            reason = self._left_out.get(event.step, "")
            self._set(event.step - 1, state="left out" if reason else "done before", error=reason)

    @property
    def _statement(self) -> Statement:
        return self._act.program.statements[self._current]

    @property
    def _mode(self) -> Mode | None:
        """How the statement under way is run; None where none is."""
        if not self._unfinished:
            return None
        return Mode.TRANSACTION if self._act.program.transactional else self._act.program.steps[self._current].mode

    @property
    def _unfinished(self) -> bool:
        return self._current >= 0 and self._statements[self._current].state == "not looked at"

    def _set(self, place: int, **values: object) -> None:
        self._statements[place] = replace(self._statements[place], **values)  # type: ignore[arg-type]

    def _ready(self) -> None:
        self._before = self._look()
        self._began = time.monotonic()

    def _finish(self) -> None:
        duration = (time.monotonic() - self._began) * 1000
        paused = self._paused()
        after = self._look()
        after = replace(after, locks=after.locks | paused)
        seen = _Compared(self._statement, self._before, after, self._target).fill(self._statements[self._current])
        self._statements[self._current] = replace(seen, state="ran", duration_ms=round(duration, 3))

    def _paused(self) -> set[tuple[int, str]]:
        pause, self._pause = self._pause, None
        return pause.locks() if pause else set()

    def failed(self, error: DbopsError) -> None:
        """The act ended with an error: its statement's, or the last one's when it came with the commit."""
        self._paused()
        if self._statements:
            self._set(max(self._current, 0), state="failed", error=error.message)

    def statements(self) -> tuple[Seen, ...]:
        """The act's statements as they were seen."""
        settings = {i for i, s in enumerate(self._act.program.steps) if s.mode is Mode.SESSION}
        if not self._act.program.transactional:
            for place in settings & set(range(self._current)):
                self._set(place, state="ran")
        return tuple(self._statements)

    def _look(self) -> Look:
        conn, statements = self.worker.conn, queries("migrate")
        relations = {row[0]: Relation(*row[1:]) for row in conn.execute(statements["xray_relations"])}
        keys = {row[0]: row[1] for row in conn.execute(statements["xray_keys"])}
        locks = conn.execute(statements["xray_locks"], {"pid": conn.info.backend_pid}).fetchall()
        return Look(relations, keys, frozenset((oid, mode) for oid, mode in locks))


@dataclass(frozen=True)
class _Compared:
    """Two looks, before and after a statement. `target` names the relations that the target has."""

    statement: Statement
    before: Look
    after: Look
    target: Mapping[int, str]

    def fill(self, seen: Seen) -> Seen:
        locks = sorted(strongest(self._locks()), key=lambda lock: (-MODES.index(lock.mode), lock.relation))
        seen = replace(seen, locks=tuple(locks))
        if self.statement.kind == "truncate_stmt":
            return seen  # it gives new files too, to the table and its indexes, and nothing to do
        scanned, keyed = set(self._scanned()), set(self._keyed())
        changes = self.statement.kind in _CHANGES
        changed = (oid for oid in scanned if changes and (oid, "RowExclusiveLock") in self.after.locks)
        return replace(
            seen,
            rewrites=self._names(self._rewritten()),
            scans=self._names(scanned | keyed),
            changes=self._names(changed),
            keys=self._names(keyed),
            indexes=tuple(self._built()),
        )

    def _names(self, oids: Iterable[int]) -> tuple[str, ...]:
        return tuple(sorted(self.target[oid] for oid in oids))

    def _relation(self, oid: int) -> Relation | None:
        return self.before.relations.get(oid) or self.after.relations.get(oid)

    def _locks(self) -> Iterator[Lock]:
        # CONCURRENTLY locks an index whole when nobody reads the table by it any more: that keeps nobody from the table
        aside = outside_reason(self.statement).endswith("INDEX CONCURRENTLY")  # REINDEX too
        for oid, mode in self.after.locks - self.before.locks:
            relation = self._relation(oid)
            if relation is not None:  # else a catalog's, or one of TOAST, which goes with its table
                table = self.target.get(relation.table, "") if relation.table and not aside else ""
                name = self.target.get(oid, relation.name)
                yield Lock(mode_of(mode), name, created=oid not in self.target, table=table)

    def _rewritten(self) -> Iterator[int]:
        """The target's tables whose content lies in another file than before."""
        for oid, was in self.before.relations.items():
            now = self.after.relations.get(oid)
            if now and oid in self.target and was.kind in "rm" and was.filenode != now.filenode:
                yield oid

    def _scanned(self) -> Iterator[int]:
        for oid, now in self.after.relations.items():
            was = self.before.relations.get(oid)
            if was and oid in self.target and now.kind in "rm" and now.scans > was.scans:
                yield oid

    def _keyed(self) -> Iterator[int]:
        """The tables whose foreign keys are valid since: each of their rows was looked up."""
        for constraint in self.after.keys.keys() - self.before.keys.keys():
            oid = self.after.keys[constraint]
            if oid in self.target and self.after.relations[oid].kind == "r":
                yield oid

    def _built(self) -> Iterator[Built]:
        """The indexes in files that were not there before: one that ALTER TABLE takes over keeps its file."""
        files = {relation.filenode for relation in self.before.relations.values()}
        for relation in self.after.relations.values():
            table = self.target.get(relation.table or 0)
            if table and relation.kind == "i" and relation.filenode not in files:
                yield Built(relation.name, table, relation.method)
