"""What the permissive policies in the catalog open, together with the restrictive ones beside them. Pure.

A policy opens rows in several ways (`ways.py`), and a way is only *exercised* where it was seen to be true:

1. The parts that a row's values decide (`visibility = 'public'`) hold for a made row of somebody else (`made.py` makes
   it), and the whole of it holds for somebody: an attacker, or the one whose row it is.
2. What says whose a row is (`user_id = auth.uid()`, a tenant's membership) is never made true for a stranger: it is
   exercised when its rightful user finds it true.

A way that nobody finds true for any row is nothing proven: the table is vacuous for that policy (`exercise.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from dbops.policy.attack.ways import TooMany, Way, joined, ways_of
from dbops.policy.model import VERBS, Definitions, Name
from dbops.policy.state import Catalog, Policy, Table


@dataclass(frozen=True)
class Opening:
    """One way in which a policy of `table` lets a user through; `check`: what an UPDATE may make of a row."""

    table: Name  # the policy's own: it may be a partition
    policy: str
    way: Way
    check: bool = False


@dataclass(frozen=True)
class Unread:
    """A policy of which the ways cannot be told, and why."""

    table: Name
    policy: str
    reason: str


def openings(
    definitions: Definitions, catalog: Catalog, table: Table, scope: Sequence[str]
) -> tuple[list[Opening], list[Unread]]:
    """The ways of the table's policies for the user role and visitors, each once; `scope` says whose a row is."""
    columns = [column.name for column in table.columns]
    found: dict[tuple[str, ...], Opening] = {}
    unread: dict[Unread, None] = {}
    for policy, text, check in _texts(definitions, catalog, table.name):
        try:
            made = ways_of(text, table.name.name, columns, scope)
        except TooMany as error:
            unread[Unread(table.name, policy.name, str(error))] = None
            continue
        for way in made:
            known = found.setdefault(way.parts, Opening(table.name, policy.name, way))
            if check:
                found[way.parts] = replace(known, check=True)
    return list(found.values()), list(unread)


def _texts(definitions: Definitions, catalog: Catalog, table: Name) -> Iterator[tuple[Policy, str, bool]]:
    """Each permissive policy with the restrictive ones that hold beside it: the policy, the predicate, whether it is
    the check of an UPDATE."""
    policies = [policy for policy in catalog.policies if policy.table == table]
    for role, verb in product((definitions.auth.user_role, definitions.auth.anon_role), VERBS):
        mine = {"public", role, *(catalog.roles[role].member_of if role in catalog.roles else ())}
        held = [policy for policy in policies if policy.verb in ("all", verb) and mine & set(policy.roles)]
        for policy in (policy for policy in held if policy.permissive):
            beside = [policy, *(each for each in held if not each.permissive)]
            if verb != "insert":
                yield policy, joined(each.using or "true" for each in beside), False
            if verb in ("insert", "update"):
                yield policy, joined(each.check or each.using or "true" for each in beside), verb == "update"
