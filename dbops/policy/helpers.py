"""The functions in the schema `HELPERS`: who is a member of which tenants, and the trigger that refuses a change."""

from __future__ import annotations

import hashlib
import re

from psycopg import sql

from dbops.policy.identity import identity, verbatim
from dbops.policy.model import HELPERS, PREFIX, Auth, Name, TableRules, Tenant
from dbops.policy.state import Catalog, Helper, Trigger

REFUSE_CHANGE = "refuse_change"
NAME_BYTES = 63

# its owner's rights pass by the row level security of the members' table: a policy there can't lead back here
_MEMBERSHIP = sql.SQL("""\
create or replace function {function}({arguments}) returns setof {type}
  language sql stable security definer parallel safe set search_path = ''
as $dbops$select m.{tenant} from {members} as m where m.{user} = {identity}{having}$dbops$""")
_HAVING = sql.SQL(" and ($1 is null or m.{role}::text = any ($1))")

# whoever passes by row level security (a restore, an operator) may change everything; a partition that was attached
# after the last apply has no row level security of its own, its parent has
_REFUSE_CHANGE = sql.SQL("""\
create or replace function {function}() returns trigger
  language plpgsql set search_path = ''
as $dbops$begin
  if pg_catalog.row_security_active(tg_relid) or exists (
      select from pg_catalog.pg_partition_ancestors(tg_relid) as a(relation)
      where pg_catalog.row_security_active(a.relation)) then
    raise insufficient_privilege using
      message = pg_catalog.format('%I.%I: %s cannot be changed', tg_table_schema, tg_table_name,
        pg_catalog.array_to_string(tg_argv, ', ')),
      hint = 'the policy definitions say: immutable';
  end if;
  return new;
end$dbops$""")


def shortened(name: str) -> str:
    """The name where it fits PostgreSQL's 63 bytes, else its beginning and a hash of all of it."""
    if len(name.encode()) <= NAME_BYTES:
        return name
    end = f"~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name.encode()[: NAME_BYTES - len(end)].decode(errors="ignore") + end


def membership_name(tenant: Tenant) -> str:
    """`tenants of public.members: team_id by user_id, role`: one function for all tables that ask for the same."""
    members, column = tenant.members, tenant.tenant or tenant.column
    name = f"tenants of {members}: {column} by {tenant.user}{', ' if tenant.role else ''}{tenant.role}"
    if all(
        re.fullmatch(r"\w+", part) for part in (members.schema, members.name, column, tenant.user, tenant.role or "_")
    ):
        return shortened(name)
    # unusual names could be put together to the same text
    parts = "\0".join((members.schema, members.name, column, tenant.user, tenant.role))
    return shortened(f"{name}~{hashlib.sha256(parts.encode()).hexdigest()[:8]}")


def membership(tenant: Tenant, auth: Auth, catalog: Catalog) -> Helper:
    """The function that gives the user's tenants; `roles` narrows it to memberships with one of them, null does not.

    Its columns are in the catalog: they are checked before.
    """
    members = catalog.tables[tenant.members]
    user, column = members.column(tenant.user), members.column(tenant.tenant or tenant.column)
    assert user is not None
    assert column is not None
    name = membership_name(tenant)
    arguments = "roles text[]" if tenant.role else ""
    statement = _MEMBERSHIP.format(
        function=sql.Identifier(HELPERS, name),
        arguments=verbatim(arguments),
        type=verbatim(column.type),
        tenant=sql.Identifier(column.name),
        members=relation(tenant.members),
        user=sql.Identifier(user.name),
        identity=identity(auth, user.type),
        having=_HAVING.format(role=sql.Identifier(tenant.role)) if tenant.role else sql.SQL(""),
    )
    return Helper(name, arguments, statement.as_string(), (auth.user_role,))


def refuse_change() -> Helper:
    """The trigger function of `immutable`: 42501, naming table and columns. Nobody calls it but the triggers."""
    statement = _REFUSE_CHANGE.format(function=sql.Identifier(HELPERS, REFUSE_CHANGE))
    return Helper(REFUSE_CHANGE, "", statement.as_string(), ())


def immutable(rules: TableRules) -> Trigger:
    """A trigger and no column privileges: an upsert that sets a column to its own value must pass.

    Written as pg_get_triggerdef prints it, but for the quotes: a comparison may take them off on both sides.
    """
    one = sql.SQL("(old.{0} IS DISTINCT FROM new.{0})")
    changed = sql.SQL(" OR ").join(one.format(sql.Identifier(column)) for column in rules.immutable)
    statement = sql.SQL(
        "CREATE TRIGGER {name} BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {function}({columns})"
    ).format(
        name=sql.Identifier(f"{PREFIX}immutable"),
        table=relation(rules.name),
        when=sql.SQL("({})").format(changed) if len(rules.immutable) > 1 else changed,
        function=sql.Identifier(HELPERS, REFUSE_CHANGE),
        columns=sql.SQL(", ").join(map(sql.Literal, rules.immutable)),
    )
    return Trigger(rules.name, f"{PREFIX}immutable", statement.as_string())


def relation(name: Name) -> sql.Identifier:
    return sql.Identifier(name.schema, name.name)
