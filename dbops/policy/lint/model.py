"""What a rule is, what it is given, what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from dbops.policy.model import PREFIX, Definitions, Name, TableRules
from dbops.policy.state import Catalog, Grants, Policy, Table, View

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
WRITES = frozenset({"INSERT", "UPDATE", "DELETE"})
READS = frozenset({"SELECT"})


@dataclass(frozen=True)
class Finding:
    """Something that a rule found. Where no definition file speaks of the table, `path` is None and `line` 0.

    `table` is `schema.name` of a table, view or function, or empty; pgrls's rules are `pgrls/NAME`.
    """

    rule: str
    severity: Severity
    path: Path | None
    line: int
    table: str
    message: str
    hint: str


@dataclass(frozen=True)
class Found:
    """What a check says: of which thing, and what is wrong; a severity where it is not the rule's."""

    name: Name | None
    message: str
    severity: Severity | None = None


@dataclass(frozen=True)
class Subject:
    """What is looked at: the definitions and what the database has."""

    definitions: Definitions
    catalog: Catalog

    @cached_property
    def users(self) -> frozenset[str]:
        """The roles that users and visitors act as or can become, and PUBLIC; services are none of them."""
        auth = self.definitions.auth
        acting = {auth.user_role, auth.anon_role}
        acting |= {
            role
            for table in self.definitions.tables.values()
            for roles in (*(each.to for each in table.shared), *(each.to for each in table.raw))
            for role in roles
            if role not in table.service
        }
        above = {role for each in acting if (known := self.catalog.roles.get(each)) for role in known.member_of}
        return frozenset(acting | above | {"public"})

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """The database's policies, and the raw ones of the definitions that are not applied yet."""
        there = {(policy.table, policy.name) for policy in self.catalog.policies}
        coming = (
            Policy(name, raw.name, raw.permissive, raw.verb, raw.to, raw.using, raw.check)
            for name, rules in self.definitions.tables.items()
            for raw in rules.raw
            if not there & {(name, raw.name), (name, f"{PREFIX}{raw.name}")}
        )
        return (*self.catalog.policies, *coming)

    @cached_property
    def for_users(self) -> tuple[Policy, ...]:
        """The policies that users and visitors are under."""
        return tuple(policy for policy in self.policies if self.users & set(policy.roles))

    def open_by_rule(self, policy: Policy) -> bool:
        """Whether the policy is one that dbops made of a table's keys: its `shared` rows are open on purpose."""
        rules = self.definitions.tables.get(policy.table)
        return bool(rules and rules.shared and made_here(policy, rules))

    def held(self, grants: Grants, privileges: Iterable[str]) -> dict[str, list[str]]:
        """Those of the privileges that users have, by role."""
        wanted = set(privileges)
        return {
            role: sorted(grants[role] & wanted) for role in sorted(self.users & set(grants)) if grants[role] & wanted
        }

    def reachable(self, thing: Table | View, privileges: Iterable[str]) -> list[str]:
        """The users' roles that have one of these privileges on the table or view, or on a column of it."""
        roles = set(self.held(thing.grants, privileges))
        for grants in thing.column_grants.values() if isinstance(thing, Table) else ():
            roles |= set(self.held(grants, privileges))
        return sorted(roles)

    def rules_of(self, name: Name) -> TableRules | None:
        """The rules of a table, for a partition those of the table at the root."""
        seen: set[Name] = set()
        while name not in self.definitions.tables and name not in seen:
            seen.add(name)
            table = self.catalog.tables.get(name)
            if table is None or table.partition_of is None:
                return None
            name = table.partition_of
        return self.definitions.tables.get(name)

    def owner_columns(self, name: Name) -> frozenset[str]:
        """The columns that say whose a row is: from the definitions, else what policies compare with the identity."""
        from dbops.policy.lint.predicate import compared_with_identity

        rules = self.rules_of(name)
        if rules is not None:
            return frozenset({rules.owner, rules.tenant.column if rules.tenant else None} - {None})  # type: ignore[arg-type]
        return frozenset(
            column
            for policy in self.for_users
            if policy.table == name and policy.permissive
            for predicate in predicates(policy)
            for column in compared_with_identity(predicate, self.definitions.auth)
        )


def made_here(policy: Policy, rules: TableRules) -> bool:
    """Whether dbops compiled the policy from the table's keys; a raw one says itself what it opens."""
    raw = {f"{PREFIX}{each.name}" for each in rules.raw} | {each.name for each in rules.raw}
    return policy.name.startswith(PREFIX) and policy.name not in raw


def predicates(policy: Policy) -> Iterator[str]:
    """The policy's expressions, each once."""
    yield from dict.fromkeys(text for text in (policy.using, policy.check) if text is not None)


def called(policy: Policy) -> str:
    return f"policy {policy.name} on {policy.table}"


Check = Callable[[Subject], Iterable[Found]]


@dataclass(frozen=True)
class Rule:
    """A rule. It stands in for the rules of pgrls in `replaces`. `about`: who reaches what, or what it costs."""

    name: str
    severity: Severity
    summary: str
    hint: str
    replaces: tuple[str, ...] = ()
    about: Literal["access", "speed"] = "access"
    check: Check | None = None


RULES: dict[str, Rule] = {}


def rule(
    name: str,
    severity: Severity,
    hint: str,
    *,
    replaces: tuple[str, ...] = (),
    about: Literal["access", "speed"] = "access",
) -> Callable[[Check], Check]:
    """Register a check under its name; the docstring's first line is its summary."""

    def register(check: Check) -> Check:
        summary = (check.__doc__ or "").strip().splitlines()[0]
        RULES[name] = Rule(name, severity, summary, hint, replaces, about, check)
        return check

    return register


def notice(name: str, severity: Severity, summary: str, hint: str) -> Rule:
    """Register what lint itself has to say, with no check behind it."""
    RULES[name] = Rule(name, severity, summary, hint)
    return RULES[name]
