"""Definitions and a catalog make the wanted state: a pure function, which names everything that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from psycopg import sql

from dbops.errors import shown
from dbops.policy.fit import refuse_unfit
from dbops.policy.helpers import immutable, membership, membership_name, refuse_change, relation, shortened
from dbops.policy.model import HELPERS, PREFIX, Definitions, Name, TableRules
from dbops.policy.rules import Subject, needed, policies_of, privileges
from dbops.policy.state import Catalog, Grants, Helper, Proposal, Table, View, Wanted, WantedTable

WRITES = {"INSERT", "UPDATE", "DELETE", "TRUNCATE"}


def compile_definitions(definitions: Definitions, catalog: Catalog) -> Wanted:
    """What the definitions ask of this database. Changes nothing and asks nothing.

    Raises DefinitionError, with file, line, table and key, for a table, column or role that is missing or cannot serve,
    and a predicate that is not one boolean expression.
    """
    refuse_unfit(definitions, catalog)
    invokers = _invoker_views(definitions, catalog)
    tables = {rules.name: _table(rules, definitions, catalog) for rules in definitions.tables.values()}
    tables |= _partitions(definitions, catalog)
    return Wanted(
        tables={name: tables[name] for name in sorted(tables)},
        helpers=_helpers(definitions, catalog),
        invoker_views=invokers if catalog.major >= 15 else (),
        proposals=tuple(_proposals(definitions, catalog)),
        notes=tuple(_notes(definitions, catalog, invokers)),
    )


def _table(rules: TableRules, definitions: Definitions, catalog: Catalog) -> WantedTable:
    helper = sql.Identifier(HELPERS, membership_name(rules.tenant)) if rules.tenant else None
    asked = {r: held for r, held in needed(rules, definitions.auth).items() if r in catalog.roles}
    return WantedTable(
        name=rules.name,
        policies=policies_of(Subject(rules, definitions.auth, catalog), helper),
        triggers=(immutable(rules),) if rules.immutable else (),
        grants=_grants(asked, catalog.tables[rules.name]),
        revokes=_revokes(definitions, catalog, asked),
        source=f"{shown(rules.path)}:{rules.line}",
    )


def _grants(asked: Grants, table: Table) -> Grants:
    """What is asked, but for verbs that somebody has granted on chosen columns only: that choice stands."""
    found = {role: frozenset(p for p in held if not _on_columns_only(table, role, p)) for role, held in asked.items()}
    return {role: held for role, held in found.items() if held}


def _on_columns_only(table: Table, role: str, privilege: str) -> bool:
    if privilege in table.grants.get(role, ()):
        return False
    return any(privilege in grants.get(role, ()) for grants in table.column_grants.values())


def _revokes(definitions: Definitions, catalog: Catalog, kept: Grants) -> Grants:
    """All else, of the users' roles. A REVOKE on the table takes what is granted on columns too."""
    auth = definitions.auth
    every = privileges(catalog.major)
    roles = [role for role in (auth.user_role, auth.anon_role) if role in catalog.roles]
    return {role: every - kept.get(role, frozenset()) for role in (*roles, "public")}


def _partitions(definitions: Definitions, catalog: Catalog) -> dict[Name, WantedTable]:
    """Partitions of defined tables, at any depth: closed to users, who come through the parent and its policies."""
    found = {}
    for table in catalog.tables.values():
        parent = _defined_parent(table, definitions, catalog)
        if table.name not in definitions.tables and table.kind != "f" and parent:
            source = f"{shown(parent.path)}:{parent.line}"
            found[table.name] = WantedTable(table.name, (), (), {}, _revokes(definitions, catalog, {}), source)
    return found


def _defined_parent(table: Table, definitions: Definitions, catalog: Catalog) -> TableRules | None:
    above = table.partition_of
    while above is not None and above not in definitions.tables:
        above = catalog.tables[above].partition_of if above in catalog.tables else None
    return definitions.tables[above] if above else None


def _helpers(definitions: Definitions, catalog: Catalog) -> tuple[Helper, ...]:
    rules = definitions.tables.values()
    found = [membership(each.tenant, definitions.auth, catalog) for each in rules if each.tenant]
    found += [refuse_change()] if any(each.immutable for each in rules) else []
    return tuple({helper.name: helper for helper in sorted(found, key=lambda helper: helper.name)}.values())


# --- views ---------------------------------------------------------------------------------------


def _readable(view: View, definitions: Definitions) -> bool:
    """Whether users can reach a defined table through it."""
    roles = (definitions.auth.user_role, definitions.auth.anon_role, "public")
    granted = any(view.grants.get(role) for role in roles)
    return granted and any(name in definitions.tables for name in view.reads)


def _invoker_views(definitions: Definitions, catalog: Catalog) -> tuple[Name, ...]:
    readable = (view for view in catalog.views.values() if not view.materialized and _readable(view, definitions))
    return tuple(sorted(view.name for view in readable if view.name not in definitions.definer_views))


# --- proposals -----------------------------------------------------------------------------------


def _proposals(definitions: Definitions, catalog: Catalog) -> Iterator[Proposal]:
    wanted: dict[tuple[Name, str], str] = {}
    for rules in definitions.tables.values():
        if rules.owner:
            wanted.setdefault((rules.name, rules.owner), f"the policies of {rules.name} look rows up by their owner")
        if rules.tenant:
            reason = f"the policies of {rules.name} look rows up by their tenant"
            wanted.setdefault((rules.name, rules.tenant.column), reason)
            reason = f"the tenants of a user are looked up in {rules.tenant.members}"
            wanted.setdefault((rules.tenant.members, rules.tenant.user), reason)
    for (name, column), reason in sorted(wanted.items()):
        yield from _indexes(catalog.tables[name], column, reason, catalog)


def _indexes(table: Table, column: str, reason: str, catalog: Catalog) -> Iterator[Proposal]:
    """An index, unless one begins with the column; a partitioned table's is built on each partition first."""
    if any(index[:1] == (column,) for index in table.indexed):
        return
    if table.kind == "p":
        # CONCURRENTLY cannot build a parent's index; with its parts there, the parent's is made in no time
        for part in (part for part in catalog.tables.values() if part.partition_of == table.name and part.kind != "f"):
            yield from _indexes(part, column, reason, catalog)
    statement = sql.SQL("CREATE INDEX {}IF NOT EXISTS {} ON {} ({})").format(
        sql.SQL("" if table.kind == "p" else "CONCURRENTLY "),
        sql.Identifier(shortened(f"{PREFIX}{table.name.name}_{column}")),
        relation(table.name),
        sql.Identifier(column),
    )
    yield Proposal(table.name, (column,), statement.as_string(), reason)


# --- notes ---------------------------------------------------------------------------------------


def _notes(definitions: Definitions, catalog: Catalog, invokers: tuple[Name, ...]) -> Iterator[str]:
    auth = definitions.auth
    for role in filter(catalog.roles.__contains__, (auth.user_role, auth.anon_role)):
        if catalog.roles[role].superuser or catalog.roles[role].bypasses:
            yield f"role {role} passes by row level security: no policy holds it back (ALTER ROLE … NOBYPASSRLS)"
    yield from _service_notes(definitions, catalog)
    yield from _view_notes(definitions, catalog, invokers)
    for tenant in {rules.tenant for rules in definitions.tables.values() if rules.tenant}:
        rules = definitions.tables.get(tenant.members)
        grants: Mapping[str, frozenset[str]] = catalog.tables[tenant.members].grants
        if rules is None and any(
            WRITES & grants.get(role, frozenset()) for role in (auth.user_role, auth.anon_role, "public")
        ):
            yield f"{tenant.members} has no definition, and users may write it: whoever does joins any tenant"
        if rules and rules.owner == tenant.user and {"insert", "update"} & set(rules.verbs) and not rules.tenant:
            yield f'{tenant.members}: a user may write his own membership, and so join any tenant (verbs = ["select"] would not)'


def _service_notes(definitions: Definitions, catalog: Catalog) -> Iterator[str]:
    user = definitions.auth.user_role
    for role in sorted({role for rules in definitions.tables.values() for role in rules.service}):
        found = catalog.roles[role]
        if found.bypasses or found.superuser:
            yield f"role {role} passes by row level security: it needs no policy"
        elif user in found.member_of and any(role in r.service and r.tenant for r in definitions.tables.values()):
            yield f"role {role} is a member of {user}: the tenants' floor holds for it too"


def _view_notes(definitions: Definitions, catalog: Catalog, invokers: tuple[Name, ...]) -> Iterator[str]:
    for name in invokers if catalog.major < 15 else ():
        yield f"view {name} reads with its owner's rights, and users may read it: PostgreSQL 15 has security_invoker"
    for view in catalog.views.values():
        if view.materialized and _readable(view, definitions):
            yield f"materialized view {view.name} holds rows of {', '.join(map(str, view.reads))} that no policy holds back"
