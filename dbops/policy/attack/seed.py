"""Rows to attack: two owners in each table, two tenants with a member for each role, shared rows of both kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dbops.policy.attack.made import Workshop, make_true
from dbops.policy.attack.openings import Openings, openings_of
from dbops.policy.attack.oracle import fixed, relation, snapshot
from dbops.policy.attack.shown import make_shown
from dbops.policy.attack.subjects import Subject
from dbops.policy.attack.target import Place, Row
from dbops.policy.model import Definitions, Name, TableRules, Tenant
from dbops.policy.state import Catalog, Table
from dbops.rows import make_rows
from dbops.sql import queries

if TYPE_CHECKING:
    from dbops.database import Connection

SQL = queries("policy/attack")
PER_TABLE = 8


@dataclass(frozen=True)
class Membership:
    """A user who is a member of a tenant, with a role ("" where members have none)."""

    user: str
    tenant: str
    role: str


@dataclass(frozen=True)
class Seeded:
    """The places with their rows; per members' table its members, the last one of the other tenant; all known users.

    `attacker` is the user who owns rows in the most tables, "" where nobody owns any.
    """

    places: Mapping[Name, Place]
    members: Mapping[Name, tuple[Membership, ...]]
    users: tuple[str, ...]
    reasons: Mapping[str, str]  # table -> why it has no row
    attacker: str
    openings: Mapping[Name, Openings]
    through: tuple[Subject, ...] = ()


def seed_rows(
    conn: Connection, definitions: Definitions, catalog: Catalog, tables: Collection[Name], seed: int
) -> Seeded:
    """Fill the tables and arrange who owns what. Run in the attack's transaction: all of it is rolled back."""
    used = [definitions.tables[name] for name in sorted(tables) if name in definitions.tables]
    roles = max((len(_roles(definitions, rules.tenant)) for rules in used if rules.tenant), default=0)
    schemas = sorted({name.schema for name in catalog.tables})
    foreign = [str(name) for name, table in catalog.tables.items() if table.kind == "f"]
    many = max(PER_TABLE, roles + 4)
    made = make_rows(conn, schemas, per_table=many, seed=seed, exclude=foreign, extremes=False)
    arranger = _Arranger(conn, definitions, catalog)
    for rules in used:
        if rules.tenant and rules.tenant.members not in arranger.members:
            arranger.arrange_members(rules.tenant)
    for rules in used:
        arranger.arrange(rules)
    attacker = arranger.attacker(used)
    openings = openings_of(definitions, catalog, tables)
    readers = {name: arranger.reader(name, attacker) for name in tables}
    shop = Workshop(conn, definitions, readers, schemas, foreign)
    make_true(shop, openings)
    through = make_shown(shop, sorted(openings))
    needed = {*tables, *arranger.members}
    places = _places(conn, definitions, catalog, needed)
    reasons = {unfilled.table: unfilled.reason for unfilled in made.unfilled}
    return Seeded(places, arranger.members, tuple(arranger.users), reasons, attacker, openings, through)


def _roles(definitions: Definitions, tenant: Tenant) -> tuple[str, ...]:
    """All roles that rules name for members of this table, the one that may most first."""
    named = [
        role
        for rules in definitions.tables.values()
        if rules.tenant and rules.tenant.members == tenant.members
        for roles in rules.roles.values()
        for role in roles
    ]
    return tuple(sorted(set(named), key=lambda role: (-named.count(role), role)))


class _Arranger:
    """Changes made rows so that each has the owner or tenant that an attack wants."""

    def __init__(self, conn: Connection, definitions: Definitions, catalog: Catalog) -> None:
        self.conn, self.definitions, self.catalog = conn, definitions, catalog
        self.members: dict[Name, tuple[Membership, ...]] = {}
        self.users: dict[str, None] = {}
        for rules in definitions.tables.values():
            if rules.owner and rules.name in catalog.tables:
                self.users |= dict.fromkeys(self._referable(catalog.tables[rules.name], rules.owner))

    # --- reading and changing ---

    def _values(self, table: Name, column: str) -> list[str]:
        statement = sql.SQL("SELECT DISTINCT {0}::text FROM {1} WHERE {0} IS NOT NULL ORDER BY 1 LIMIT 200")
        return [row[0] for row in self.conn.execute(statement.format(sql.Identifier(column), relation(table)))]

    def _referable(self, table: Table, column: str) -> list[str]:
        """Values that the column may have: those it refers to, else those that it has."""
        key = next((key for key in table.foreign if key.columns == (column,) and key.refers_to), None)
        if key is None or key.refers_to is None:
            return self._values(table.name, column)
        return self._values(key.refers_to, key.foreign_columns[0])

    def _change(self, table: Name, mark: str, values: Mapping[str, str]) -> bool:
        """Whether the row took the values: a key or a check may be in the way."""
        assign = [sql.SQL("{} = {}").format(sql.Identifier(c), sql.Literal(v)) for c, v in values.items()]
        statement = sql.SQL("UPDATE {} SET {} WHERE tableoid::text || ctid::text = {}").format(
            relation(table), sql.SQL(", ").join(assign), sql.Literal(mark)
        )
        try:
            with self.conn.transaction():
                return self.conn.execute(statement).rowcount == 1
        except psycopg.Error:
            return False

    def _rows(self, table: Name, columns: Sequence[str]) -> list[Row]:
        statement = sql.SQL("SELECT tableoid::text || ctid::text, {} FROM {} ORDER BY tableoid, ctid LIMIT 200").format(
            sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns),
            relation(table),
        )
        return [Row(row[0], dict(zip(columns, row[1:], strict=True))) for row in self.conn.execute(statement)]

    def attacker(self, used: Iterable[TableRules]) -> str:
        """The user who owns rows in the most tables: the same one in every run."""
        owned: Counter[str] = Counter()
        for rules in used:
            if rules.owner and rules.name in self.catalog.tables:
                owned.update(self._values(rules.name, rules.owner))
        return min(owned, key=lambda user: (-owned[user], user), default=next(iter(self.users), ""))

    def reader(self, table: Name, attacker: str) -> str:
        """The user who attacks the table: a member, where its rows are tenants'."""
        rules = self.definitions.tables.get(table)
        members = self.members.get(rules.tenant.members, ()) if rules and rules.tenant else ()
        return members[0].user if members else attacker

    # --- members ---

    def arrange_members(self, tenant: Tenant) -> None:
        """One member for each role in one tenant, and one of another tenant; nobody else is a member."""
        table = self.catalog.tables.get(tenant.members)
        if table is None:
            return
        column = tenant.tenant or tenant.column
        roles = _roles(self.definitions, tenant) or ("",)
        tenants = self._referable(table, column)[:2]
        places = [tenants[0]] * len(roles) + tenants[1:] if tenants else []
        rows = self._rows(tenant.members, [tenant.user, column])
        rows = list(
            {row.values[tenant.user]: row for row in reversed(rows)}.values()
        )  # one a user: no key is in the way
        for row in self._rows(tenant.members, [tenant.user, column]):
            if row.mark not in {kept.mark for kept in rows[: len(places)]}:
                self._remove(tenant.members, row)
        self.members[tenant.members] = tuple(
            Membership(str(row.values[tenant.user]), place, role)
            for row, place, role in zip(rows, places, (*roles, roles[0]), strict=False)
            if self._change(tenant.members, row.mark, {column: place} | ({tenant.role: role} if role else {}))
        )
        self.users |= dict.fromkeys(self._referable(table, tenant.user))

    def _remove(self, table: Name, row: Row) -> None:
        statement = sql.SQL("DELETE FROM {} WHERE tableoid::text || ctid::text = {}").format(
            relation(table), sql.Literal(row.mark)
        )
        try:
            with self.conn.transaction():
                self.conn.execute(statement)
        except psycopg.Error:
            return

    # --- owners, tenants, shared rows ---

    def arrange(self, rules: TableRules) -> None:
        table = self.catalog.tables.get(rules.name)
        if table is None:
            return
        if rules.tenant and self.members.get(rules.tenant.members):
            self._arrange_tenants(rules, rules.tenant, self.members[rules.tenant.members])
        elif rules.owner:
            self._arrange_owners(rules.name, rules.owner)

    def _arrange_owners(self, table: Name, owner: str) -> None:
        rows = self._rows(table, [owner])
        if len(rows) < 2 or len({row.values[owner] for row in rows}) > 1:
            return
        for user in self.users:
            if user != rows[0].values[owner] and self._change(table, rows[0].mark, {owner: user}):
                return

    def _arrange_tenants(self, rules: TableRules, tenant: Tenant, members: Sequence[Membership]) -> None:
        """A row for each of the tenants, and where rows have owners too for each of the members."""
        wishes = [{tenant.column: one.tenant} | ({rules.owner: one.user} if rules.owner else {}) for one in members]
        rows = self._rows(rules.name, [tenant.column, *([rules.owner] if rules.owner else [])])
        for wish in {tuple(wish.items()): wish for wish in wishes}.values():
            for row in sorted(rows, key=lambda row: row.values != wish):
                if row.values == wish or self._change(rules.name, row.mark, wish):
                    rows.remove(row)
                    break


# --- the places as they are attacked ---


def _places(conn: Connection, definitions: Definitions, catalog: Catalog, names: Iterable[Name]) -> dict[Name, Place]:
    tables = [catalog.tables[name] for name in sorted(set(names)) if name in catalog.tables]
    columns: dict[int, list[Any]] = {table.oid: [] for table in tables}
    for oid, *column in conn.execute(SQL["columns"], {"relations": list(columns)}):
        columns[oid].append(column)
    guarded = {row[0] for row in conn.execute(SQL["delete_guards"], {"relations": list(columns)})}
    granted: dict[int, dict[str, list[str]]] = {table.oid: {} for table in tables}
    asked = {"relations": list(columns), "role": definitions.auth.user_role}
    for oid, privilege, column in conn.execute(SQL["writable_columns"], asked):
        granted[oid].setdefault(privilege, []).append(column)
    places = [_place(conn, definitions, catalog, table, columns[table.oid]) for table in tables]
    return {
        place.name: replace(
            place,
            guarded=place.table.oid in guarded,
            granted={privilege: tuple(found) for privilege, found in granted[place.table.oid].items()},
        )
        for place in places
    }


def _place(conn: Connection, definitions: Definitions, catalog: Catalog, table: Table, columns: Sequence[Any]) -> Place:
    children = [
        (child.name, key.columns, key.foreign_columns)
        for child in catalog.tables.values()
        for key in child.foreign
        if key.refers_to == table.name
    ]
    rows = _snapshot(conn, table)
    place = Place(
        table,
        definitions.tables.get(table.name),
        writable=tuple(name for name, _, generated, _, _ in columns if not generated),
        identity_always=any(identity == "a" for _, _, _, identity, _ in columns),
        numbered=frozenset(name for name, _, _, _, numbered in columns if numbered),
        children=tuple(children),
        rows=rows,
    )
    shared = place.rules.shared if place.rules else ()
    return replace(place, key=_key(table, rows), open=tuple(_open(conn, table, one.when) for one in shared))


def _open(conn: Connection, table: Table, when: str) -> frozenset[str]:
    statement = sql.SQL("SELECT dbops_mark FROM {} AS {} WHERE {}")
    made = statement.format(snapshot(table.oid), sql.Identifier(table.name.name), fixed(when))
    return frozenset(row[0] for row in conn.execute(made))


def _snapshot(conn: Connection, table: Table) -> tuple[Row, ...]:
    made = sql.SQL(
        "CREATE TEMP TABLE {} AS SELECT t.tableoid::text || t.ctid::text AS dbops_mark, t.tableoid AS dbops_oid,"
        " t.ctid AS dbops_ctid, t.* FROM {} t"
    )
    conn.execute(made.format(snapshot(table.oid), relation(table.name)))
    names = [column.name for column in table.columns]
    shown = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)
    read = sql.SQL("SELECT dbops_mark, {} FROM {} ORDER BY dbops_oid, dbops_ctid LIMIT 1000").format(
        shown, snapshot(table.oid)
    )
    return tuple(Row(row[0], dict(zip(names, row[1:], strict=True))) for row in conn.execute(read))


def _key(table: Table, rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns of a unique index that tell all rows apart: an expression or a condition may be part of it."""
    for key in sorted(table.unique, key=lambda key: (not key.name.endswith("_pkey"), len(key.columns))):
        values = [tuple(row.values[column] for column in key.columns) for row in rows]
        if key.columns and len(set(values)) == len(values) and all(None not in value for value in values):
            return key.columns
    return ()
