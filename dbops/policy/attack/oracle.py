"""What the definitions allow, as SQL that is evaluated by a role that bypasses RLS. It reads no policy."""

from __future__ import annotations

from typing import Any, LiteralString, cast

from psycopg import sql

from dbops.policy.attack.actors import Actor
from dbops.policy.model import Auth, Name, TableRules, Tenant, Verb

NEVER = sql.SQL("false")


def fixed(text: str) -> sql.SQL:
    """A predicate of a definition or of the catalog, as it is written."""
    untyped: Any = text
    return sql.SQL(cast(LiteralString, untyped))


def relation(name: Name) -> sql.Identifier:
    return sql.Identifier(name.schema, name.name)


def snapshot(oid: int) -> sql.Identifier:
    """The temporary table with a table's rows as they are before each attempt."""
    return sql.Identifier("pg_temp", f"dbops_rows_{oid}")


def roles_for(rules: TableRules, verb: Verb) -> tuple[str, ...] | None:
    """The members' roles that may; () means all members, None no member (rows have an owner, the verb no roles)."""
    if verb in rules.roles:
        return tuple(rules.roles[verb])
    return None if rules.owner else ()


def allowed(
    rules: TableRules | None, auth: Auth, actor: Actor, verb: Verb, members: sql.Identifier | None
) -> sql.Composable:
    """Whether the actor may do `verb` with the row `r`, the table's name being its alias.

    `members` is the snapshot of the table that says who is a member: an attempt must not make itself one.
    """
    if rules is None or rules.closed:
        return NEVER
    alias = sql.Identifier(rules.name.name)
    ways: list[sql.Composable] = [
        sql.SQL("coalesce(({}), false)").format(fixed(shared.when))
        for shared in rules.shared
        if verb in shared.verbs and actor.role in shared.to
    ]
    own = _own(rules, alias, actor, verb, members) if actor.identity and actor.role == auth.user_role else None
    ways += [own] if own is not None else []
    return sql.SQL("({})").format(sql.SQL(" OR ").join(ways)) if ways else NEVER


def _own(
    rules: TableRules, alias: sql.Identifier, actor: Actor, verb: Verb, members: sql.Identifier | None
) -> sql.Composable | None:
    owned = None
    if rules.owner and verb in rules.verbs:
        column = sql.Identifier(rules.name.name, rules.owner)
        owned = sql.SQL("coalesce({}::text = {}, false)").format(column, sql.Literal(actor.identity))
    if rules.tenant is None or members is None:
        return owned
    roles = roles_for(rules, verb)
    by_role = None if roles is None else is_member(rules.tenant, alias, actor.identity, roles, members)
    ways = [way for way in (owned, by_role) if way is not None]
    if not ways:
        return None
    floor = is_member(rules.tenant, alias, actor.identity, (), members)
    return sql.SQL("({} AND ({}))").format(floor, sql.SQL(" OR ").join(ways))


def is_member(
    tenant: Tenant, alias: sql.Identifier, identity: str, roles: tuple[str, ...], members: sql.Identifier
) -> sql.Composable:
    """Whether the row's tenant has the user as a member, with one of these roles (none: any)."""
    having: sql.Composable = sql.SQL("")
    if roles:
        having = sql.SQL(" AND m.{}::text = ANY ({})").format(sql.Identifier(tenant.role), sql.Literal(list(roles)))
    return sql.SQL("EXISTS (SELECT FROM {} m WHERE m.{}::text = {} AND m.{} = {}.{}{})").format(
        members,
        sql.Identifier(tenant.user),
        sql.Literal(identity),
        sql.Identifier(tenant.tenant or tenant.column),
        alias,
        sql.Identifier(tenant.column),
        having,
    )


def may(rules: TableRules | None, verb: Verb, member_role: str | None, *, owns: bool) -> bool:
    """Whether a user may do `verb` with a row that he owns, or that is of a tenant where he has this role."""
    if rules is None or rules.closed:
        return False
    if owns and verb in rules.verbs:
        return True
    if rules.tenant is None or member_role is None:
        return False
    roles = roles_for(rules, verb)
    return roles is not None and (not roles or member_role in roles)
