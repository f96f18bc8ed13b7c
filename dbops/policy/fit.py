"""Whether definitions fit a database: every table, column, role and type that they name is there and can serve."""

from __future__ import annotations

from collections.abc import Iterator

from dbops.errors import DefinitionError, shown
from dbops.policy.identity import base_type, identity
from dbops.policy.model import Auth, Definitions, Name, TableRules
from dbops.policy.place import nearest, problem, unfit
from dbops.policy.predicate import check_predicate
from dbops.policy.state import Catalog, Column, Table

# types without the operator that IS DISTINCT FROM needs
_NOT_COMPARABLE = {"json", "xml", "point", "polygon", "path", "line"}
# every table has these (https://www.postgresql.org/docs/current/ddl-system-columns.html)
_SYSTEM = {"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"}


def refuse_unfit(definitions: Definitions, catalog: Catalog) -> None:
    """Raise DefinitionError, with file, line, table and key, for the first definition that does not fit."""
    _users(definitions, catalog)
    for rules in definitions.tables.values():
        table = _table(rules, rules.name, catalog, "")
        _owner(rules, table, definitions.auth)
        _tenant(rules, table, definitions.auth, catalog)
        _immutable(rules, table)
        _roles(rules, definitions.auth, catalog)
        _predicates(rules, table)
    for name in definitions.definer_views:
        if name not in catalog.views or catalog.views[name].materialized:
            # the model keeps no place of a view: all files that may hold it are named
            files = ", ".join(shown(path) for path in definitions.files if path.suffix == ".toml")
            hint = nearest(str(name), map(str, catalog.views), "take it out")
            message = f"{files}: view {name}, definer: there is no such view in {catalog.database}"
            raise DefinitionError(message, hint=f"{hint}; nothing was done")


def _users(definitions: Definitions, catalog: Catalog) -> None:
    auth = definitions.auth
    for key, role in (("user_role", auth.user_role), ("anon_role", auth.anon_role)):
        # nobody need have visitors
        if role in catalog.roles or not definitions.tables or (key == "anon_role" and role == Auth.anon_role):
            continue
        first = next(iter(definitions.tables.values()))
        hint = nearest(role, catalog.roles, f"create it, or name the role that they act as: {key}")
        raise problem(first.path, 0, key, f"there is no role {role} in the cluster", hint)


def _table(rules: TableRules, name: Name, catalog: Catalog, key: str) -> Table:
    table = catalog.tables.get(name)
    if table is None and name in catalog.views:
        kind = "materialized view" if catalog.views[name].materialized else "view"
        raise unfit(
            rules, key, f"{name} is a {kind}: row level security is a table's", "define the tables that it reads"
        )
    if table is None:
        hint = nearest(
            str(name), map(str, catalog.tables), "migrate first, or take it out; a name is written in its own case"
        )
        raise unfit(rules, key, f"there is no table {name} in {catalog.database}", hint)
    if table.kind == "f":
        hint = "protect it on its own server"
        raise unfit(rules, key, f"{name} is a foreign table: it has no row level security", hint)
    return table


def _column(rules: TableRules, table: Table, name: str, key: str) -> Column:
    column = table.column(name)
    if column is None:
        hint = nearest(name, (each.name for each in table.columns), "a column is written in its own case")
        raise unfit(rules, key, f"{table.name} has no column {name}", hint)
    return column


def _is_identity(rules: TableRules, column: Column, auth: Auth, key: str) -> None:
    try:
        identity(auth, column.type)
    except ValueError as error:
        hint = "name the column that holds the user's id"
        raise unfit(rules, key, f"column {column.name} can hold no user's id: {error}", hint) from None


def _owner(rules: TableRules, table: Table, auth: Auth) -> None:
    if rules.owner is not None:
        _is_identity(rules, _column(rules, table, rules.owner, "owner"), auth, "owner")


def _tenant(rules: TableRules, table: Table, auth: Auth, catalog: Catalog) -> None:
    tenant = rules.tenant
    if tenant is None:
        return
    own = _column(rules, table, tenant.column, "tenant.column")
    members = _table(rules, tenant.members, catalog, "tenant.members")
    theirs = _column(rules, members, tenant.tenant or tenant.column, "tenant.tenant")
    _is_identity(rules, _column(rules, members, tenant.user, "tenant.user"), auth, "tenant.user")
    if tenant.role:
        _column(rules, members, tenant.role, "tenant.role")
    elif any(rules.roles.values()):
        raise unfit(rules, "roles", f"the members in {members.name} have no roles (tenant.role is empty)")
    if base_type(own.type) != base_type(theirs.type):
        message = f"column {own.name} is {own.type}, and {members.name}.{theirs.name} is {theirs.type}"
        raise unfit(rules, "tenant.column", message, "a migration must make them one type")


def _immutable(rules: TableRules, table: Table) -> None:
    for name in rules.immutable:
        column = _column(rules, table, name, "immutable")
        if column.type in _NOT_COMPARABLE:
            raise unfit(rules, "immutable", f"column {name} is {column.type}: two values of it cannot be compared")


def _named_roles(rules: TableRules) -> Iterator[tuple[str, str]]:
    yield from ((f"shared {number}, to", role) for number, shared in enumerate(rules.shared, 1) for role in shared.to)
    yield from ((f'raw "{raw.name}", to', role) for raw in rules.raw for role in raw.to if role != "public")
    yield from (("service", role) for role in rules.service)


def _roles(rules: TableRules, auth: Auth, catalog: Catalog) -> None:
    for key, role in _named_roles(rules):
        if role not in catalog.roles:
            hint = nearest(role, catalog.roles, "create it first, or take it out")
            raise unfit(rules, key, f"there is no role {role} in the cluster", hint)
    for role in rules.service:
        for user in (auth.user_role, auth.anon_role):
            if role == user or (user in catalog.roles and role in catalog.roles[user].member_of):
                how = "it is one" if role == user else f"{user} is a member of it"
                raise unfit(rules, "service", f"{role} is no service's role alone, users act as it: {how}")


def _predicates(rules: TableRules, table: Table) -> None:
    known = {column.name for column in table.columns}
    for key, text in _written(rules):
        try:
            columns = check_predicate(text).columns or frozenset()
        except ValueError as error:
            raise unfit(rules, key, str(error)) from None
        # the table's own name is a whole row
        for column in sorted(columns - known - _SYSTEM - {table.name.name}):
            _column(rules, table, column, key)


def _written(rules: TableRules) -> Iterator[tuple[str, str]]:
    """All predicates of a table's rules, each with its key."""
    yield from ((f"shared {number}, when", shared.when) for number, shared in enumerate(rules.shared, 1))
    for raw in rules.raw:
        yield from (
            (f'raw "{raw.name}", {key}', text)
            for key, text in (("using", raw.using), ("check", raw.check))
            if text is not None
        )
