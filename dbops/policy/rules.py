"""The policies that a table's rules stand for, and the privileges that they need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from psycopg import sql

from dbops.policy.identity import identity, verbatim
from dbops.policy.model import PREFIX, VERBS, Auth, Raw, Shared, TableRules, Verb
from dbops.policy.state import Catalog, Column, Policy, PolicyVerb


@dataclass(frozen=True)
class Subject:
    """A table's rules and what their compilation needs to know. `tenants` calls the membership helper."""

    rules: TableRules
    auth: Auth
    catalog: Catalog

    def column(self, name: str) -> Column:
        found = self.catalog.tables[self.rules.name].column(name)
        assert found is not None, "checked before"
        return found


def policies_of(subject: Subject, helper: sql.Identifier | None) -> tuple[Policy, ...]:
    """All policies of a table; `helper` is the function that gives a user's tenants."""
    return (
        *_owner(subject),
        *(_tenant(subject, helper) if helper else ()),
        *_shared(subject.rules),
        *_service(subject),
        *(_raw(subject.rules, raw) for raw in subject.rules.raw),
    )


def _policy(
    rules: TableRules, name: str, verb: PolicyVerb, roles: tuple[str, ...], predicate: str, *, permissive: bool = True
) -> Policy:
    """USING and WITH CHECK are both written out wherever the verb takes them."""
    using = None if verb == "insert" else predicate
    check = predicate if verb in ("all", "insert", "update") else None
    return Policy(rules.name, f"{PREFIX}{name}", permissive, verb, tuple(sorted(roles)), using, check)


def _owner(subject: Subject) -> Iterator[Policy]:
    rules, auth = subject.rules, subject.auth
    if rules.owner is None:
        return
    who = identity(auth, subject.column(rules.owner).type)
    predicate = sql.SQL("{} = {}").format(sql.Identifier(rules.owner), who).as_string()
    for verb in (verb for verb in VERBS if verb in rules.verbs):
        yield _policy(rules, f"owner_{verb}", verb, (auth.user_role,), predicate)


def _tenant(subject: Subject, helper: sql.Identifier) -> Iterator[Policy]:
    rules, user = subject.rules, (subject.auth.user_role,)
    yield from _floor(subject, helper)
    for verb in VERBS:
        roles = roles_that_may(rules, verb)
        if roles is not None:
            yield _policy(rules, f"tenant_{verb}", verb, user, in_tenants(rules, helper, roles))


def roles_that_may(rules: TableRules, verb: Verb) -> tuple[str, ...] | None:
    """The members' roles that may do it as members: () is all of them, None no member."""
    if verb in rules.roles:
        return tuple(rules.roles[verb])
    return None if rules.owner else ()


def in_tenants(rules: TableRules, helper: sql.Identifier, roles: tuple[str, ...] = ()) -> str:
    """`"tenant_id" in (select helper(array['editor']))`; the helper is called once, whatever the number of rows."""
    assert rules.tenant is not None
    wanted: sql.Composable = sql.SQL("")
    if rules.tenant.role:
        listed = sql.SQL("array[{}]").format(sql.SQL(", ").join(map(sql.Literal, roles)))
        wanted = listed if roles else sql.SQL("null")
    column = sql.Identifier(rules.tenant.column)
    return sql.SQL("{} in (select {}({}))").format(column, helper, wanted).as_string()


def _floor(subject: Subject, helper: sql.Identifier) -> Iterator[Policy]:
    """Nothing that other policies open reaches beyond a user's tenants, but for what is shared with him."""
    rules, user = subject.rules, (subject.auth.user_role,)
    inside = in_tenants(rules, helper)
    open_to_user = [shared for shared in rules.shared if _reaches(subject, shared)]
    if not open_to_user:
        yield _policy(rules, "tenant_floor", "all", user, inside, permissive=False)
        return
    for verb in VERBS:
        ways = [verbatim(inside), *(_when(shared) for shared in open_to_user if verb in shared.verbs)]
        predicate = sql.SQL(" or ").join(ways).as_string()
        yield _policy(rules, f"tenant_floor_{verb}", verb, user, predicate, permissive=False)


def _reaches(subject: Subject, shared: Shared) -> bool:
    """Whether a policy for these roles, and the floor of the user role, may hold for one session."""
    user = subject.auth.user_role
    roles = subject.catalog.roles
    return any(role == user or role in roles[user].member_of or user in roles[role].member_of for role in shared.to)


def _when(shared: Shared) -> sql.Composed:
    return sql.SQL("({})").format(verbatim(shared.when))


def _shared(rules: TableRules) -> Iterator[Policy]:
    for number, shared in enumerate(rules.shared, 1):
        for verb in (verb for verb in VERBS if verb in shared.verbs):
            yield _policy(rules, f"shared_{number}_{verb}", verb, shared.to, _when(shared).as_string())


def _service(subject: Subject) -> Iterator[Policy]:
    roles = subject.catalog.roles
    bound = tuple(role for role in subject.rules.service if not (roles[role].bypasses or roles[role].superuser))
    if bound:
        yield _policy(subject.rules, "service", "all", bound, "true")


def _raw(rules: TableRules, raw: Raw) -> Policy:
    return Policy(rules.name, raw.name, raw.permissive, raw.verb, tuple(sorted(raw.to)), raw.using, raw.check)


# --- privileges ----------------------------------------------------------------------------------

ALWAYS_TAKEN = ("TRUNCATE", "REFERENCES", "TRIGGER")  # no policy holds these back


def privileges(major: int) -> frozenset[str]:
    """All privileges on a table (https://www.postgresql.org/docs/current/ddl-priv.html)."""
    return frozenset([verb.upper() for verb in VERBS]) | set(ALWAYS_TAKEN) | ({"MAINTAIN"} if major >= 17 else set())


def needed(rules: TableRules, auth: Auth) -> Mapping[str, frozenset[str]]:
    """What each role needs for its rules to mean something; a policy for everybody is for users and visitors."""
    found: dict[str, set[str]] = defaultdict(set)
    for verb in VERBS:
        if (rules.owner and verb in rules.verbs) or (rules.tenant and roles_that_may(rules, verb) is not None):
            found[auth.user_role].add(verb.upper())
    for shared in rules.shared:
        for role in shared.to:
            found[role].update(verb.upper() for verb in shared.verbs)
    for raw in (raw for raw in rules.raw if raw.permissive):
        for role in raw.to:
            for each in (auth.user_role, auth.anon_role) if role == "public" else (role,):
                found[each].update(verb.upper() for verb in (VERBS if raw.verb == "all" else (raw.verb,)))
    for role in rules.service:
        found[role].update(verb.upper() for verb in VERBS)
    return {role: frozenset(held) for role, held in sorted(found.items())}
