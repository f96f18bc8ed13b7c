"""Filling one table: propose rows, let PostgreSQL judge and insert them, change what it refused."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import psycopg

from dbops.rows.catalog import Check, Column, Connection, ForeignKey, Table, rows
from dbops.rows.judge import Judge
from dbops.rows.plan import Draft, Pin, Pins, Proposer, Row, Want
from dbops.rows.statements import insert_statement, read_keys, run
from dbops.rows.supply import pool_of
from dbops.values import Pool

ROUNDS = 14  # of changing rows that a check refused
TRIES = 25  # of changing one row that an INSERT refused
SECONDS = 5.0  # for one table
_PARAMETERS = 20_000  # a statement may have 65,535
# no other values would help: syntax or rights, feature, resources, state, system, internal
_HOPELESS = ("42", "0A", "25", "53", "55", "57", "58", "XX")


class Filler:
    """Fills one table. `added` counts its new rows, `why` says what kept others out."""

    def __init__(self, conn: Connection, table: Table, seed: int, *, extremes: bool = True) -> None:
        self.conn, self.table, self.judge = conn, table, Judge(conn)
        self.rng = Random(f"{seed} {table.label}")
        self.deadline = time.monotonic() + SECONDS
        self.added = 0
        self.why = ""
        self.blocked = ""
        self.notes: list[str] = []
        self.shown: dict[str, set[Pin]] = defaultdict(set)
        self.serials: dict[str, list[str]] = defaultdict(list)
        self.checks = self.judge.judgeable(table)
        self.proposer = Proposer(*self._supplies(extremes), self.rng, self._serial)
        self._read_used()

    def _supplies(self, extremes: bool) -> tuple[Table, dict[str, Pool]]:
        """The table with its columns as they are known now, and a pool for each that gets values."""
        pools: dict[str, Pool] = {}
        columns = []
        for column in self.table.columns:
            if column.generated or column.sequence:
                columns.append(column)
                continue
            pool, nullable = pool_of(self.judge, column, self.checks, self.rng, extremes=extremes)
            columns.append(replace(column, nullable=nullable))
            if not pool.empty or column.nullable:
                pools[column.name] = pool
            if pool.empty and column.nullable:
                self.notes.append(f"{column.name} is always NULL: {_unknown(column)}")
            elif pool.empty and column.default is None:
                self.blocked = f"column {column.name}: {_unknown(column)}"
        self.table = replace(self.table, columns=tuple(columns))
        return self.table, pools

    # --- what the database has ---

    def _serial(self, column: Column) -> str:
        ready = self.serials[column.name]
        if not ready:
            ready += [row[0] for row in rows(self.conn, "serials", sequence=column.sequence, count=50)][::-1]
        return ready.pop()

    def _read_used(self) -> None:
        for unique in self.table.uniques:
            if unique.plain:
                self.proposer.used[unique.name] |= set(read_keys(self.conn, self.table.name, unique.columns))

    def read_referable(self) -> str:
        """Read the keys that may be referred to. Returns what is missing, or nothing."""
        for key in self.proposer.keys:
            found = read_keys(self.conn, key.target, key.target_columns)
            self.proposer.referable[key.name] = free = self.proposer.free(key, found)
            if not free and self.table.mandatory(key):
                lack = "no row that is not referred to yet" if found else "no rows"
                return f"{'.'.join(key.target)}, which {key.name} refers to, has {lack}"
        return ""

    # --- rows ---

    def fill(self, count: int) -> None:
        """Add at least `count` rows where the rules allow; `why` says what was in the way."""
        self.why = self.blocked or self.read_referable()
        if self.why:
            return
        half = count // 2 if any(key.needs == self.table.oid for key in self.table.keys) else count
        plans = self.proposer.plan(count)
        for part in (plans[:half], plans[half:]):
            self.insert(self.drafts(part))
            if part and half < count:
                self.read_referable()
        before = -1
        while before < self.added < count and self.going():
            before = self.added
            self.insert(self.drafts([{}] * max(10, 2 * (count - self.added))), count - self.added)
        self.cover()

    def cover(self) -> None:
        """Add a row for each thing that no row shows yet: a NULL, a value, one of a few values."""
        for _ in range(2 if self.added else 0):
            missing = self.missing()
            if not missing or not self.going() or self.blocked or self.read_referable():
                return
            for column, pin in missing:
                self.insert(self.drafts([{column: pin}] * 4, firm=True), 1)

    def missing(self) -> list[tuple[str, Pin]]:
        return [
            (column, pin)
            for column, pins in self.proposer.goals().items()
            for pin in pins
            if pin not in self.shown[column]
        ]

    def going(self) -> bool:
        return time.monotonic() < self.deadline and not self.blocked

    def drafts(self, plans: Sequence[Pins], firm: bool = False) -> list[Draft]:
        """Rows for these pins that pass the checks and have keys of their own."""
        drawn = [(self.proposer.draw(pins), pins) for pins in plans]
        if not firm:
            drawn = [(row or self.proposer.draw({}), pins if row else {}) for row, pins in drawn]
        return self.settle([Draft(row, pins, firm) for row, pins in drawn if row is not None])

    def settle(self, drafts: list[Draft]) -> list[Draft]:
        """Those of the rows that can be made to pass the checks, each with its keys reserved."""
        done: list[Draft] = []
        for turn in range(ROUNDS):
            fresh_keys = [draft for draft in drafts if self._distinct(draft)]
            refusals = self.judge.refusals(self.table, self.checks, [draft.row for draft in fresh_keys])
            drafts = []
            for draft, refused in zip(fresh_keys, refusals, strict=True):
                self._learn(draft, refused)
                if not refused:
                    done.append(draft)
                elif self._mend(draft, refused, turn):
                    drafts.append(draft)
            if not drafts or not self.going():
                break
        return done

    def _distinct(self, draft: Draft) -> bool:
        row = self.proposer.distinct(draft.row, draft.pins if draft.firm else {})
        if row is None:
            self.why = self.why or "the unique keys leave no room for another row"
            return False
        draft.row = row
        self.proposer.reserve(row)
        return True

    def _learn(self, draft: Draft, refused: Sequence[Check]) -> None:
        bad = {name for check in refused for name in check.columns}
        for check in self.checks:
            if not bad & set(check.columns):
                self.proposer.learn(check.name, check.columns, draft.row)

    def _mend(self, draft: Draft, refused: Sequence[Check], turn: int) -> bool:
        self.proposer.release(draft.row)
        self.why = f"no values found that pass {refused[0].name}: {refused[0].expression}"
        if turn > ROUNDS // 2 and not draft.firm:
            draft.pins = {}
        check = self.rng.choices(refused, [len(check.columns) for check in refused])[0]
        row = self.proposer.mend(draft.row, check.name, check.columns, draft.pins)
        draft.row = row if row is not None else draft.row
        return row is not None

    # --- writing ---

    def insert(self, drafts: list[Draft], most: int | None = None) -> None:
        """Insert the rows at once; one by one, with changes, where that is refused."""
        drafts, spare = drafts[:most], drafts[len(drafts[:most]) :]
        for draft in spare:
            self.proposer.release(draft.row)
        size = max(1, _PARAMETERS // max(1, len(self.proposer.columns)))
        for start in range(0, len(drafts), size):
            batch = drafts[start : start + size]
            if self._try([draft.row for draft in batch]) is not None:
                failed = 0
                for draft in batch:
                    failed = 0 if self._insert_one(draft) else failed + 1
                    if failed >= 3 or not self.going():
                        return

    def _insert_one(self, draft: Draft) -> bool:
        for _ in range(TRIES):
            error = self._try([draft.row])
            if error is None:
                return True
            self.proposer.release(draft.row)
            if not self.going():
                return False
            blamed, rule = self._blamed(error)
            row = self.proposer.mend(draft.row, rule, blamed, draft.pins if draft.firm else {})
            settled = self.settle([Draft(row, draft.pins, draft.firm)]) if row is not None else []
            if settled:
                draft = settled[0]
        return False

    def _try(self, batch: Sequence[Row]) -> psycopg.Error | None:
        if not batch:
            return None
        try:
            stored = run(self.conn, *insert_statement(self.table, self._columns, batch, self._watched))
        except psycopg.Error as error:
            self.refused(error)
            return error
        self._count(stored, len(batch))
        return None

    def refused(self, error: psycopg.Error) -> None:
        """Take note of an error; one that no other values would mend ends the filling."""
        if error.sqlstate is None:
            raise error
        self.why = error.diag.message_primary or str(error)
        if error.sqlstate.startswith(_HOPELESS):
            self.blocked = self.why

    @property
    def _columns(self) -> list[str]:
        return list(self.proposer.columns)

    @property
    def _watched(self) -> list[str]:
        return list(self.proposer.goals())

    def _count(self, stored: Sequence[tuple[Any, ...]], sent: int) -> None:
        """Take note of what the rows show as they were stored: triggers may have changed them."""
        self.added += len(stored)
        if len(stored) < sent:
            self.why = "a trigger or rule kept rows out without an error"
        for column, values in zip(self._watched, zip(*stored, strict=True), strict=False):
            self.shown[column] |= set(values)
            if any(value is not None for value in values):
                self.shown[column].add(Want.SOME)

    def _blamed(self, error: psycopg.Error) -> tuple[tuple[str, ...], str]:
        """The columns that may be at fault, and the name of the rule."""
        rule = error.diag.constraint_name or ""
        rules: Sequence[Check | ForeignKey] = (*self.table.checks, *self.table.keys)
        columns = {known.name: known.columns for known in (*rules, *self.table.uniques)}
        everything = tuple(self.proposer.columns)
        return columns.get(rule) or ((error.diag.column_name,) if error.diag.column_name else everything), rule


def _unknown(column: Column) -> str:
    return f"no value of type {column.type.sql} found that its rules accept"
