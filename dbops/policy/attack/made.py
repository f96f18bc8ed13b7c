"""Makes rows for which predicates hold: copies of the rows there are, with the values that a predicate asks for.

What an attack finds must not hang on which values happened to be made: a policy that opens rows by `visibility =
'public'` shows nothing where every row is private.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, product
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import psycopg
from psycopg import sql

from dbops.policy.attack.actors import Actor, sign_in
from dbops.policy.attack.candidates import candidates
from dbops.policy.attack.openings import Openings, scope_of
from dbops.policy.attack.oracle import fixed, relation
from dbops.policy.attack.runner import SQL, TOLD, install, run
from dbops.policy.attack.statements import names, text
from dbops.policy.attack.target import Attempt, Row, Shot, Values
from dbops.policy.attack.ways import Way, calls, enclosed
from dbops.policy.model import Definitions, Name
from dbops.rows.catalog import Table as Shape
from dbops.rows.catalog import load

if TYPE_CHECKING:
    from dbops.database import Connection

MARK = sql.SQL("tableoid::text || ctid::text")
VICTIMS = 4  # owners or tenants beside the attacker's whose rows are copied
_BOTH = 12  # where rows have both: a member's own must be among them
_PAIRS = 600
_INTERVAL = re.compile(r"'([^']*)'::interval")
_INTEGERS = {"int2", "int4", "int8", "numeric", "float4", "float8"}


@dataclass(frozen=True)
class Base:
    """A row to begin with, and the keys of its copy; without keys it is changed itself."""

    row: Row
    keys: Values | None


@dataclass(frozen=True)
class Try:
    """`held`: how many parts hold with these values; -1 where such a row cannot be. `mark`: the row's, once it is there."""

    base: Base
    held: int
    values: Values
    mark: str = ""


class Wanted(Protocol):
    """What rows are made for: `loose` are its parts, each of which is seen to hold or not."""

    @property
    def loose(self) -> Sequence[str]: ...
    @property
    def columns(self) -> Sequence[str]: ...
    @property
    def opaque(self) -> Sequence[str]: ...
    def about(self, table: str, column: str) -> list[str]:
        """The texts that tell which values it asks of the column."""
        ...


@dataclass
class Made:
    """What was made in a table up to now, so that nobody makes or changes it again."""

    number: int = 0
    taken: set[str] = field(default_factory=set)


W = TypeVar("W", bound=Wanted)


@dataclass
class Maker(Generic[W]):
    """Makes rows in one table. `shape` has the columns' types and keys, `scope` the columns that say whose a row is.

    `reader` is the session in which predicates are evaluated, by a superuser. `bodies`: the texts of functions.
    """

    conn: Connection
    table: Name
    shape: Shape
    scope: Sequence[str]
    reader: Actor
    bodies: Mapping[tuple[str, str], str]
    made: Made = field(default_factory=Made)

    def make(self, ways: Iterable[W]) -> None:
        """For each way rows of the attacker's and of victims in which its loose parts hold, where that can be had."""
        for way in ways:
            hint: Values = {}
            for rows in self._groups():
                hint = self._one(rows, way, hint).values or hint

    def _one(self, rows: Sequence[Row], way: W, hint: Values) -> Try:
        """A row of one who owns these: a copy, else one of them changed. The values that did it."""
        untouched = [row for row in rows if row.mark not in self.made.taken]
        copied = self._search(Base(rows[0], self._fresh()), way, hint)
        best = copied
        if copied.held < len(way.loose) and untouched:
            changed = self._search(Base(untouched[0], None), way, hint)
            best = changed if changed.held > copied.held else copied
        return replace(best, mark=self._write(best)) if best.values else best

    def _groups(self) -> list[list[Row]]:
        """The rows by whose they are: the attacker's first, then those who have the most."""
        columns = [column.name for column in self.shape.columns]
        shown = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns)
        statement = sql.SQL("SELECT {}, {} FROM {} ORDER BY tableoid, ctid LIMIT 200")
        found: dict[tuple[str | None, ...], list[Row]] = {}
        for mark, *values in self.conn.execute(statement.format(MARK, shown, relation(self.table))):
            row = Row(mark, dict(zip(columns, values, strict=True)))
            found.setdefault(tuple(row.values[column] for column in self.scope), []).append(row)
        mine = [rows for whose, rows in found.items() if self.reader.identity in whose]
        others = [rows for whose, rows in found.items() if self.reader.identity not in whose and (None not in whose)]
        return [*mine[:1], *sorted(others, key=len, reverse=True)[: _BOTH if len(self.scope) > 1 else VICTIMS]]

    # --- searching ---

    def _search(self, base: Base, way: W, hint: Values) -> Try:
        """The values with which the most parts hold; none where they hold as it is, or nothing helps."""
        best = self._best(base, way, [{}, hint])
        if best.held == len(way.loose):
            return best
        choices = {column: self._choices(base.row, way, column) for column in way.columns}
        while best.held < len(way.loose):
            better = self._best(base, way, [{**best.values, **one} for one in _singles(choices)])
            if better.held <= best.held:
                better = self._best(base, way, [{**best.values, **two} for two in _pairs(choices)])
            if better.held <= best.held:
                break
            best = better
        return best

    def _best(self, base: Base, way: W, tries: Sequence[Values]) -> Try:
        """The first of those with which the most parts hold."""
        attempts = [Attempt("select", "", self._told(base, values, way.loose), "rows") for values in tries]
        outcomes = run(self.conn, [Shot(self.reader, attempt, TOLD) for attempt in attempts])
        counts = [(outcome.found or "").count("t") if outcome.worked else -1 for outcome in outcomes]
        most = max(counts, default=-1)
        return Try(base, most, tries[counts.index(most)] if counts else {})

    def _told(self, base: Base, values: Values, parts: Sequence[str]) -> str:
        """Make the row and tell which parts hold for it: t or f for each."""
        told = sql.SQL(", ").join(sql.SQL("({}) IS TRUE").format(fixed(enclosed(part))) for part in parts)
        whole = sql.SQL("WITH dbops_made AS ({}) SELECT pg_catalog.concat({}) FROM dbops_made AS {}")
        return text(whole.format(self._statement(base, values), told, sql.Identifier(self.table.name)))

    def _choices(self, base: Row, way: W, column: str) -> list[str | None]:
        parts = way.about(self.table.name, column)
        parts += [self.bodies[name] for part in parts for name in calls(part) if name in self.bodies]
        who = self.reader.identity
        known: list[str | None] = [who, f"{{{who}}}"] if who and way.opaque else []
        known += [base.values[other] for other in way.columns if other != column]
        known += [row[0] for row in self.conn.execute(_VALUES.format(sql.Identifier(column), relation(self.table)))]
        intervals = [interval for part in parts for interval in _INTERVAL.findall(part)]
        moments = [row[0] for row in self.conn.execute(SQL["moments"], {"intervals": intervals})] if intervals else []
        return candidates(self.shape.column(column).type, parts, known=known, moments=moments)

    # --- writing ---

    def _write(self, best: Try) -> str:
        statement = sql.SQL("WITH dbops_made AS ({}) SELECT dbops_mark FROM dbops_made")
        try:
            with self.conn.transaction():
                found = self.conn.execute(statement.format(self._statement(best.base, best.values))).fetchone()
        except psycopg.Error:
            return ""  # a way without its row is missed when the ways are evaluated
        self.made.number += 1
        self.made.taken |= {found[0]} if found else set()
        return found[0] if found else ""

    def _statement(self, base: Base, values: Values) -> sql.Composable:
        mark = sql.SQL("RETURNING *, {} AS dbops_mark").format(MARK)
        writable = [column.name for column in self.shape.columns if not column.generated]
        if base.keys is None:
            changed = values or {writable[0]: base.row.values[writable[0]]}
            assign = [sql.SQL("{} = {}").format(sql.Identifier(c), sql.Literal(v)) for c, v in changed.items()]
            update = sql.SQL("UPDATE {} SET {} WHERE {} = {} {}")
            return update.format(
                relation(self.table), sql.SQL(", ").join(assign), MARK, sql.Literal(base.row.mark), mark
            )
        row = {**{name: base.row.values[name] for name in writable}, **base.keys, **values}
        insert = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({}) {}")
        literals = sql.SQL(", ").join(map(sql.Literal, row.values()))
        return insert.format(relation(self.table), names(row), literals, mark)

    def _fresh(self) -> Values | None:
        """New values for a column of each unique key; None where a key leaves no choice."""
        referring = {column for key in self.shape.keys for column in key.columns}
        found: dict[str, str | None] = {}
        for key in self.shape.uniques:
            free = [column for column in key.columns if column not in (*self.scope, *referring)]
            made = next(((c, value) for c in free if (value := self._new(self.shape.column(c).type.name))), None)
            if made is None or not key.plain:
                return None
            found |= [made]
        return found

    def _new(self, kind: str) -> str | None:
        number = 20000 + self.made.number
        if kind == "uuid":
            return str(uuid.uuid5(uuid.NAMESPACE_URL, f"dbops:{self.table}:{number}"))
        if kind in _INTEGERS:
            return str(number)
        return f"dbops {number}" if kind in ("text", "varchar") else None


_VALUES = sql.SQL("SELECT DISTINCT {0}::text FROM {1} WHERE {0} IS NOT NULL ORDER BY 1 LIMIT 12")


def _singles(choices: Mapping[str, Sequence[str | None]]) -> Iterator[Values]:
    return ({column: value} for column, values in choices.items() for value in values)


def _pairs(choices: Mapping[str, Sequence[str | None]]) -> Iterator[Values]:
    """Two columns at once, the likelier values first."""
    names = list(choices)
    both = (
        {one: a, other: b}
        for at, one in enumerate(names)
        for other in names[at + 1 :]
        for a, b in product(choices[one][:20], choices[other][:20])
    )
    return islice(both, _PAIRS)


@dataclass
class Workshop:
    """What all makers share. `readers`: the user who attacks each table."""

    conn: Connection
    definitions: Definitions
    readers: Mapping[Name, str]
    schemas: Sequence[str]
    exclude: Sequence[str]
    made: dict[Name, Made] = field(default_factory=dict)

    @cached_property
    def shapes(self) -> Mapping[Name, Shape]:
        install(self.conn)
        return {Name(*shape.name): shape for shape in load(self.conn, self.schemas, self.exclude)}

    @cached_property
    def bodies(self) -> Mapping[tuple[str, str], str]:
        return {(schema, name): body for schema, name, body in self.conn.execute(SQL["texts"])}

    def scope(self, table: Name) -> tuple[str, ...]:
        return scope_of(self.definitions.tables.get(table))

    def reader(self, table: Name) -> Actor:
        who = self.readers.get(table, "")
        return Actor("", "none", sign_in(self.definitions.auth, who), who)

    def state(self, table: Name) -> Made:
        return self.made.setdefault(table, Made())


def make_true(shop: Workshop, openings: Mapping[Name, Openings]) -> None:
    """Make rows for all the ways of policies that ask for values."""
    for name, each in openings.items():
        if not (each.loose or each.shared):
            continue
        scope, reader = shop.scope(name), shop.reader(name)
        for table, ways in ({name: list(each.shared)} | each.loose).items():
            if name in shop.shapes:  # a partition has its parent's
                more = each.shared if table == name else ()
                maker = Maker[Way](shop.conn, table, shop.shapes[name], scope, reader, shop.bodies, shop.state(table))
                maker.make(dict.fromkeys((*more, *ways)))
