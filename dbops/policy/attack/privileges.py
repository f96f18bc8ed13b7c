"""What no policy holds back: TRUNCATE and the like, roles that bypass RLS, tables that the API's role owns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from psycopg import sql

from dbops.policy.attack.assault import HINT, Found
from dbops.policy.attack.bouts import Plan
from dbops.policy.attack.oracle import relation
from dbops.policy.attack.result import Leak
from dbops.policy.model import Definitions, Name
from dbops.policy.state import Catalog

BEYOND = ("TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
_WHAT = {
    "TRUNCATE": "may empty the table: no policy is asked",
    "REFERENCES": "may make a foreign key to the table, which tells what rows exist: no policy is asked",
    "TRIGGER": "may put a trigger on the table, which runs with the rights of all who write it",
    "MAINTAIN": "may lock the table (VACUUM, CLUSTER, REINDEX, LOCK): no policy is asked",
}
_SHOWS = {
    "TRUNCATE": "TRUNCATE {table} CASCADE",
    "REFERENCES": "SELECT pg_catalog.has_table_privilege({name}, 'REFERENCES')",
    "TRIGGER": "SELECT pg_catalog.has_table_privilege({name}, 'TRIGGER')",
    "MAINTAIN": "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
}
EVERYTHING = "(every table)"


def privilege_leaks(
    plans: Iterable[Plan],
    reach: Mapping[Name, Mapping[str, frozenset[str]]],
    definitions: Definitions,
    verbs: Collection[str] | None,
) -> Found:
    """TRUNCATE, REFERENCES, TRIGGER and MAINTAIN held by the roles that users and visitors act as."""
    auth = definitions.auth
    actors = {auth.user_role: "another user", auth.anon_role: "anon"}
    leaks, tried = [], set()
    for plan in plans:
        partitions = {bout.pair.relation for bout in plan.bouts}
        for name in sorted({plan.place.name, *partitions}):
            for role, actor in actors.items():
                for privilege in BEYOND:
                    if verbs is not None and privilege.lower() not in verbs:
                        continue
                    tried.add((str(plan.place.name), privilege.lower(), actor))
                    if privilege in reach.get(name, {}).get(role, ()):
                        leaks.append(_leak(plan, name, role, actor, privilege))
    return Found(len(tried), tuple(leaks), tried=frozenset(tried))


def _leak(plan: Plan, name: Name, role: str, actor: str, privilege: str) -> Leak:
    table = relation(name)
    shows = sql.SQL(_SHOWS[privilege]).format(table=table, name=sql.Literal(table.as_string(None)))
    what = f"{role} {_WHAT[privilege]}" + (f"; {HINT}" if plan.place.rules is None else "")
    via = "privilege" if name == plan.place.name else f"privilege on partition {name}"
    return Leak(str(plan.place.name), actor, privilege.lower(), via, what, as_role(role, shows))


def as_role(role: str, statement: sql.Composable) -> str:
    """The statement as the role, from BEGIN to ROLLBACK."""
    text = sql.SQL("BEGIN;\nSET LOCAL ROLE {};\n{};\nROLLBACK;\n")
    return text.format(sql.Identifier(role), statement).as_string(None)


def role_leaks(definitions: Definitions, catalog: Catalog, plans: Iterable[Plan]) -> Found:
    """Roles beyond RLS that users and visitors can become, and tables that they own themselves."""
    auth = definitions.auth
    leaks = []
    for role, actor in {auth.user_role: "another user", auth.anon_role: "anon"}.items():
        leaks += list(_bypasses(catalog, role, actor))
        reachable = {role, *(catalog.roles[role].member_of if role in catalog.roles else ())}
        for plan in plans:
            leaks += list(_owned(catalog, plan, role, actor, reachable))
    return Found(leaks=tuple(leaks), tried=frozenset((leak.table, leak.verb, leak.actor) for leak in leaks))


def _bypasses(catalog: Catalog, role: str, actor: str) -> Iterator[Leak]:
    found = catalog.roles.get(role)
    for name in sorted({role, *found.member_of}) if found else ():
        other = catalog.roles.get(name)
        if other is not None and (other.superuser or other.bypasses):
            right = "SUPERUSER" if other.superuser else "BYPASSRLS"
            what = f"{role} has {right}" if name == role else f"{role} is a member of {name}, which has {right}"
            yield Leak(EVERYTHING, actor, "bypass", "privilege", what, _becomes(role, name))


def _becomes(role: str, other: str) -> str:
    # SET ROLE asks what the session's user may, so it is the session's user that changes
    text = sql.SQL("BEGIN;\nSET LOCAL SESSION AUTHORIZATION {};\nSET LOCAL ROLE {};\nSELECT current_user;\nROLLBACK;\n")
    return text.format(sql.Identifier(role), sql.Identifier(other)).as_string(None)


def _owned(catalog: Catalog, plan: Plan, role: str, actor: str, reachable: Collection[str]) -> Iterator[Leak]:
    owner = plan.place.table.owner
    rules = plan.place.rules
    other = catalog.roles.get(owner)
    if owner in reachable and not (other and (other.superuser or other.bypasses)):
        what = f"{role} owns the table" if owner == role else f"{role} is a member of {owner}, which owns the table"
        statement = sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(relation(plan.place.name))
        yield Leak(
            str(plan.place.name),
            actor,
            "alter",
            "privilege",
            f"{what}: it can switch RLS off",
            as_role(owner, statement),
        )
    for service in rules.service if rules else ():
        if service in reachable:
            what = f"{role} is a member of {service}, which may do everything here"
            yield Leak(str(plan.place.name), actor, "bypass", "privilege", what, _becomes(role, service))
