"""What the permissive policies in the catalog open, together with the restrictive ones beside them. Pure.

A policy opens rows in several ways (`ways.py`), and a way is only *exercised* where it was seen to be true:

1. The parts that a row's values decide (`visibility = 'public'`) hold for a made row of somebody else (`made.py` makes
   it), and the whole of it holds for somebody: an attacker, or the one whose row it is.
2. What says whose a row is (`user_id = auth.uid()`, a tenant's membership) is never made true for a stranger: it is
   exercised when its rightful user finds it true.

A way that nobody finds true for any row is nothing proven: the table is vacuous for that policy (`exercise.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from dbops.policy.attack.ways import Parts, TooMany, Way, enclosed, joined, ways_of
from dbops.policy.model import VERBS, Definitions, Name, TableRules
from dbops.policy.state import Catalog, Policy, Table


@dataclass(frozen=True)
class Opening:
    """One way in which a policy of `table` lets a user through; `check`: what an UPDATE may make of a row."""

    table: Name  # the policy's own: it may be a partition
    policy: str  # `policy NAME`, with the partition's name
    way: Way
    check: bool = False


@dataclass(frozen=True)
class Openings:
    """Of one table and of its partitions' own policies.

    `unread` says of policies why their ways cannot be told; `shared` are the ways of shared rules, and their negations.
    """

    found: tuple[Opening, ...] = ()
    unread: tuple[str, ...] = ()
    shared: tuple[Way, ...] = ()

    @property
    def loose(self) -> dict[Name, list[Way]]:
        """The ways that ask for values of a row, by the table whose rows they are."""
        ways: dict[Name, list[Way]] = {}
        for opening in self.found:
            if opening.way.loose:
                ways.setdefault(opening.table, []).append(opening.way)
        return ways


def openings_of(definitions: Definitions, catalog: Catalog, tables: Iterable[Name]) -> dict[Name, Openings]:
    """What is open in each of the tables."""
    return {name: _openings(definitions, catalog, catalog.tables[name]) for name in sorted(tables)}


def scope_of(rules: TableRules | None) -> tuple[str, ...]:
    """The columns that say whose a row is."""
    if rules is None:
        return ()
    return tuple(column for column in (rules.owner, rules.tenant and rules.tenant.column) if column)


def _openings(definitions: Definitions, catalog: Catalog, table: Table) -> Openings:
    rules = definitions.tables.get(table.name)
    columns, scope = [column.name for column in table.columns], scope_of(rules)
    found: dict[tuple[Name, Parts], Opening] = {}
    unread: dict[str, None] = {}
    for policy, text, check in _texts(definitions, catalog, _with_partitions(definitions, catalog, table.name)):
        title = f"policy {policy.name}" + (f" of {policy.table}" if policy.table != table.name else "")
        try:
            ways = ways_of(text, policy.table.name, columns, scope)
        except TooMany as error:
            unread[f"{title}: {error}"] = None
            continue
        for way in ways:
            key = (policy.table, way.parts)
            known = found.setdefault(key, Opening(policy.table, title, way))
            found[key] = replace(known, check=known.check or check)
    shared = [way for each in rules.shared for way in _shared(each.when, table, scope)] if rules else []
    return Openings(tuple(found.values()), tuple(unread), tuple(shared))


def _shared(when: str, table: Table, scope: Sequence[str]) -> list[Way]:
    """A row for which the condition holds is wanted, and one for which it does not."""
    columns = [column.name for column in table.columns]
    try:
        ways = ways_of(when, table.name.name, columns, scope)
    except TooMany:
        ways = ways_of(f"({enclosed(when)}) IS TRUE", table.name.name, columns, scope)
    held_back = ways_of(f"{enclosed(when)} IS NOT TRUE", table.name.name, columns, scope)
    return [way for way in (*ways, *held_back) if way.loose]


def _with_partitions(definitions: Definitions, catalog: Catalog, root: Name) -> list[Name]:
    """The table and the partitions below it that have no definition of their own."""
    found = [root]
    for name in found:  # grows while it is read
        below = [each for each, table in catalog.tables.items() if table.partition_of == name]
        found += sorted(each for each in below if each not in definitions.tables)
    return found


def _texts(definitions: Definitions, catalog: Catalog, tables: Sequence[Name]) -> Iterator[tuple[Policy, str, bool]]:
    """Each permissive policy with the restrictive ones that hold beside it: the policy, the predicate, whether it is
    the check of an UPDATE."""
    roles = (definitions.auth.user_role, definitions.auth.anon_role)
    for table, role, verb in product(tables, roles, VERBS):
        policies = [policy for policy in catalog.policies if policy.table == table]
        mine = {"public", role, *(catalog.roles[role].member_of if role in catalog.roles else ())}
        held = [policy for policy in policies if policy.verb in ("all", verb) and mine & set(policy.roles)]
        for policy in (policy for policy in held if policy.permissive):
            beside = [policy, *(each for each in held if not each.permissive)]
            if verb != "insert":
                yield policy, joined(each.using or "true" for each in beside), False
            if verb in ("insert", "update"):
                yield policy, joined(each.check or each.using or "true" for each in beside), verb == "update"
