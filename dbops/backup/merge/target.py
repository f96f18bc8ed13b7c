"""One table of a merge: its temporary tables, and the pieces of SQL that all statements on it are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from psycopg import sql
from psycopg.sql import SQL, Composable, Composed, Identifier

from dbops.backup.merge.catalog import ForeignKey, LiveTable
from dbops.backup.merge.select import Scope
from dbops.backup.model import Name, Table

RowsOf = Callable[["Target"], Composed]
COMMA, AND, OR = SQL(", "), SQL(" AND "), SQL(" OR ")


def trusted(text: str) -> SQL:
    """SQL that the server's catalog printed (a type, an operator), or that was checked before."""
    return SQL(text)


def qualified(name: Name) -> Identifier:
    return Identifier(name.schema, name.name)


def listed(columns: Iterable[str], alias: str = "") -> Composed:
    """`"a"."x", "a"."y"`."""
    return COMMA.join(Identifier(alias, each) if alias else Identifier(each) for each in columns)


def matched(
    left: str, left_columns: Sequence[str], equals: Sequence[str], right: str, right_columns: Sequence[str]
) -> Composed:
    """`left.a = right.x AND …` by these operators."""
    pairs = zip(left_columns, equals, right_columns, strict=True)
    return AND.join(
        SQL("{} {} {}").format(Identifier(left, ours), trusted(op), Identifier(right, theirs))
        for ours, op, theirs in pairs
    )


def row_text(columns: Iterable[str], alias: str) -> Composed:
    """A row as text: the same for the same values, also of types that cannot be compared (json, xml)."""
    return SQL("ROW({})::pg_catalog.text").format(listed(columns, alias))


def row_hash(columns: Iterable[str], alias: str) -> Composed:
    text = row_text(columns, alias)
    return SQL("pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({}, 'UTF8')), 'hex')").format(text)


def row_json(columns: Sequence[str], alias: str) -> Composed:
    """A row as a jsonb object of its values' texts: they are read back exactly, also floats, json and bytea."""
    names = COMMA.join(sql.Literal(name) for name in columns)
    values = COMMA.join(SQL("{}::pg_catalog.text").format(Identifier(alias, name)) for name in columns)
    return SQL("pg_catalog.jsonb_object(ARRAY[{}]::pg_catalog.text[], ARRAY[{}]::pg_catalog.text[])").format(
        names, values
    )


@dataclass(frozen=True)
class Target:
    """A table, the scope of its rows, and its columns that come from the backup (`columns`).

    Rows without a primary key are told apart by their text and a number among their equals.
    """

    number: int
    live: LiveTable
    scope: Scope
    columns: tuple[str, ...]
    sources: tuple[Table, ...] = ()
    user: str = ""
    tenancy: str = ""
    where: str = ""
    against: int | None = None  # the target whose staged rows stand for the live ones: another backup's

    @property
    def name(self) -> Name:
        return self.live.name

    @property
    def keyed(self) -> bool:
        return bool(self.live.key)

    @property
    def key(self) -> tuple[str, ...]:
        return self.live.key or ("dbops_row", "dbops_n")

    @property
    def equals(self) -> tuple[str, ...]:
        return self.live.equals or ("OPERATOR(pg_catalog.=)",) * len(self.key)

    @property
    def key_types(self) -> tuple[str, ...]:
        types = {column.name: column.type for column in self.live.columns}
        return tuple(types[name] for name in self.live.key) or ("pg_catalog.text", "pg_catalog.int8")

    @cached_property
    def written(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.live.written)

    @property
    def kept(self) -> tuple[str, ...]:
        """Columns that the backup does not know: a row that is changed keeps its values there."""
        return tuple(name for name in self.written if name not in self.columns)

    def temporary(self, what: str) -> Identifier:
        """Its temporary table of staged rows, of delta, of rows before, of incoming rows, of live keys."""
        return Identifier("pg_temp", f"dbops_{what}_{self.number}")

    @property
    def relation(self) -> Composed:
        """The live table as FROM and DELETE name it: a table's rows are not those that inherit from it."""
        if self.against is not None:
            return SQL("{}").format(Identifier("pg_temp", f"dbops_staged_{self.against}"))
        return SQL("{}{}").format(SQL("" if self.live.partitioned else "ONLY "), qualified(self.name))

    def same_key(self, left: str, right: str) -> Composed:
        return matched(left, self.key, self.equals, right, self.key)

    def in_delta(self, alias: str, whats: Iterable[str]) -> Composed:
        """True of the rows of `alias` whose key is in the delta as one of `whats`."""
        return SQL("EXISTS (SELECT FROM {} dbops_d WHERE dbops_d.dbops_what = ANY ({}) AND {})").format(
            self.temporary("delta"), sql.Literal(list(whats)), self.same_key("dbops_d", alias)
        )

    def staged(self) -> Composed:
        """The staged rows with what tells them apart."""
        return SQL("(SELECT true AS dbops_there, {}{} FROM {} t)").format(
            listed(self.columns, "t"), self._numbered("t"), self.temporary("staged")
        )

    def before(self) -> Composed:
        return SQL("(SELECT {} FROM {} t)").format(listed(self.written, "t"), self.temporary("before"))

    def selected(self, targets: Mapping[Name, Target]) -> Composed:
        """The live rows that the scope means, on either side: its own by the live values, and those that were staged."""
        chosen = SQL("(SELECT true AS dbops_there, t.tableoid AS dbops_t, t.ctid AS dbops_c, {}{} FROM ({}) t)")
        return chosen.format(listed(self.written, "t"), self._numbered("t"), self._chosen(targets))

    def _chosen(self, targets: Mapping[Name, Target]) -> Composed:
        alias = Identifier(self.name.name)
        all_rows = SQL("SELECT {a}.tableoid, {a}.ctid, {columns} FROM {relation} AS {a}").format(
            a=alias, columns=listed(self.written, self.name.name), relation=self.relation
        )
        if self.scope.kind == "whole":
            return all_rows
        of_staged = SQL("EXISTS (SELECT FROM {} dbops_s WHERE {})").format(
            self.temporary("staged"), self.same_key("dbops_s", self.name.name)
        )
        if self.scope.kind == "needed":
            return SQL("{} WHERE {}").format(all_rows, of_staged if self.keyed else SQL("false"))
        mine = self.predicate(lambda parent: parent.selected(targets), targets)
        if not self.keyed:
            return SQL("{} WHERE {}").format(all_rows, mine)
        # two arms, each with an index of its own to go by
        return SQL("{all} WHERE {mine} UNION ALL {all} WHERE ({mine}) IS NOT TRUE AND {staged}").format(
            all=all_rows, mine=mine, staged=of_staged
        )

    def predicate(self, rows_of: RowsOf, targets: Mapping[Name, Target]) -> Composed:
        """Whether a row, under the table's own bare name, is meant; `rows_of` gives a parent's rows on that side."""
        alias = self.name.name
        if self.scope.kind == "tenant":
            return SQL("{} = {}").format(Identifier(alias, self.tenancy), sql.Literal(self.user))
        if self.scope.kind == "where":
            return SQL("({})").format(trusted(self.where))
        if self.scope.kind == "part":
            return SQL("({})").format(
                OR.join(self._refers(key, alias, rows_of(targets[key.parent])) for key in self.scope.via)
            )
        return Composed([SQL("true" if self.scope.kind == "whole" else "false")])

    def _refers(self, key: ForeignKey, alias: str, parents: Composed) -> Composed:
        match = matched("dbops_p", key.parent_columns, key.equals, alias, key.child_columns)
        return SQL("EXISTS (SELECT FROM {} dbops_p WHERE {})").format(parents, match)

    def _numbered(self, alias: str) -> Composable:
        """Without a primary key: the row's text and its number among its equals."""
        if self.keyed:
            return SQL("")
        return SQL(", {0} AS dbops_row, pg_catalog.row_number() OVER (PARTITION BY {0}) AS dbops_n").format(
            row_text(self.columns, alias)
        )
