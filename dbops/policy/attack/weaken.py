"""Policies made weaker, one step each: what an attack must notice. Pure: from the catalog to statements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from dbops.policy.attack.oracle import fixed, relation
from dbops.policy.attack.statements import text
from dbops.policy.attack.ways import split, unwrapped
from dbops.policy.model import PREFIX, Definitions, Name, TableRules
from dbops.policy.state import Catalog, Policy, Table

TRUE = "true"
Statements = tuple[str, ...]


@dataclass(frozen=True)
class Companion:
    """A second line of defence taken away, so that the first one is seen to hold on its own."""

    what: str
    statements: Statements


@dataclass(frozen=True)
class Mutant:
    """`companions` are tried one after the other where the mutant alone changes nothing."""

    name: str
    table: Name
    statements: Statements
    companions: tuple[Companion, ...] = ()


def mutants(definitions: Definitions, catalog: Catalog, rules: TableRules) -> list[Mutant]:
    """All the ways in which this table's policies are weakened."""
    table = catalog.tables[rules.name]
    policies = [policy for policy in catalog.policies if policy.table == rules.name]
    bound = [policy for policy in policies if _binds(definitions, catalog, rules, policy)]
    found = [mutant for policy in bound for mutant in _of_policy(definitions, catalog, table, rules, policy, bound)]
    found += list(_of_table(definitions, catalog, table, bound))
    return list({mutant.statements: mutant for mutant in found}.values())


def _binds(definitions: Definitions, catalog: Catalog, rules: TableRules, policy: Policy) -> bool:
    """Whether the policy is one for users: services are trusted."""
    roles = {definitions.auth.user_role, definitions.auth.anon_role, "public"}
    for role in tuple(roles):
        roles |= catalog.roles[role].member_of if role in catalog.roles else set()
    return bool(roles & set(policy.roles)) and not set(policy.roles) <= set(rules.service)


# --- statements ---


def _altered(policy: Policy, using: str | None, check: str | None) -> str:
    parts = [sql.SQL("ALTER POLICY {} ON {}").format(sql.Identifier(policy.name), relation(policy.table))]
    if using is not None:
        parts.append(sql.SQL("USING ({})").format(fixed(using)))
    if check is not None:
        parts.append(sql.SQL("WITH CHECK ({})").format(fixed(check)))
    return text(sql.SQL(" ").join(parts))


def _with_using(policy: Policy, using: str) -> str:
    # without a WITH CHECK of its own USING is that as well: it is written out, so that one thing changes
    check = policy.check or (policy.using if policy.verb in ("update", "all") else None)
    return _altered(policy, using, check)


def _dropped(policy: Policy) -> str:
    return text(sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(policy.name), relation(policy.table)))


def _permissive(policy: Policy) -> str:
    roles = sql.SQL(", ").join(sql.SQL("PUBLIC") if role == "public" else sql.Identifier(role) for role in policy.roles)
    made = sql.SQL("CREATE POLICY {} ON {} AS PERMISSIVE FOR {} TO {}").format(
        sql.Identifier(policy.name), relation(policy.table), fixed(policy.verb.upper()), roles
    )
    using = sql.SQL(" USING ({})").format(fixed(policy.using)) if policy.using else sql.SQL("")
    check = sql.SQL(" WITH CHECK ({})").format(fixed(policy.check)) if policy.check else sql.SQL("")
    return text(sql.Composed([made, using, check]))


def _open(policy: Policy) -> str:
    using = TRUE if policy.verb != "insert" else None
    return _altered(policy, using, TRUE if policy.verb in ("insert", "update", "all") else None)


# --- of one policy ---


def _of_policy(
    definitions: Definitions,
    catalog: Catalog,
    table: Table,
    rules: TableRules,
    policy: Policy,
    others: Sequence[Policy],
) -> Iterator[Mutant]:
    beside = _beside(definitions, catalog, policy, others)

    def mutant(what: str, *statements: str) -> Mutant:
        return Mutant(f"{policy.table}: {policy.name}: {what}", policy.table, statements, beside)

    yield mutant("dropped", _dropped(policy))
    if not policy.permissive:
        yield mutant("made permissive", _dropped(policy), _permissive(policy))
    if policy.using is not None:
        for what, using in _weaker(policy.using, table, rules):
            yield mutant(f"USING {what}", _with_using(policy, using))
    check = policy.check or (policy.using if policy.verb in ("update", "all") else None)
    if check is not None:
        for what, weaker in _weaker(check, table, rules):
            yield mutant(f"WITH CHECK {what}", _altered(policy, None, weaker))
    if "public" not in policy.roles:
        widened = sql.SQL("ALTER POLICY {} ON {} TO PUBLIC").format(sql.Identifier(policy.name), relation(policy.table))
        yield mutant("TO PUBLIC", text(widened))


def _weaker(predicate: str, table: Table, rules: TableRules) -> Iterator[tuple[str, str]]:
    if predicate.strip("() ").lower() != TRUE:
        yield "true", TRUE
    parts = conjuncts(predicate)
    if len(parts) > 1:
        yield "with OR instead of AND", " OR ".join(f"({part})" for part in parts)
    swapped = _wrong_column(predicate, table, rules)
    if swapped is not None:
        yield "of the wrong column", swapped


def conjuncts(predicate: str) -> list[str]:
    """The parts of a predicate with AND at its top: one part where there is none."""
    inner = unwrapped(predicate)
    return [inner] if len(split(inner, "or")) > 1 else split(inner, "and")


def _wrong_column(predicate: str, table: Table, rules: TableRules) -> str | None:
    for scope in (rules.owner, rules.tenant.column if rules.tenant else None):
        column = table.column(scope) if scope else None
        others = [c.name for c in table.columns if column and c.type == column.type and c.name != column.name]
        if column is None or not others:
            continue
        name = sql.Identifier(others[0]).as_string(None)
        swapped = re.sub(
            rf'(?<![\w".])(?:"{re.escape(column.name)}"|{re.escape(column.name)})(?![\w"(])', name, predicate
        )
        if swapped != predicate:
            return swapped
    return None


# --- of the table ---


def _of_table(definitions: Definitions, catalog: Catalog, table: Table, policies: Sequence[Policy]) -> Iterator[Mutant]:
    on = relation(table.name)
    label = str(table.name)
    if table.rls:
        yield Mutant(
            f"{label}: DISABLE", table.name, (text(sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(on)),)
        )
    if table.rls and table.forced:
        yield Mutant(
            f"{label}: NO FORCE", table.name, (text(sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(on)),)
        )
    grant = sql.SQL("GRANT TRUNCATE ON {} TO {}").format(on, sql.Identifier(definitions.auth.user_role))
    if "TRUNCATE" not in table.grants.get(definitions.auth.user_role, ()):
        yield Mutant(f"{label}: TRUNCATE granted", table.name, (text(grant),))
    writers = [policy for policy in policies if policy.permissive and policy.verb in ("update", "all")]
    opened = Companion("with no check on UPDATE", tuple(_altered(policy, None, TRUE) for policy in writers))
    for statement, name in _triggers(catalog, table.name):
        yield Mutant(f"{label}: trigger {name} dropped", table.name, (statement,), (opened,))


def _triggers(catalog: Catalog, table: Name) -> list[tuple[str, str]]:
    return [
        (text(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(trigger.name), relation(table))), trigger.name)
        for trigger in catalog.triggers
        if trigger.table == table and trigger.name.startswith(PREFIX)
    ]


def _beside(
    definitions: Definitions, catalog: Catalog, policy: Policy, others: Sequence[Policy]
) -> tuple[Companion, ...]:
    """What else may hold what this policy holds."""
    if not policy.permissive:
        same = [
            other
            for other in others
            if other.permissive and (policy.verb in ("all", other.verb) or other.verb == "all")
        ]
        return (Companion("the permissive policies open", tuple(map(_open, same))),)
    triggers = tuple(statement for statement, _ in _triggers(catalog, policy.table))
    floors = tuple(_dropped(other) for other in others if not other.permissive)
    verbs = "SELECT, INSERT, UPDATE, DELETE" if policy.verb == "all" else policy.verb.upper()
    grant = sql.SQL("GRANT {} ON {} TO {}").format(
        fixed(verbs), relation(policy.table), sql.Identifier(definitions.auth.user_role)
    )
    found = [
        Companion("without its trigger", triggers) if triggers else None,
        Companion("without the restrictive policies", floors) if floors else None,
        Companion("without its trigger and the restrictive policies", (*triggers, *floors))
        if triggers and floors
        else None,
        Companion(f"with {verbs} granted", (text(grant),)),
    ]
    return tuple(each for each in found if each is not None)
