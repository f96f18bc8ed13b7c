"""PostgreSQL's verdict on values and rows, asked for many at once, without writing any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from dbops.rows.catalog import Check, Column, Connection, Table, rows
from dbops.rows.plan import Row
from dbops.rows.statements import name, run, text
from dbops.values import Type

T = TypeVar("T")
_MOST_TRIES = 200
_WRONG_STATEMENT = "42"  # the SQLSTATE class of what no other value would mend


@dataclass(frozen=True)
class Judge:
    """Asks one server. No method writes or raises for a value that the server refuses."""

    conn: Connection

    def valid(self, kind: Type, values: Sequence[str]) -> list[str]:
        """The values that the server reads as the type, domain checks included."""
        if self.conn.info.server_version >= 160000:
            try:
                with self.conn.transaction():
                    asked = {"type": kind.sql, "values": list(values)}
                    verdicts = [row[0] for row in rows(self.conn, "valid_inputs", **asked)]
                return [value for value, good in zip(values, verdicts, strict=True) if good]
            except psycopg.Error:
                pass  # an extension's type may raise in spite of it
        cast_each = sql.SQL("SELECT {}")
        one = sql.SQL("CAST(%s AS {})::text").format(text(kind.sql))

        def read(batch: Sequence[str]) -> list[str]:
            run(self.conn, cast_each.format(sql.SQL(", ").join([one] * len(batch))), batch)
            return list(batch)

        return _halving(read, values)

    def accepts_null(self, kind: Type) -> bool:
        """Whether the type itself (a domain) takes NULL."""
        cast_null = sql.SQL("SELECT CAST(NULL AS {})").format(text(kind.sql))
        return bool(_halving(lambda _: [run(self.conn, cast_null)], [None]))

    def judgeable(self, table: Table) -> list[Check]:
        """The checks that can be judged from a row's values alone (no system column, no whole row)."""
        written = {column.name for column in table.columns if not column.generated}
        found = []
        for check in table.checks:
            if check.columns and written.issuperset(check.columns):
                try:
                    self._ask(table.columns, [check], [dict.fromkeys(check.columns)])
                except psycopg.Error as error:
                    if (error.sqlstate or "").startswith(_WRONG_STATEMENT):
                        continue
                found.append(check)
        return found

    def refusals(self, table: Table, checks: Sequence[Check], drafts: Sequence[Row]) -> list[list[Check]]:
        """For each row the checks that it fails, or whose evaluation is an error."""
        if not checks:
            return [[] for _ in drafts]
        numbered = list(enumerate(drafts))

        def ask(batch: Sequence[tuple[int, Row]]) -> list[tuple[int, tuple[bool, ...]]]:
            verdicts = self._ask(table.columns, checks, [row for _, row in batch])
            return [(number, verdict) for (number, _), verdict in zip(batch, verdicts, strict=True)]

        known = dict(_halving(ask, numbered))
        # an error does not tell whose it was: such a row is judged check by check
        return [
            [check for check, good in zip(checks, known[number], strict=True) if not good]
            if number in known
            else [check for check in checks if not self._holds(table, check, row)]
            for number, row in numbered
        ]

    def _holds(self, table: Table, check: Check, row: Row) -> bool:
        try:
            return self._ask(table.columns, [check], [row]) == [(True,)]
        except psycopg.Error:
            return False

    def _ask(self, columns: Iterable[Column], checks: Sequence[Check], batch: Sequence[Row]) -> list[tuple[bool, ...]]:
        mentioned = {column for check in checks for column in check.columns}
        used = [column for column in columns if column.name in mentioned]
        casts = [sql.SQL("CAST(%s AS {})").format(text(column.type.sql)) for column in used]
        one = sql.SQL("({})").format(sql.SQL(", ").join([sql.SQL("%s::int"), *casts]))
        statement = sql.SQL("SELECT {} FROM (VALUES {}) AS draft({}) ORDER BY 1").format(
            sql.SQL(", ").join(
                [name(_NUMBER), *(sql.SQL("({}) IS NOT FALSE").format(text(c.expression)) for c in checks)]
            ),
            sql.SQL(", ").join([one] * len(batch)),
            sql.SQL(", ").join(map(name, [_NUMBER, *(column.name for column in used)])),
        )
        values = [value for i, row in enumerate(batch) for value in (i, *(row.get(column.name) for column in used))]
        return [row[1:] for row in run(self.conn, statement, values)]


_NUMBER = "number of the draft"


def _halving(ask: Callable[[Sequence[T]], list[Any]], items: Sequence[T]) -> list[Any]:
    """What `ask` answers for the items; those for which it fails are found by halving and left out."""
    answers: list[Any] = []
    left = [items] if items else []
    for _ in range(_MOST_TRIES):
        if not left:
            break
        batch = left.pop(0)
        try:
            answers += ask(batch)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            middle = len(batch) // 2
            left = [half for half in (batch[:middle], batch[middle:]) if middle] + left
    return answers
