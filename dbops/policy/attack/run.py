"""The attack from seeding to report, in one transaction that is rolled back."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from dbops.database import translated
from dbops.policy.attack.actors import OWNER_ROLE, marks_of
from dbops.policy.attack.assault import Attacker, Found
from dbops.policy.attack.bouts import Plan, Planner
from dbops.policy.attack.copy import copies
from dbops.policy.attack.exercise import exercised
from dbops.policy.attack.functions import functions
from dbops.policy.attack.keys import key_oracles
from dbops.policy.attack.oracle import relation
from dbops.policy.attack.privileges import privilege_leaks, role_leaks
from dbops.policy.attack.result import Cell, Report, Vacuous
from dbops.policy.attack.runner import install
from dbops.policy.attack.seed import SQL, Seeded, seed_rows
from dbops.policy.attack.views import views
from dbops.policy.model import Definitions, Name
from dbops.policy.state import Catalog, Table, View

if TYPE_CHECKING:
    from dbops.database import Connection

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
MOST_USERS = 20  # who are asked whether a view or a function shows them anything
Reach = Mapping[Name, Mapping[str, frozenset[str]]]


@dataclass(frozen=True)
class Field:
    """A seeded database, ready to be attacked."""

    attacker: Attacker
    seeded: Seeded
    plans: Mapping[Name, Plan]
    reach: Reach
    missing: tuple[Vacuous, ...]
    unproven: tuple[Vacuous, ...] = ()


def attack(
    conn: Connection,
    definitions: Definitions,
    catalog: Catalog,
    *,
    server_version: str,
    server_kind: str,
    seed: int = 0,
    verbs: Collection[str] | None = None,
    tables: Collection[Name] | None = None,
) -> Report:
    """See `dbops.policy.attack.attack`."""
    start = time.monotonic()
    with field_of(conn, definitions, catalog, seed, verbs, tables) as field:
        found = Found(vacuous=field.missing)
        field.attacker.find_working(field.plans.values())
        for plan in field.plans.values():
            found += field.attacker.assault(plan)
        found += copies(field.attacker, field.plans.values())
        found += privilege_leaks(field.plans.values(), field.reach, definitions, verbs)
        found += role_leaks(definitions, catalog, field.plans.values())
        through, notes = _through(field)
        found += through
    return Report(
        tables=tuple(str(name) for name in field.plans),
        attacks=found.attacks,
        leaks=tuple(sorted(found.leaks)),
        vacuous=tuple(sorted(set(found.vacuous))),
        cells=cells(found),
        server_version=server_version,
        server_kind=server_kind,
        duration_ms=(time.monotonic() - start) * 1000,
        not_proven=tuple(sorted({*field.unproven, *found.unproven})),
        notes=tuple(notes),
    )


def _through(field: Field) -> tuple[Found, list[str]]:
    """What gets through keys, views and functions."""
    attacker, plans = field.attacker, field.plans
    parts = [key_oracles(attacker, plans)]
    places, through, users = field.seeded.places, field.seeded.through, field.seeded.users[:MOST_USERS]
    parts.append(views(attacker, plans, places, None, through, users))
    parts.append(functions(attacker, plans, places, through, users))
    return sum((found for found, _ in parts), Found()), [note for _, notes in parts for note in notes]


def cells(found: Found) -> tuple[Cell, ...]:
    """The matrix: a leak goes before all else, then what proves nothing."""
    leaks = {(leak.table, leak.verb, leak.actor) for leak in found.leaks}
    empty = {(one.table, one.actor) for one in found.vacuous}
    made = []
    for table, verb, actor in sorted(found.tried | leaks):
        if (table, verb, actor) in leaks:
            made.append(Cell(table, verb, actor, "leak"))
        elif (table, "") in empty or (table, actor) in empty:
            made.append(Cell(table, verb, actor, "vacuous"))
        else:
            made.append(Cell(table, verb, actor, "allowed" if (table, verb, actor) in found.can else "held"))
    return tuple(made)


@contextmanager
def field_of(
    conn: Connection,
    definitions: Definitions,
    catalog: Catalog,
    seed: int,
    verbs: Collection[str] | None,
    tables: Collection[Name] | None,
) -> Iterator[Field]:
    """Seed the database and plan the attacks; all is rolled back at the end."""
    with translated(), conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL row_security = on; SET LOCAL jit = off; SET CONSTRAINTS ALL IMMEDIATE")
        reach = reach_of(conn, definitions, catalog)
        chosen = _chosen(definitions, catalog, reach, tables)
        read = {table for name, view in catalog.views.items() if reach.get(name) for table in view.reads}
        seeded = seed_rows(conn, definitions, catalog, {*chosen, *read}, seed)
        conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
        install(conn)
        texts = [text for policy in catalog.policies for text in (policy.using, policy.check)]
        texts += [row[0] for row in conn.execute(SQL["bodies"])]
        owners = _owners(conn, definitions, catalog, chosen)
        reached = {name: frozenset(roles) for name, roles in reach.items() if any(roles.values())}
        planner = Planner(definitions, catalog, seeded, marks_of(texts), owners, reached)
        _materialize(conn, catalog)
        attacker = Attacker(conn, definitions, catalog, reach, verbs)
        planned = {name: planner.plan(seeded.places[name]) for name in chosen}
        plans, unproven = exercised(attacker, seeded, planned)
        missing = _missing(definitions, catalog, tables)
        yield Field(attacker, seeded, plans, reach, missing, tuple(unproven))


def _missing(definitions: Definitions, catalog: Catalog, tables: Collection[Name] | None) -> tuple[Vacuous, ...]:
    lost = [name for name in definitions.tables if name not in catalog.tables and (tables is None or name in tables)]
    return tuple(Vacuous(str(name), "", "there is no such table in the database") for name in lost)


def reach_of(
    conn: Connection, definitions: Definitions, catalog: Catalog, only: Collection[Name] | None = None
) -> dict[Name, dict[str, frozenset[str]]]:
    """What the user role and the visitors' may do with each table and view, by membership and PUBLIC too."""
    relations: list[Table | View] = [*catalog.tables.values(), *catalog.views.values()]
    oids = {each.oid: each.name for each in relations if only is None or each.name in only}
    privileges = [*PRIVILEGES, *(["MAINTAIN"] if catalog.major >= 17 else [])]
    roles = [definitions.auth.user_role, definitions.auth.anon_role]
    asked = {"relations": list(oids), "roles": roles, "privileges": privileges}
    held: dict[Name, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for role, oid, privilege in conn.execute(SQL["privileges"], asked):
        held[oids[oid]][role].add(privilege)
    return {name: {role: frozenset(may) for role, may in each.items()} for name, each in held.items()}


def _chosen(definitions: Definitions, catalog: Catalog, reach: Reach, tables: Collection[Name] | None) -> list[Name]:
    """The defined tables, and those that users reach without a definition. A partition goes with its parent."""
    chosen = []
    for name, table in sorted(catalog.tables.items()):
        declared = name in definitions.tables
        if (
            (declared or (reach.get(name) and table.partition_of is None))
            and table.kind != "f"
            and (tables is None or name in tables)
        ):
            chosen.append(name)
    return chosen


def _owners(
    conn: Connection, definitions: Definitions, catalog: Catalog, tables: Sequence[Name]
) -> dict[Name, tuple[str, tuple[str, ...]]]:
    """Who attacks as a table's owner. One who bypasses RLS is replaced by a role of this transaction."""
    stand_in = f"{OWNER_ROLE}_{conn.info.backend_pid}"
    role = sql.Identifier(stand_in)
    conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN NOSUPERUSER NOBYPASSRLS").format(role))
    for schema in sorted({name.schema for name in tables}):
        conn.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), role))
    owners: dict[Name, tuple[str, tuple[str, ...]]] = {}
    for name in tables:
        owner = catalog.roles.get(catalog.tables[name].owner)
        if owner is None or owner.superuser or owner.bypasses:
            change = sql.SQL("ALTER TABLE {} OWNER TO {}").format(relation(name), role).as_string(None)
            owners[name] = (stand_in, (change,))
        elif owner.name not in (definitions.auth.user_role, definitions.auth.anon_role):
            owners[name] = (owner.name, ())
    return owners


def _materialize(conn: Connection, catalog: Catalog) -> None:
    """Fill the materialized views with the rows that were made."""
    for name, view in catalog.views.items():
        if view.materialized:
            try:
                with conn.transaction():
                    conn.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(relation(name)))
            except psycopg.Error:
                continue  # what it cannot compute of made rows it cannot show either: its attack says so
